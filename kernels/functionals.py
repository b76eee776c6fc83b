"""Weighted sums of a frame over index sets: the linear functionals that illumination and registration are made of."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.jit import JIT

# Slices counted from 0 and unsigned frame indices tell the compiler that nothing wraps around: it then gathers whole
# vectors, three times as fast.


@njit(**JIT)
def plane_sums(
    frame: np.ndarray, index: np.ndarray, u: np.ndarray, v: np.ndarray, offset: int, out: np.ndarray
) -> None:
    """``out = [sum e, sum u e, sum v e]`` over the pixels ``index + offset`` of a flat float32 frame.

    `index` is (M,) int32, `u` and `v` (M,) float32, `out` (3,) float64. Sums run in float32 blocks of 4096 pixels that
    are added in float64, which keeps the relative error below 1e-6.
    """
    s0 = 0.0
    s1 = 0.0
    s2 = 0.0
    size = index.size
    for start in range(0, size, 4096):
        stop = min(start + 4096, size)
        places, us, vs = index[start:stop], u[start:stop], v[start:stop]
        b0 = np.float32(0.0)
        b1 = np.float32(0.0)
        b2 = np.float32(0.0)
        for i in range(places.size):
            e = frame[np.uint64(places[i] + offset)]
            b0 += e
            b1 += us[i] * e
            b2 += vs[i] * e
        s0 += float(b0)
        s1 += float(b1)
        s2 += float(b2)
    out[0] = s0
    out[1] = s1
    out[2] = s2


@njit(**JIT)
def four_sums(frame: np.ndarray, index: np.ndarray, weights: np.ndarray, offset: int, out: np.ndarray) -> None:
    """``out[k] = sum_j weights[k, j] * frame[index[j] + offset]`` for k = 0..3.

    `index` is (M,) int32, `weights` (4, M) float32, `out` (4,) float64; summed like `plane_sums`.
    """
    s0 = 0.0
    s1 = 0.0
    s2 = 0.0
    s3 = 0.0
    size = index.size
    for start in range(0, size, 4096):
        stop = min(start + 4096, size)
        places, w0, w1 = index[start:stop], weights[0, start:stop], weights[1, start:stop]
        w2, w3 = weights[2, start:stop], weights[3, start:stop]
        b0 = np.float32(0.0)
        b1 = np.float32(0.0)
        b2 = np.float32(0.0)
        b3 = np.float32(0.0)
        for i in range(places.size):
            e = frame[np.uint64(places[i] + offset)]
            b0 += w0[i] * e
            b1 += w1[i] * e
            b2 += w2[i] * e
            b3 += w3[i] * e
        s0 += float(b0)
        s1 += float(b1)
        s2 += float(b2)
        s3 += float(b3)
    out[0] = s0
    out[1] = s1
    out[2] = s2
    out[3] = s3


@njit(**JIT)
def correlation_map(
    frame: np.ndarray, width: int, index: np.ndarray, template: np.ndarray, base: int, reach: int, out: np.ndarray
) -> None:
    """Zero-mean normalised correlation of a template with the frame at every integer shift up to `reach`.

    `index` is (M,) int32 into the flat frame, `template` (M,) float32 with zero mean. ``out[i, j]`` belongs to the
    shift
    ``(i - reach, j - reach)`` on top of the linear offset `base`. The caller keeps every shifted index inside the
    frame.
    """
    for i in range(2 * reach + 1):
        for j in range(2 * reach + 1):
            offset = base + (i - reach) * width + (j - reach)
            s = 0.0
            ss = 0.0
            st = 0.0
            for k in range(index.size):
                e = np.float64(frame[index[k] + offset])
                s += e
                ss += e * e
                st += e * template[k]
            variance = ss - s * s / index.size
            out[i, j] = st / np.sqrt(variance) if variance > 0.0 else 0.0
