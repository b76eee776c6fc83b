"""Memory on large pages, for arrays that every frame touches all over."""

from __future__ import annotations

import numpy as np

PAGE_BYTES = 2 << 20
ASKED_BYTES = 4 << 20
"""From this size on, numpy asks the kernel for large pages."""


def on_large_pages(size: int, dtype: type) -> np.ndarray:
    """(size,) zeros that lie on as few memory pages as the kernel has to give; what the array leaves of them is never
    touched. Where there are no large pages it is an array like any other.
    """
    wanted = size * np.dtype(dtype).itemsize
    room = np.empty(max(wanted, ASKED_BYTES) + PAGE_BYTES, np.uint8)
    first = -room.ctypes.data % PAGE_BYTES
    found: np.ndarray = room[first : first + wanted].view(dtype)
    found[:] = 0
    return found
