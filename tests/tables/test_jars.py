from pathlib import Path

import pytest

from recsys.tables import jars

DELTA = "io.delta:delta-spark_4.2_2.13:4.4.0"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "recsys-stream"


def looked_up(packages: str) -> list[str]:
    with jars.lookup(packages) as found:
        return found


def test_jars_are_found_once_they_were_resolved_and_as_long_as_they_are_there(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.jar", "b.jar")]
    for file in files:
        file.touch()
    with jars.lookup(DELTA) as found:
        assert found == []
        jars.remember(DELTA, [str(file) for file in files])
    assert looked_up(DELTA) == [str(file) for file in files]
    assert looked_up(f"{DELTA},com.example:more:1") == []
    files[0].unlink()
    assert looked_up(DELTA) == [], "resolved again, as after a change of Ivy's cache"


def test_a_damaged_note_is_no_note(cache: Path) -> None:
    cache.mkdir(parents=True)
    for damaged in ('{"io.delta', "[]"):
        (cache / "resolved-jars.json").write_text(damaged)
        assert looked_up(DELTA) == []


def test_without_packages_there_is_nothing_to_look_up(cache: Path) -> None:
    assert looked_up("") == []
    assert not cache.exists()


def test_where_nothing_can_be_kept_every_start_resolves(cache: Path) -> None:
    cache.parent.write_text("a file, so there can be no folder below it")
    with jars.lookup(DELTA) as found:
        assert found == []
        jars.remember(DELTA, ["a.jar"])
    assert looked_up(DELTA) == []
