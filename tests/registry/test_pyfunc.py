"""The served model by itself; through MLflow it is tested in test_serving."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModelContext
from safetensors.numpy import save_file

from recsys import serving
from recsys.registry import pyfunc
from recsys.registry.pyfunc import ServedModel
from tests.registry.served import served_arrays, slow_ranking


def names(letter: str, count: int) -> list[str]:
    return [f"{letter}{number}" for number in range(count)]


@pytest.fixture
def served(tmp_path):
    def load(arrays: dict[str, np.ndarray], k: int = 3, exclude_seen: bool = True) -> ServedModel:
        file = tmp_path / "arrays.safetensors"
        save_file(arrays, file)
        model = ServedModel()
        model.load_context(
            PythonModelContext(
                {"arrays": str(file), "serving": str(Path(serving.__file__).parent)},
                {"k": k, "exclude_seen": exclude_seen},
            )
        )
        return model

    return load


def test_missing_settings_are_those_of_the_artifact(served):
    arrays = served_arrays(names("u", 4), names("i", 9))
    answer = served(arrays, k=4, exclude_seen=False).predict(None, pd.DataFrame({"user_id": ["u1", "u2"]}))
    assert answer["user_id"].tolist() == ["u1", "u2"]
    for user, items in zip((1, 2), answer["item_ids"], strict=True):
        assert items == [f"i{row}" for row in slow_ranking(arrays, user, 4, exclude_seen=False)[0]]


def test_each_row_may_ask_for_its_own(served):
    arrays = served_arrays(names("u", 4), names("i", 9))
    asked = pd.DataFrame(
        {
            "user_id": ["u1", "stranger", "u1", "u2"],
            "k": [2, 9, 5, 1],
            "exclude_seen": [True, True, False, False],
            "candidates": [None, None, ["i3", "never seen", "i1", "i3"], []],
        }
    )
    answer = served(arrays).predict(None, asked)
    wanted = [
        slow_ranking(arrays, 1, 2, exclude_seen=True),
        slow_ranking(arrays, -1, 9, exclude_seen=True),
        slow_ranking(arrays, 1, 5, exclude_seen=False, candidates=[3, 1]),
        ([], []),
    ]
    assert answer["user_id"].tolist() == asked["user_id"].tolist()
    assert answer["item_ids"].tolist() == [[f"i{row}" for row in items] for items, _ in wanted]
    assert answer["scores"].tolist() == [scores for _, scores in wanted]


@pytest.mark.parametrize(("users", "items"), [(0, 0), (3, 0), (0, 3)])
def test_an_empty_vocabulary_still_answers(served, users, items):
    model = served(served_arrays(names("u", users), names("i", items)))
    asked = pd.DataFrame({"user_id": ["u1", "x"], "candidates": [None, ["i0"]]})
    answer = model.predict(None, asked)
    assert [len(some) for some in answer["item_ids"]] == [min(items, 3), min(items, 1)] if users == 0 else [0, 0]


def test_no_rows_give_no_rows(served):
    answer = served(served_arrays(["u"], ["i"])).predict(None, pd.DataFrame({"user_id": []}))
    assert answer.columns.tolist() == ["user_id", "item_ids", "scores"]
    assert answer.empty


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [({"user": ["u1"]}, "no column 'user_id'"), ({"user_id": ["u1"], "k": [0]}, "column 'k', row 0: 0 is no length")],
)
def test_what_cannot_be_answered_is_refused(served, asked, complaint):
    with pytest.raises(MlflowException, match=complaint):
        served(served_arrays(["u1"], ["i1"])).predict(None, pd.DataFrame(asked))


def test_versions_with_the_same_code_share_it_and_others_do_not(served, tmp_path):
    arrays = served_arrays(names("u", 4), names("i", 9))
    first, second = served(arrays), served(arrays)
    assert type(first.ranker) is type(second.ranker)
    other = tmp_path / "serving"
    shutil.copytree(Path(serving.__file__).parent, other, ignore=shutil.ignore_patterns("__pycache__"))
    (other / "ids.py").write_text((other / "ids.py").read_text() + "\n# changed\n")
    third = ServedModel()
    context = PythonModelContext(
        {"arrays": str(tmp_path / "arrays.safetensors"), "serving": str(other)}, {"k": 3, "exclude_seen": True}
    )
    third.load_context(context)
    assert type(third.ranker) is not type(first.ranker)


def test_code_is_used_where_it_lies_when_no_copy_can_be_kept(served, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(file / "folder"))
    code = Path(serving.__file__).parent
    assert pyfunc._kept(code, pyfunc._digest(code)) == code
