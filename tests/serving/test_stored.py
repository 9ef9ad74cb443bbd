"""What a version loses when it is stored is what its arrays may lose."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from recsys.serving import stored as module
from recsys.serving.axes import Axes, Loss, NewItem
from recsys.serving.stored import FORMS, restored, stored
from recsys.serving.version import KINDS, declared_axes

DECLARED = {loss.name: Axes(("one", "two"), loss=loss) for loss in Loss}
FLOATS = arrays_of.arrays(
    st.sampled_from([np.float32, np.float64]),
    arrays_of.array_shapes(min_dims=2, max_dims=3, max_side=5),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-300, 300).map(float),
)
INTEGERS = arrays_of.arrays(st.sampled_from([np.int64, np.int32, np.uint8]), arrays_of.array_shapes())


@pytest.fixture(autouse=True)
def every_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL_BYTES", 0)


def there_and_back(array: np.ndarray, loss: Loss) -> np.ndarray:
    found = restored(stored({loss.name: array}, DECLARED))
    assert found.keys() == {loss.name}
    back = found[loss.name]
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.flags.writeable
    assert back.flags.c_contiguous
    return back


@settings(max_examples=150, deadline=None)
@given(FLOATS | INTEGERS)
def test_nothing_is_lost_where_nothing_may_be(array: np.ndarray) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SMALL_BYTES", 0)
        assert there_and_back(array, Loss.NONE).tobytes() == array.tobytes()
        if array.dtype.kind != "f":
            assert all(there_and_back(array, loss).tobytes() == array.tobytes() for loss in Loss)


@settings(max_examples=100, deadline=None)
@given(FLOATS)
def test_each_loss_is_bounded(array: np.ndarray) -> None:
    array = np.clip(array, -1e30, 1e30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SMALL_BYTES", 0)
        np.testing.assert_allclose(there_and_back(array, Loss.SINGLE), array, rtol=2.0**-24, atol=1e-44)
        largest = np.abs(array).max(axis=-1, keepdims=True)
        error = np.abs(there_and_back(array, Loss.BY_ROW) - array.astype(np.float64))
        assert (error <= largest / 32_000 + 1e-38).all()
        positive = np.abs(array)
        positive[positive < 1e-30] = 0
        np.testing.assert_allclose(there_and_back(positive, Loss.LOGARITHMIC), positive, rtol=2e-3)


TABLES = st.integers(1, 40).flatmap(
    lambda rows: st.tuples(
        *(
            arrays_of.arrays(kind, (rows, 6), elements=elements)
            for kind, elements in (
                (np.int32, st.integers(0, 50)),
                (np.float32, st.sampled_from([0, 0.3, 1.1, 7])),
                (np.float32, st.sampled_from([0, 0.3, 1.1, 7])),
            )
        )
    )
)
NEIGHBORS = {
    "others": Axes(("items", "neighbors"), NewItem.ZERO, sorted_by="after"),
    "after": Axes(("items", "neighbors"), NewItem.ZERO, Loss.SINGLE, sorted_by="after"),
    "before": Axes(("items", "neighbors"), NewItem.ZERO, Loss.SINGLE, sorted_by="after", like="after"),
}


@settings(max_examples=100, deadline=None)
@given(TABLES)
def test_rows_hold_the_same_entries_after_they_were_sorted(table: tuple[np.ndarray, ...]) -> None:
    arrays = dict(zip(NEIGHBORS, table, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SMALL_BYTES", 0)
        back = restored(stored(arrays, NEIGHBORS))
    assert (np.diff(back["after"], axis=1) <= 0).all()

    def entries(found: dict[str, np.ndarray]) -> list[list[tuple[float, ...]]]:
        return [
            sorted(zip(*row, strict=True)) for row in zip(*(found[name].tolist() for name in NEIGHBORS), strict=True)
        ]

    assert entries(back) == entries(arrays)


@pytest.mark.parametrize("alike", [True, False])
def test_what_equals_another_array_takes_no_room_and_what_does_not_no_more(alike: bool) -> None:
    generator = np.random.default_rng(0)
    after, other = generator.lognormal(size=(2, 2_000, 32)).astype(np.float32)
    before = np.where(generator.random(after.shape) < 0.99, after if alike else 0, other)
    arrays = {"after": after, "before": before}
    beside, alone = (stored(arrays, declared)["before"].nbytes for declared in (NEIGHBORS, {}))
    assert beside < alone / 10 if alike else beside <= alone * 1.1
    np.testing.assert_array_equal(np.sort(restored(stored(arrays, NEIGHBORS))["before"]), np.sort(before))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_arrays_are_sorted_by_and_like_arrays_with_the_same_axes(kind: str) -> None:
    declared = declared_axes(kind)
    for axes in declared.values():
        for other in (axes.sorted_by, axes.like):
            assert other is None or declared[other].names == axes.names
            assert other is None or (declared[other].sorted_by, declared[other].like) == (axes.sorted_by, None)


def test_arrays_of_earlier_versions_say_nothing_of_their_layout() -> None:
    """Zstandard of the first bytes of all numbers, then of all second ones; a 16-bit logarithm from end to end."""
    steps = np.array([[0, 1, 2, 65_535]], dtype="<u2")
    form = {"type": "<f4", "values": "<u2", "shape": [1, 4], "loss": "LOGARITHMIC", "codec": "zstd"}
    packed = pa.compress(steps.view(np.uint8).reshape(-1, 2).T.tobytes(), codec="zstd", asbytes=True)
    written = {
        "strengths": np.frombuffer(packed, np.uint8),
        "strengths@range": np.array([-1.0, 3.0]),
        FORMS: np.frombuffer(json.dumps({"strengths": form}).encode(), np.uint8),
    }
    expected = [[0, 0.5, 0.5 * 2 ** (4 / 65_534), 8]]
    np.testing.assert_allclose(restored(written)["strengths"], expected, rtol=1e-6)


def test_what_was_stored_once_is_stored_without_loss() -> None:
    """A version that is loaded and stored again stays as it is."""
    generator = np.random.default_rng(0)
    array = generator.lognormal(sigma=3, size=(200, 64)).astype(np.float32)
    for loss in Loss:
        once = there_and_back(array, loss)
        np.testing.assert_allclose(there_and_back(once, loss), once, rtol=1e-6)


def test_small_arrays_and_those_of_older_versions_are_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL_BYTES", 1 << 12)
    small = {"NONE": np.arange(3), "other": np.ones(2)}
    written = stored(small, DECLARED)
    assert all(written[name] is array for name, array in small.items())
    assert restored(small) == small
    assert restored(written).keys() == small.keys()
    assert FORMS in written


def test_sparse_and_narrow_arrays_take_few_bytes() -> None:
    generator = np.random.default_rng(0)
    neighbors = generator.integers(1, 50_000, (1_000, 64)).astype(np.int32)
    neighbors[:, 32:] = 0
    written = stored({"neighbors": neighbors}, {})
    assert written["neighbors"].nbytes < neighbors.nbytes / 3
