"""Solving the registration functionals for the shift."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.jit import JIT


@njit(**JIT)
def solve_shift(series: np.ndarray, value: np.ndarray, out: np.ndarray) -> bool:
    """Newton's method for ``series(d) = value``: two cubics in the shift d = (y, x), in pixels, into `out` (2,).

    `series` is (2 or more, 9) float64, its first two rows used: coefficients of y, x, yy, yx, xx, yyy, yyx, yxx, xxx.
    False when it did not converge to a shift below two pixels; `out` is then NaN.
    """
    y = 0.0
    x = 0.0
    for _ in range(12):
        r = np.empty(2)
        j = np.empty((2, 2))
        for k in range(2):
            c = series[k]
            r[k] = (
                c[0] * y + c[1] * x + c[2] * y * y + c[3] * y * x + c[4] * x * x
                + c[5] * y**3 + c[6] * y * y * x + c[7] * y * x * x + c[8] * x**3 - value[k]
            )  # fmt: skip
            j[k, 0] = c[0] + 2 * c[2] * y + c[3] * x + 3 * c[5] * y * y + 2 * c[6] * y * x + c[7] * x * x
            j[k, 1] = c[1] + c[3] * y + 2 * c[4] * x + c[6] * y * y + 2 * c[7] * y * x + 3 * c[8] * x * x
        determinant = j[0, 0] * j[1, 1] - j[0, 1] * j[1, 0]
        if not abs(determinant) > 0.0:
            break
        step_y = (j[1, 1] * r[0] - j[0, 1] * r[1]) / determinant
        step_x = (j[0, 0] * r[1] - j[1, 0] * r[0]) / determinant
        y -= step_y
        x -= step_x
        if not (abs(y) < 2.0 and abs(x) < 2.0):
            break
        if abs(step_y) < 1e-7 and abs(step_x) < 1e-7:
            out[0] = y
            out[1] = x
            return True
    out[0] = np.nan
    out[1] = np.nan
    return False
