"""The most that warnings can do: a detector that knows each precursor's course, size and noise, only not its time.

Page's test (1954) of the likelihood ratio, optimal for a known change at an unknown time (Moustakides 1986).
"""

from __future__ import annotations

import numpy as np

TRIALS = 200
FIRST_ONSET = 4
"""Cycles before it are the particle's own past."""


def ceiling(
    signal: np.ndarray, sigma: np.ndarray, failure: np.ndarray, onset: np.ndarray, ahead: int, false: float
) -> np.ndarray:
    """(P,) chance to be announced `ahead` cycles before the failure, with `false` as the chance of a flag without one.

    `signal` (C, P, F) noiseless levels, `sigma` (P, F) their noise in one cycle.
    """
    cycles, particles, features = signal.shape
    noise = np.random.default_rng(17).normal(size=(TRIALS, cycles, features))
    found = np.full(particles, np.nan)
    for place in range(particles):
        begin, end = int(onset[place]), int(failure[place])
        course = np.nan_to_num((signal[begin:end, place] - signal[begin - 1, place]) / sigma[place])
        quiet = _largest(noise, course)[:, -1]
        seen = noise.copy()
        seen[:, begin:end] += course
        found[place] = np.mean(_largest(seen, course)[:, end - ahead] > np.quantile(quiet, 1.0 - false))
    return found


def _largest(seen: np.ndarray, course: np.ndarray) -> np.ndarray:
    """(M, C) the largest log likelihood ratio up to each cycle, of any onset."""
    trials, cycles, _ = seen.shape
    best = np.zeros((trials, cycles))
    for begin in range(FIRST_ONSET, cycles):
        length = min(len(course), cycles - begin)
        part = course[:length]
        ratio = np.cumsum(
            np.einsum("mcf,cf->mc", seen[:, begin : begin + length], part) - np.square(part).sum(axis=1) / 2.0, axis=1
        )
        best[:, begin : begin + length] = np.maximum(best[:, begin : begin + length], ratio)
    return np.maximum.accumulate(best, axis=1)
