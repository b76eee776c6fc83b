"""Weighted sums over collected pixels: the linear functionals that photometry, illumination and registration are.

Values are signed 16-bit, weights of photometry signed 8-bit: a product fits what processors add up fastest, and four
times as many weights fit a cache line as float32 would. Sums are exact integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from kernels.jit import JIT
from kernels.lanes import VECTOR_PX, dot

# Unsigned indices tell the compiler that nothing wraps around.


@njit(**JIT)
def weighted_sums(
    values: np.ndarray, weights: np.ndarray, first: np.ndarray, pointer: np.ndarray, block: int, out: np.ndarray
) -> None:
    """``out[r] = sum_i weights[pointer[r] + i] * values[first[r] + i]`` over the length of each row r of weights.

    `values` is int16, `weights` int8, `first` (R,) and `pointer` (R + 1,) int32, `out` (R,) int64. A row is a run
    without the zeros before and after it, best of whole vectors of 32. `block`, a multiple of those, is how many
    products of the largest value and weight 16 sums of 32 bits hold.
    """
    for r in range(out.size):
        begin, row = np.uint64(first[r]), np.uint64(pointer[r])
        left: Any = np.int64(pointer[r + 1]) - np.int64(pointer[r])
        total: Any = np.int64(0)
        while left >= VECTOR_PX:
            count: Any = np.uint64(min(block, left - left % VECTOR_PX))
            total += dot(values, begin, weights, row, count)  # type: ignore[call-arg]
            begin += count
            row += count
            left -= np.int64(count)
        for i in range(np.uint64(left)):
            total += np.int32(values[begin + i]) * np.int32(weights[row + i])
        out[r] = total


@njit(**JIT)
def plane_sums(values: np.ndarray, u: np.ndarray, v: np.ndarray, out: np.ndarray) -> None:
    """``out = [sum s, sum u s, sum v s]`` over spans of 8 `values` (8 S,) int16 whose sums are s.

    `u`, `v` are (S,) float32: row and column coordinate of each span's centre; `out` is (3,) float64.
    """
    total, total_u, total_v = 0.0, 0.0, 0.0
    for j in range(u.size):
        s: Any = np.int64(0)
        for i in range(8):
            s += values[8 * j + i]
        total += s
        total_u += u[j] * s
        total_v += v[j] * s
    out[0] = total
    out[1] = total_u
    out[2] = total_v


@njit(**JIT)
def saturated(
    values: np.ndarray,
    weights: np.ndarray,
    first: np.ndarray,
    pointer: np.ndarray,
    group: np.ndarray,
    rows: int,
    shares: int,
    limit: int,
    out: np.ndarray,
) -> None:
    """``out[p]`` (P,) bool: has group p a value of at least `limit` whose shares add up to over a half?

    Group p is ``values[group[p] : group[p + 1]]`` and has `rows` rows of weights, those of `weighted_sums`, of which
    the first `shares` are shares of a pixel; a whole is 127.
    """
    for p in range(out.size):
        top = np.int16(-1)
        for i in range(np.uint64(group[p]), np.uint64(group[p + 1])):
            top = max(top, values[i])
        out[p] = False
        if top < limit:
            continue
        for i in range(group[p], group[p + 1]):
            if values[i] < limit:
                continue
            weight = 0
            for r in range(rows * p, rows * p + shares):
                place = i - first[r]
                if place >= 0 and place < pointer[r + 1] - pointer[r]:
                    weight += weights[pointer[r] + place]
            out[p] = out[p] or weight > 63


@njit(**JIT)
def correlation_map(
    values: np.ndarray, width: int, index: np.ndarray, template: np.ndarray, reach: int, out: np.ndarray
) -> None:
    """Zero-mean normalised correlation of a template with a frame at every integer shift up to `reach`.

    `values` is a flat float32 frame, `index` (M,) int32 into it, `template` (M,) float32 with zero mean. ``out[i, j]``
    belongs to the shift ``(i - reach, j - reach)``. The caller keeps every shifted index inside the frame.
    """
    for i in range(2 * reach + 1):
        for j in range(2 * reach + 1):
            offset = (i - reach) * width + (j - reach)
            s = 0.0
            ss = 0.0
            st = 0.0
            for k in range(index.size):
                e = np.float64(values[index[k] + offset])
                s += e
                ss += e * e
                st += e * template[k]
            variance = ss - s * s / index.size
            out[i, j] = st / np.sqrt(variance) if variance > 0.0 else 0.0
