"""The package installed with nothing but what it needs: no Spark, no MLflow, no data frame library but Arrow's."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGED = ("setup.py", "pyproject.toml", "README.md")

PROGRAM = """
import importlib.util, sys
absent = ["pyspark", "delta", "mlflow", "pandas", "scipy", "matplotlib", "sqlalchemy", "sentence_transformers"]
assert not [name for name in absent if importlib.util.find_spec(name)]
import recsys
from recsys.errors import ConfigError
assert "site-packages" in recsys.__file__
users = [f"u{number % 7}" for number in range(2_000)]
items = [f"i{number % 7 + 7 * (number * number % 5)}" for number in range(2_000)]
events = {"user_id": users, "item_id": items, "event_time": range(1_714_521_600, 1_714_523_600)}
model = recsys.fit(events, {"model.factors": 4})
lists = model.recommend(["u1", "stranger"], k=3)
assert type(lists).__module__.startswith("pyarrow")
assert lists.column_names == ["user_id", "rank", "item_id", "score"]
assert model.similar_items("i1", k=2).num_rows == 2
model.save(sys.argv[1])
again = recsys.load(sys.argv[1])
again.update({"user_id": ["new"], "item_id": ["i1"], "event_time": [1_714_523_601]})
assert again.recommend(["u1"], k=3).num_rows == 3
result = recsys.evaluate.prequential(events, {"model.factors": 4, "recommend.exclude_seen": False}, batches=5)
assert "popularity" in repr(result)
for call, extra in ((lambda: recsys.load_champion("recsys"), "mlflow"), (result.plot, "plots")):
    try:
        call()
    except ConfigError as error:
        assert f"pip install 'recsys-stream[{extra}]'" in str(error), error
    else:
        raise AssertionError(f"works without the extra {extra}")
print(model)
"""


@pytest.mark.process
@pytest.mark.heavy
def test_the_front_door_needs_the_core_requirements_only(tmp_path: Path) -> None:
    source, python = tmp_path / "source", tmp_path / "environment" / "bin" / "python"
    source.mkdir()
    for folder in ("recsys", "jobs", "conf"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in PACKAGED:
        shutil.copy(ROOT / name, source)
    uv = [sys.executable, str(ROOT / "scripts" / "uv.py")]
    constraints = ["-c", str(ROOT / "constraints.txt"), "-b", str(ROOT / "constraints.txt")]
    for command in (
        [*uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "environment")],
        [*uv, "pip", "install", "--quiet", "--python", str(python), *constraints, str(source)],
        [str(python), "-I", "-c", PROGRAM, str(tmp_path / "model")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "Recommender(mixture: 7 users, 21 items, events until 2024-05-01)\n"
