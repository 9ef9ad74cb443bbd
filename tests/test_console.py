"""The command `recsys`, called as a function, as Databricks calls the entry point of a wheel."""

import sys
from pathlib import Path

import pytest

from recsys import console


@pytest.mark.parametrize("code", [0, 2, 75])
def test_only_a_failure_ends_in_an_exit(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (console.JOBS, console.TEMPLATES):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / console.JOBS / "some_job.py").write_text(f"import sys\nassert sys.argv[1] == 'a=1'\nsys.exit({code})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["python", "some-job", "a=1"])
    if not code:
        console.main()
        return
    with pytest.raises(SystemExit) as ended:
        console.main()
    assert ended.value.code == code
