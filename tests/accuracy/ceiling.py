"""The most that warnings can do: a detector that knows each precursor's course, size and noise, only not its time.

Page's test (1954) of the likelihood ratio, optimal for a known change at an unknown time (Moustakides 1986).
"""

from __future__ import annotations

import numpy as np

NAMES = ("loss", "lag", "asymmetry")
MAD_TO_SIGMA = 1.4826
TRIALS = 200
FIRST_ONSET = 4
"""Cycles before it are the particle's own past."""


def most_announced(
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


def told_levels(health: dict[tuple[int, int], dict], cycles: int, particles: int) -> np.ndarray:
    """(C, P, 3) of the `health` table: each the mean of two cycles."""
    levels = np.full((cycles, particles, len(NAMES)), np.nan)
    for (identity, cycle), row in health.items():
        levels[cycle, identity - 1] = [row[name] for name in NAMES]
    return levels


def signal_of(still: np.ndarray) -> np.ndarray:
    """(C, P, 3) of single cycles, from levels told without noise."""
    before = np.concatenate((still[:1], still[:-1]))
    return np.nan_to_num(np.where(np.isfinite(before), 1.5 * still - 0.5 * before, still))


def sigma_of(told: np.ndarray) -> np.ndarray:
    """(P, 3) noise of one cycle: means of two that share none differ by as much."""
    return MAD_TO_SIGMA * np.nanmedian(np.abs(told[2:] - told[:-2]), axis=0)


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
