"""A mapped file holds what safetensors has written."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from safetensors.numpy import load_file, save_file

from recsys.serving import mapped

TYPES = [np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.bool_]
ARRAYS = arrays_of.arrays(st.sampled_from(TYPES), arrays_of.array_shapes(min_dims=0, min_side=0, max_side=4))


@settings(max_examples=60, deadline=None)
@given(arrays=st.dictionaries(st.text(max_size=8), ARRAYS, max_size=4))
def test_the_arrays_are_those_that_safetensors_reads(arrays: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("mapped") / "arrays"
    save_file(arrays, file, metadata={"told": "beside"})
    found, wanted = mapped(file), load_file(file)
    assert found.keys() == wanted.keys()
    for name, array in found.items():
        assert (array.dtype, array.shape) == (wanted[name].dtype, wanted[name].shape)
        assert array.tobytes() == wanted[name].tobytes()
        assert array.flags.aligned


def test_what_one_process_writes_stays_its_own(tmp_path: Path) -> None:
    save_file({"numbers": np.arange(9)}, tmp_path / "arrays")
    mapped(tmp_path / "arrays")["numbers"][:] = 0
    assert mapped(tmp_path / "arrays")["numbers"].tolist() == list(range(9))


@pytest.mark.parametrize("kept", [0, 5, 30, -1])
def test_a_file_that_is_cut_off_is_refused(kept: int, tmp_path: Path) -> None:
    save_file({"numbers": np.arange(9)}, tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:kept])
    with pytest.raises((TypeError, ValueError)):
        mapped(tmp_path / "cut")
