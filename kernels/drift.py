"""Solving the registration functionals for the shift."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.jit import JIT

ROUNDS = 12
SETTLED = 1e-6  # of the brightness: a tenth of what a frame's noise makes of it


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


@njit(**JIT)
def shifted(series: np.ndarray, row: int, y: float, x: float) -> float:
    """Row `row` of `series` (R, 9) at the shift (y, x)."""
    c = series[row]
    return (
        c[0] * y + c[1] * x + c[2] * y * y + c[3] * y * x + c[4] * x * x
        + c[5] * y**3 + c[6] * y * y * x + c[7] * y * x * x + c[8] * x**3
    )  # fmt: skip


@njit(**JIT)
def solve_scene(found: np.ndarray, series: np.ndarray, likeness: float, least: float, out: np.ndarray) -> bool:
    """Shift and brightness of a scene together; False when there is no shift below two pixels.

    `found` (4,) are the functionals for y, x, blur and likeness, `series` (4, 9) what a shift takes from them,
    `likeness` the template's value on the reference, `least` the smallest relative brightness to divide by. `out` (4,):
    y and x in px, brightness relative to the reference, and what the blur functional gained beside the shift.

    All gradients grow with the brightness, and the template's likeness falls with the shift: a few rounds settle both.
    """
    out[2] = found[3] / likeness if likeness != 0.0 else -1.0
    if likeness == 0.0:
        return False
    change = np.empty(2)
    for _ in range(ROUNDS):
        brightness = max(out[2], least)
        change[0], change[1] = -found[0] / brightness, -found[1] / brightness
        if not solve_shift(series, change, out):
            return False
        out[3] = found[2] / brightness + shifted(series, 2, out[0], out[1])
        expected = likeness - shifted(series, 3, out[0], out[1])
        if expected > 0.3 * likeness:
            settled = abs(found[3] / expected - out[2]) < SETTLED
            out[2] = found[3] / expected
            if settled:
                break
    return True
