"""Slow and obvious twin of `kernels.leftover`."""

import numpy as np


def naive_robust_shift(moved, direction, spread, prior, huber, rounds):
    """Shift and covariance by iteratively weighted least squares."""
    known = np.isfinite(moved) & np.isfinite(spread)
    moved, direction, spread = moved[known], direction[known], spread[known]
    shift = np.zeros(2)
    for _ in range(rounds):
        away = np.abs(moved - direction @ shift)
        weight = np.minimum(1.0, huber * spread / np.maximum(away, 1e-300)) / spread**2
        cost = np.eye(2) / prior**2 + (direction * weight[:, None]).T @ direction
        shift = np.linalg.solve(cost, direction.T @ (weight * moved))
    covariance = np.linalg.inv(cost)
    return np.array([*shift, covariance[0, 0], covariance[0, 1], covariance[1, 1]])
