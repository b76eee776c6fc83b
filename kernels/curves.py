"""Responses of many particles, sampled on one axis, as curves: whether they turn back, and what inverts them."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.jit import JIT

TIE = 1e-7
"""Level stretches rise by this share of the span a sample, so that a response has one inverse."""


@njit(**JIT)
def turn_back(
    mean: np.ndarray, sigma: np.ndarray, first: np.ndarray, last: np.ndarray, share: float, sigmas: float
) -> np.ndarray:
    """(S,) bool: whether a response rises and falls, each by more than `share` of its span and `sigmas` deviations.

    `mean` and `sigma` (S, G) float64, finite; of each, the samples `first` to `last` (S,) are looked at.
    """
    found = np.zeros(len(mean), np.bool_)
    for s in range(len(mean)):
        part, own = mean[s, first[s] : last[s] + 1], sigma[s, first[s] : last[s] + 1]
        least = max(share * (part.max() - part.min()), 1e-12)
        found[s] = _falls(part, own, 1.0, least, sigmas) and _falls(part, own, -1.0, least, sigmas)
    return found


@njit(**JIT)
def _falls(mean: np.ndarray, sigma: np.ndarray, sign: float, least: float, sigmas: float) -> bool:
    """Whether the largest fall of `sign` * `mean` from an earlier sample to a later one is beyond both limits."""
    top, fall, fall_top, fall_place = 0, 0.0, 0, 0
    for k in range(len(mean)):
        if sign * mean[k] > sign * mean[top]:
            top = k
        if sign * (mean[top] - mean[k]) > fall:
            fall, fall_top, fall_place = sign * (mean[top] - mean[k]), top, k
    return fall > max(least, sigmas * np.hypot(sigma[fall_place], sigma[fall_top]))


@njit(**JIT)
def invert(
    mean: np.ndarray, sigma: np.ndarray, axis: np.ndarray, knots: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inverses of S responses at `knots` even contrasts: contrasts, places on `axis` and their deviations, (S, knots).

    `mean` and `sigma` (S, G) float64, finite, over `axis` (G,), rising. Responses are made monotone the way their ends
    go by least squares (pool adjacent violators); a deviation is how far the place moves when the contrast does by the
    response's own.
    """
    count = mean.shape[1]
    shape = (len(mean), knots)
    contrast, place, width = np.empty(shape), np.empty(shape), np.empty(shape)
    level, own, along = np.empty(count), np.empty(count), np.empty(count)
    for s in range(len(mean)):
        rising = mean[s, -1] >= mean[s, 0]
        for k in range(count):
            from_k = k if rising else count - 1 - k
            level[k], own[k], along[k] = mean[s, from_k], sigma[s, from_k], axis[from_k]
        _pool(level)
        tie = TIE * (level[-1] - level[0])
        for k in range(count):
            level[k] += k * tie
        step = (level[-1] - level[0]) / (knots - 1)
        for k in range(knots):
            contrast[s, k] = level[0] + k * step
        contrast[s, -1] = level[-1]
        reach = np.interp(contrast[s], level, own)
        place[s] = np.interp(contrast[s], level, along)
        above = np.interp(contrast[s] + reach, level, along)
        below = np.interp(contrast[s] - reach, level, along)
        for k in range(knots):
            width[s, k] = max(abs(above[k] - place[s, k]), abs(place[s, k] - below[k]))
    return contrast, place, width


@njit(**JIT)
def _pool(values: np.ndarray) -> None:
    """The nearest rising sequence by least squares, in place."""
    mean, weight, blocks = np.empty(len(values)), np.empty(len(values)), 0
    for value in values:
        mean[blocks], weight[blocks] = value, 1.0
        blocks += 1
        while blocks > 1 and mean[blocks - 2] >= mean[blocks - 1]:
            both = weight[blocks - 2] + weight[blocks - 1]
            mean[blocks - 2] = (weight[blocks - 2] * mean[blocks - 2] + weight[blocks - 1] * mean[blocks - 1]) / both
            weight[blocks - 2] = both
            blocks -= 1
    k = 0
    for block in range(blocks):
        for _ in range(int(weight[block])):
            values[k] = mean[block]
            k += 1
