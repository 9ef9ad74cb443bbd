"""What a version loses when it is stored is what its arrays may lose."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from recsys.serving import stored as module
from recsys.serving.axes import Axes, Loss
from recsys.serving.stored import FORMS, restored, stored

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
        assert (error <= largest / 65_000 + 1e-38).all()
        positive = np.abs(array)
        positive[positive < 1e-30] = 0
        np.testing.assert_allclose(there_and_back(positive, Loss.LOGARITHMIC), positive, rtol=2e-3)


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
