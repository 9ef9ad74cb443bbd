"""Snapshots: what is saved comes back, recovery equals never having stopped, and what does not fit is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from recsys.contracts import StepId
from recsys.errors import InputError
from recsys.model import snapshot
from recsys.model.recommender import OnlineModel
from recsys.model.snapshot import Snapshot
from tests.model.als.test_incremental_als import assert_same_state, learn
from tests.model.helpers import clustered_batches, make_batch, make_settings

SETTINGS = make_settings(decay={"half_life_days": 0.05})
BATCHES = clustered_batches(7, 80)


@settings(max_examples=15)
@given(st.lists(st.integers(0, 5), max_size=3))
def test_snapshot_and_tail_equal_an_uninterrupted_run(
    tmp_path_factory: pytest.TempPathFactory, stops: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("snapshots")
    model = OnlineModel(SETTINGS)
    for number, batch in enumerate(BATCHES):
        model.update(batch, StepId(0, number))
        if number in stops:
            path = snapshot.path_for(folder, StepId(0, number))
            Snapshot.of(model).save(path)
            model = snapshot.load(path, SETTINGS)
    assert_same_state(model, learn(OnlineModel(SETTINGS), BATCHES))


def test_a_snapshot_moves_between_devices(tmp_path: Path, torch_device: str) -> None:
    model = learn(OnlineModel(SETTINGS), BATCHES[:2])
    Snapshot.of(model).save(tmp_path / "a.safetensors")
    moved = snapshot.load(tmp_path / "a.safetensors", SETTINGS.model_copy(update={"device": torch_device}))
    assert moved.als.device.type == torch_device
    assert moved.step == StepId(0, 1)
    assert_same_state(moved, model)


def test_a_snapshot_says_what_made_it(tmp_path: Path) -> None:
    Snapshot.of(learn(OnlineModel(SETTINGS), BATCHES[:1])).save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        made_with = json.loads(file.metadata()["made_with"])
    assert made_with.keys() == {"device", "processor", "numpy", "torch", "numba"}
    assert (made_with["device"], made_with["torch"]) == ("cpu", torch.__version__)


def test_ids_of_any_kind_survive(tmp_path: Path) -> None:
    ids = ["a'b\"c", "line\nbreak", "🛒/..", "x" * 10_000, "\ud800", ""]
    model = learn(
        OnlineModel(SETTINGS), [make_batch([(text, text[::-1], 1.0, 0.0) for text in ids if text != "\ud800"])]
    )
    Snapshot.of(model).save(tmp_path / "a.safetensors")
    again = snapshot.load(tmp_path / "a.safetensors", SETTINGS)
    assert again.users.ids == model.users.ids
    assert again.items.ids == model.items.ids


def test_snapshots_up_to_a_step_are_found_and_the_others_go(tmp_path: Path) -> None:
    model = OnlineModel(SETTINGS)
    for step in (StepId(0, 3), StepId(0, 20), StepId(1, 5)):
        model.update(BATCHES[0], step)
        assert Snapshot.of(model).save_in(tmp_path) == snapshot.path_for(tmp_path, step)
    (tmp_path / "generation-0" / ".batch-21.safetensors.1.tmp").touch()
    (tmp_path / "generation-0" / "batch-x.safetensors").touch()
    found = {
        step: snapshot.steps(tmp_path, step) for step in (StepId(0, 2), StepId(0, 19), StepId(0, 99), StepId(2, 9))
    }
    assert found == {
        StepId(0, 2): [],
        StepId(0, 19): [StepId(0, 3)],
        StepId(0, 99): [StepId(0, 20), StepId(0, 3)],
        StepId(2, 9): [],
    }
    snapshot.prune(tmp_path, generation=0, keep=1)
    assert snapshot.steps(tmp_path, StepId(0, 99)) == [StepId(0, 20)]
    assert snapshot.steps(tmp_path, StepId(1, 5)) == [StepId(1, 5)]
    snapshot.prune(tmp_path, generation=1, keep=1)
    assert [path.name for path in tmp_path.rglob("*")] == ["generation-1", "batch-5.safetensors"]


def test_saving_leaves_no_temporary_file_and_replaces_the_old_one(tmp_path: Path) -> None:
    model = learn(OnlineModel(SETTINGS), BATCHES[:1])
    for _ in range(2):
        Snapshot.of(model).save(tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_model_that_has_learned_nothing_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no state"):
        Snapshot.of(OnlineModel(SETTINGS)).save_in(tmp_path)


def test_what_does_not_fit_is_refused_with_one_line(tmp_path: Path) -> None:
    good, cut, changed, strange = (tmp_path / f"{name}.safetensors" for name in ("good", "cut", "changed", "strange"))
    Snapshot.of(learn(OnlineModel(SETTINGS), BATCHES[:1])).save(good)
    cut.write_bytes(good.read_bytes()[:-100])
    content = bytearray(good.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    save_file({"x": np.zeros(1)}, strange)
    other = make_settings(model={"factors": 9})
    for path, settings_, text in (
        (tmp_path / "none.safetensors", SETTINGS, "cannot read"),
        (cut, SETTINGS, "cannot read"),
        (changed, SETTINGS, "is damaged: its content does not have its checksum"),
        (strange, SETTINGS, "format None, and this release reads format 11 only"),
        (good, other, "other settings"),
    ):
        with pytest.raises(InputError, match=text) as caught:
            snapshot.load(path, settings_)
        assert "\n" not in str(caught.value)


def test_a_snapshot_of_an_earlier_format_is_refused(tmp_path: Path) -> None:
    """As the release before wrote it: epochs, and format 3."""
    model = learn(OnlineModel(SETTINGS), BATCHES[:1])
    metadata = {"format": "3", "epoch": "0", "batch_id": "0", "fingerprint": SETTINGS.fingerprint()}
    path = tmp_path / "old.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in model.state().items()}, path, metadata)
    with pytest.raises(InputError, match="format 3, and this release reads format 11 only") as caught:
        snapshot.load(path, SETTINGS)
    assert "\n" not in str(caught.value)


def test_served_arrays_hold_factors_ids_popularity_and_what_was_seen() -> None:
    rows = [("b", "y", 1.0, 0.0), ("b", "x", -1.0, 0.0), ("a", "y", 2.0, 0.0), ("c", "x", -2.0, 0.0)]
    model = learn(OnlineModel(make_settings()), [make_batch(rows)])
    served = model.served()
    arrays = served.packed()
    assert arrays["kind"].tobytes() == b"als"
    assert {name: (array.dtype.name, array.shape) for name, array in arrays.items()} == {
        "kind": ("uint8", (3,)),
        "user_factors": ("float32", (3, 8)),
        "item_factors": ("float32", (2, 8)),
        "user_ids_bytes": ("uint8", (3,)),
        "user_ids_offsets": ("int64", (4,)),
        "item_ids_bytes": ("uint8", (2,)),
        "item_ids_offsets": ("int64", (3,)),
        "item_popularity": ("float32", (2,)),
        "seen_offsets": ("int64", (4,)),
        "seen_items": ("int32", (4,)),
        "seen_weights": ("float32", (4,)),
        "gram": ("float64", (8, 8)),
        "objective": ("float64", (4,)),
    }
    assert served.user_ids == ["a", "b", "c"]
    assert arrays["item_popularity"].tolist() == [{"y": 3.0, "x": 0.0}[item] for item in served.item_ids]
    assert arrays["seen_offsets"].tolist() == [0, 1, 3, 4]
    assert arrays["seen_items"][1:3].tolist() == [0, 1]
    assert not arrays["user_factors"][2].any()
    assert arrays["user_factors"][0].any()
