"""The background of each particle, followed through time: it changes slowly, so it is known better than one frame says.

A local level with growing memory: the mean of all frames so far, up to `memory_most`; where innovations have a mean of
their own the level moves, and memory shrinks until it keeps up.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.jit import JIT

LEVEL, VARIANCE, MEMORY, LAG, STRUCK = range(5)
STATES = 5
"""Columns of the state: level, its variance, frames remembered, mean innovation in sigma, outliers in a row."""
MEMORY_LEAST = 8.0
LAG_SIGMAS = 3.2  # of the mean innovation's own error
SHORTEN = 0.7
OUTLIER = 6.0  # sigma: a speck that passes, or a step
STEP_FRAMES = 3  # outliers in a row: a step; the level begins anew
CLIP = 4.0


@njit(**JIT)
def follow_background(
    measured: np.ndarray, variance: np.ndarray, usable: np.ndarray, memory_most: float, state: np.ndarray
) -> None:
    """Take one frame's (P,) background levels with their (P,) variances into `state` (P, STATES) float64.

    Levels that are not `usable` (P,) bool, or not finite, leave the state alone. A memory of 0 knows nothing.
    """
    for p in range(measured.size):
        if not usable[p] or not np.isfinite(measured[p]) or not variance[p] > 0.0:
            continue
        memory = state[p, MEMORY]
        if memory < 1.0:
            _begin(measured[p], variance[p], state[p])
            continue
        sigma = np.sqrt(variance[p] + state[p, VARIANCE])
        ratio = (measured[p] - state[p, LEVEL]) / sigma
        state[p, STRUCK] = state[p, STRUCK] + 1.0 if abs(ratio) > OUTLIER else 0.0
        if state[p, STRUCK] >= STEP_FRAMES:
            _begin(measured[p], variance[p], state[p])
            continue
        ratio = min(max(ratio, -CLIP), CLIP)
        memory = _shorten_if_lagging(ratio, memory, state[p])
        share = 1.0 / (memory + 1.0)
        state[p, LEVEL] += share * ratio * sigma
        state[p, VARIANCE] = (1.0 - share) ** 2 * state[p, VARIANCE] + share * share * variance[p]
        state[p, MEMORY] = min(memory + 1.0, memory_most)


@njit(**JIT)
def _begin(measured: float, variance: float, state: np.ndarray) -> None:
    state[LEVEL] = measured
    state[VARIANCE] = variance
    state[MEMORY] = 1.0
    state[LAG] = 0.0
    state[STRUCK] = 0.0


@njit(**JIT)
def _shorten_if_lagging(ratio: float, memory: float, state: np.ndarray) -> float:
    """The memory to go on with; a mean of r frames in m / 4 has the error sqrt(2 / m)."""
    if memory < MEMORY_LEAST:
        return memory
    state[LAG] += 4.0 / memory * (ratio - state[LAG]) if memory > 4.0 else 0.0
    if abs(state[LAG]) > LAG_SIGMAS * np.sqrt(2.0 / memory):
        state[LAG] = 0.0
        state[VARIANCE] /= SHORTEN
        return max(SHORTEN * memory, MEMORY_LEAST)
    return memory
