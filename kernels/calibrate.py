"""Averaging whole frames: references, darks and flats."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.jit import JIT


@njit(**JIT)
def accumulate(frame: np.ndarray, total: np.ndarray, square: np.ndarray, previous: np.ndarray) -> None:
    """Add a flat float32 `frame` to `total` and its squared difference from `previous` to `square`; then it is
    previous.

    Half the mean squared difference of successive frames is the temporal variance, blind to slow drift.
    """
    for i in range(frame.size):
        difference = frame[i] - previous[i]
        total[i] += frame[i]
        square[i] += difference * difference
        previous[i] = frame[i]
