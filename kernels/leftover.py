"""Drift that registration did not see, from displacements along many directions."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.jit import JIT


@njit(**JIT)
def robust_shift(
    moved: np.ndarray,
    direction: np.ndarray,
    spread: np.ndarray,
    prior: float,
    huber: float,
    rounds: int,
    out: np.ndarray,
) -> None:
    """The shift y, x that displacements `moved` (R,) along unit vectors `direction` (R, 2) with standard deviations
    `spread` (R,) tell, and its covariance yy, yx, xx, into `out` (5,).

    A prior of `prior` standard deviation about zero holds it where nothing tells; rows beyond `huber` deviations count
    less (Huber 1964). Rows that are not finite are left out.
    """
    y = x = 0.0
    yy = yx = xx = 0.0
    for _ in range(rounds):
        yy = xx = 1.0 / prior**2
        yx = by = bx = 0.0
        for r in range(len(moved)):
            if not (np.isfinite(moved[r]) and np.isfinite(spread[r])):
                continue
            dy, dx = direction[r, 0], direction[r, 1]
            away = abs(moved[r] - dy * y - dx * x)
            weight = 1.0 / spread[r] ** 2
            if away > huber * spread[r]:
                weight *= huber * spread[r] / away
            yy += weight * dy * dy
            yx += weight * dy * dx
            xx += weight * dx * dx
            by += weight * dy * moved[r]
            bx += weight * dx * moved[r]
        scale = yy * xx - yx * yx
        y, x = (xx * by - yx * bx) / scale, (yy * bx - yx * by) / scale
    scale = yy * xx - yx * yx
    out[0], out[1] = y, x
    out[2], out[3], out[4] = xx / scale, -yx / scale, yy / scale
