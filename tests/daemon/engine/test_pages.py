import numpy as np
import pytest

from daemon.engine.pages import PAGE_BYTES, on_large_pages


@pytest.mark.parametrize("size", [0, 1, 1000, 3_000_001])
@pytest.mark.parametrize("dtype", [np.int16, np.uint32])
def test_an_array_begins_with_a_page_and_is_its_own(size, dtype):
    found = on_large_pages(size, dtype)
    assert found.shape == (size,)
    assert found.dtype == dtype
    assert not found.any()
    assert found.flags.writeable and found.flags.c_contiguous
    assert found.ctypes.data % PAGE_BYTES == 0 or size == 0
    found[:] = 1
    assert not on_large_pages(size, dtype).any()
