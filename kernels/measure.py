"""Photometry as one compiled sparse operator: per particle a handful of weighted sums over a flat frame.

The masks move, not the pixels: an integer shift is an offset into the frame, the sub-pixel rest is the mask's own
gradient, ``w(x - d) = w - d . grad w`` to first order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.jit import JIT

# Slices and unsigned indices: see kernels/functionals.py.
SUM, SQUARE, MOMENT_Y, MOMENT_X, SATURATED = range(5)
"""Columns of `layer_sums`' output."""


@njit(**JIT)
def layer_sums(
    frame: np.ndarray,
    index: np.ndarray,
    weights: np.ndarray,
    pointer: np.ndarray,
    inner_index: np.ndarray,
    inner_place: np.ndarray,
    inner_pointer: np.ndarray,
    offset: int,
    dy_px: float,
    dx_px: float,
    saturation_e: float,
    valid: np.ndarray,
    out: np.ndarray,
) -> None:
    """Sums over each segment (a layer of a particle) of a flat float32 frame in electrons.

    A segment has rim pixels with weights and inner pixels that count fully wherever the mask moves. `index` is (M,)
    int32 and `weights` (5, M) float32: w, dw/dy, dw/dx, y and x relative to the particle's centre; `pointer` (S + 1,)
    int32 delimits segments. `inner_index` (N,) int32, `inner_place` (2, N) float32 (y, x) and `inner_pointer` likewise.
    `valid` (S,) bool skips segments that left the frame. With ``m = w - dy_px dw/dy - dx_px dw/dx`` (1 for inner ones),
    `out` (S, 5) float64 receives sum(m e), sum(m**2 e), sum(y m e), sum(x m e) and the number of pixels of m > 1/2
    at or above `saturation_e`. Skipped segments receive NaN.
    """
    dy = np.float32(dy_px)
    dx = np.float32(dx_px)
    limit = np.float32(saturation_e)
    for s in range(pointer.size - 1):
        if not valid[s]:
            out[s, :] = np.nan
            continue
        total = np.float32(0.0)
        square = np.float32(0.0)
        moment_y = np.float32(0.0)
        moment_x = np.float32(0.0)
        saturated = 0
        first, last = pointer[s], pointer[s + 1]
        places, w, wy = index[first:last], weights[0, first:last], weights[1, first:last]
        wx, y, x = weights[2, first:last], weights[3, first:last], weights[4, first:last]
        for i in range(places.size):
            e = frame[np.uint64(places[i] + offset)]
            m = w[i] - dy * wy[i] - dx * wx[i]
            me = m * e
            total += me
            square += m * me
            moment_y += y[i] * me
            moment_x += x[i] * me
            saturated += (e >= limit) & (m > np.float32(0.5))
        first, last = inner_pointer[s], inner_pointer[s + 1]
        places, y, x = inner_index[first:last], inner_place[0, first:last], inner_place[1, first:last]
        inner = np.float32(0.0)
        for i in range(places.size):
            e = frame[np.uint64(places[i] + offset)]
            inner += e
            moment_y += y[i] * e
            moment_x += x[i] * e
            saturated += e >= limit
        out[s, SUM] = total + inner
        out[s, SQUARE] = square + inner
        out[s, MOMENT_Y] = moment_y
        out[s, MOMENT_X] = moment_x
        out[s, SATURATED] = saturated


@njit(**JIT)
def ring_means(
    frame: np.ndarray, index: np.ndarray, pointer: np.ndarray, offset: int, valid: np.ndarray, out: np.ndarray
) -> None:
    """Mean of a flat float32 frame over each ring: `index` (M,) int32 delimited by `pointer` (P + 1,); NaN when
    skipped or
    empty. `out` is (P,) float64.
    """
    for p in range(pointer.size - 1):
        count = pointer[p + 1] - pointer[p]
        if not valid[p] or count == 0:
            out[p] = np.nan
            continue
        places = index[pointer[p] : pointer[p + 1]]
        total = np.float32(0.0)
        for i in range(count):
            total += frame[np.uint64(places[i] + offset)]
        out[p] = total / count
