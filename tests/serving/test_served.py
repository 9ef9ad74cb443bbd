"""What a version holds comes back from its arrays as it was."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.serving import Served
from recsys.serving.ids import pack_ids, unpack_ids
from tests.registry.served import served_arrays

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


@given(st.lists(ANY_TEXT))
def test_packing_is_undone_by_unpacking(ids: list[str]) -> None:
    data, offsets = pack_ids(ids)
    assert data.dtype == np.uint8
    assert offsets.dtype == np.int64
    assert len(offsets) == len(ids) + 1
    assert unpack_ids(data, offsets) == ids


def test_awkward_ids_survive_packing() -> None:
    ids = ["", "a'b\"c", "line\nbreak", "\x00", "🛒" * 10, "ü" * 10_000, "/../x", "\ud800", "日本語"]
    assert unpack_ids(*pack_ids(ids)) == ids


def test_a_served_model_is_the_same_after_packing() -> None:
    packed = served_arrays(["ann", "", "🛒"], ["tea", "line\nbreak"])
    served = Served.of_packed(packed)
    assert (served.kind, served.user_ids, served.item_ids) == ("als", ["ann", "", "🛒"], ["tea", "line\nbreak"])
    again = served.packed()
    assert {name: (array.dtype, array.tobytes()) for name, array in again.items()} == {
        name: (array.dtype, array.tobytes()) for name, array in packed.items()
    }
