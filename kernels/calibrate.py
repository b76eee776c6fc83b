"""From camera numbers (DN) to electrons."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.jit import JIT


@njit(**JIT)
def electrons_scalar(dn: np.ndarray, gain_e_per_dn: float, dark_dn: float, out: np.ndarray) -> None:
    """``out = gain * (dn - dark)`` for flat (M,) arrays: uint16 in, float32 out."""
    gain = np.float32(gain_e_per_dn)
    offset = np.float32(-gain_e_per_dn * dark_dn)
    for i in range(dn.size):
        out[i] = gain * np.float32(dn[i]) + offset


@njit(**JIT)
def electrons_mapped(dn: np.ndarray, scale: np.ndarray, dark_dn: np.ndarray, out: np.ndarray) -> None:
    """``out = scale * (dn - dark)`` with per-pixel scale (gain over flat) and dark, all flat (M,); float32 out."""
    for i in range(dn.size):
        out[i] = scale[i] * (np.float32(dn[i]) - dark_dn[i])


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
