"""Slow twins of `kernels.fronts`: one particle and instant at a time, with matrices written out."""

from __future__ import annotations

import numpy as np


def naive_response(response, drift, at, rest):
    """z and slope (K,) at the place `at` of tables (G, K) and (G, K, 2)."""
    last = len(response) - 1
    cell = int(np.clip(int(at), 0, last - 1))
    ends = [response[c].astype(float) + drift[c].astype(float) @ rest for c in (cell, cell + 1)]
    low, high = max(cell - 1, 0), min(cell + 2, last)
    return ends[0] + (at - cell) * (ends[1] - ends[0]), (response[high] - response[low]).astype(float) / (high - low)


def naive_squares(y, at, rest, level, change, weight, response, drift, nuisance):
    """Squares left over, their gradient and curvature (halved) in the place, and the likely unknowns."""
    known = np.isfinite(y)
    z, slope = naive_response(response, drift, at, rest)
    error, gain = (y - level - change * z)[known], (change * slope)[known]
    pattern = nuisance[:, known]
    covariance = np.diag(1.0 / weight[known]) + pattern.T @ pattern
    inverse = np.linalg.inv(covariance)
    return error @ inverse @ error, gain @ inverse @ error, gain @ inverse @ gain, pattern @ inverse @ error


def naive_smooth(t_s, place, variance, restless, start_variance):
    """Means and variances (n,) of the place given all measurements: the normal equations of all states at once."""
    n = len(t_s)
    information, pull = np.zeros((2 * n, 2 * n)), np.zeros(2 * n)
    first = int(np.flatnonzero(np.isfinite(variance))[0])
    prior = np.diag([1.0 / variance[first], 1.0 / start_variance])
    information[2 * first : 2 * first + 2, 2 * first : 2 * first + 2] += prior
    pull[2 * first] += place[first] / variance[first]
    for t in range(first + 1, n):
        h = t_s[t] - t_s[t - 1]
        moved = np.array([[1.0, h], [0.0, 1.0]])
        noise = restless * np.array([[h**3 / 3, h**2 / 2], [h**2 / 2, h]])
        step = np.hstack([-moved, np.eye(2)])
        both = slice(2 * t - 2, 2 * t + 2)
        information[both, both] += step.T @ np.linalg.inv(noise) @ step
        if np.isfinite(variance[t]):
            information[2 * t, 2 * t] += 1.0 / variance[t]
            pull[2 * t] += place[t] / variance[t]
    used = slice(2 * first, None)
    covariance = np.linalg.inv(information[used, used])
    mean = covariance @ pull[used]
    blank = np.full(first, np.nan)
    return np.append(blank, mean[::2]), np.append(blank, np.diag(covariance)[::2])
