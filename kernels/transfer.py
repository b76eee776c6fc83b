"""How each pixel answers to changes of the common light: running sums over frames."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.jit import JIT


@njit(**JIT)
def respond(
    frame: np.ndarray,
    previous: np.ndarray,
    step_dn: float,
    level_dn: float,
    offset_dn: float,
    by_step: np.ndarray,
    by_level: np.ndarray,
) -> None:
    """Add ``step * (frame - previous)`` to `by_step` and ``level * (frame - offset)`` to `by_level`; flat float32.

    `step_dn` is the change of the frame's mean since `previous`, `level_dn` its mean over the first frame's. Divided by
    the sums of their squares, the two are regressions of the pixel on the common light: over successive frames, blind
    to slow drift, and over all of them. `offset_dn`, about the frame's mean, keeps float32 sums exact.
    """
    step, level, offset = np.float32(step_dn), np.float32(level_dn), np.float32(offset_dn)
    for i in range(frame.size):
        by_step[i] += step * (frame[i] - previous[i])
        by_level[i] += level * (frame[i] - offset)
