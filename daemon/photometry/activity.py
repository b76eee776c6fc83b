"""Which particles take part: active, partial (a layer stays behind), dead; lost ones are told apart by the events."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from daemon.photometry.blocks import grown
from daemon.photometry.curves import HalfCurves
from daemon.tables import PARTICLE_STATES

ACTIVE, PARTIAL, DEAD, LOST = (PARTICLE_STATES.index(name) for name in ("active", "partial", "dead", "lost"))

BINS = 10
RANGE_MEAN, RANGE_SD = 3.08, 0.80
"""Mean and standard deviation of the range of ten standard normal numbers."""
CYCLE_MEAN, CYCLE_SD = 3.73, 0.73
"""... and of twenty."""
SIGMAS = 3.0
DEAD_SHARE = 0.05
"""A swing below this share of the ensemble's is dead whatever its noise: slow systematics look like that."""
DEAD_MOST = 0.015
"""... but no swing above this is dead, however much the others swing."""
LAYER_SHARE = 0.30
"""A layer that follows its particle by less than this share stays behind."""
LAYER_SIGMA = 0.10
"""... if its noise lets that share be known this well."""
MIN_CHARGE_SHARE = 0.20
"""A half must pass this share of the window's charge to tell anything."""


@dataclass(frozen=True)
class Swings:
    """How far each particle moved in one half, (P,) each."""

    swing: np.ndarray
    """Span of the contrasts of ten stretches."""
    least: np.ndarray
    """What noise and slow systematics reach."""
    sigma: np.ndarray
    """Standard deviation of `swing` from contrast noise."""
    known: np.ndarray
    """bool: measured well enough to be judged."""


def binned(values: np.ndarray) -> np.ndarray:
    """Means of ten equal stretches (fewer when there are fewer points) along the first axis; NaN without any."""
    bins = min(BINS, len(values))
    edges = np.arange(bins) * len(values) // bins
    finite = np.isfinite(values)
    count = np.add.reduceat(finite, edges, axis=0, dtype=float)
    sums = np.add.reduceat(np.where(finite, values, 0.0), edges, axis=0)
    return sums / np.where(count > 0, count, np.nan)


def span(values: np.ndarray) -> np.ndarray:
    """Largest minus smallest along the first axis; NaN where there is nothing."""
    return np.fmax.reduce(values, axis=0) - np.fmin.reduce(values, axis=0)


def binned_range(values: np.ndarray) -> np.ndarray:
    """Span of the means of ten equal stretches along the first axis."""
    return span(binned(values))


def noise_range(block_sigma: np.ndarray, points: int) -> np.ndarray:
    """What noise alone reaches: mean range of ten bins and three standard deviations more."""
    per_bin = max(1.0, points / BINS)
    return block_sigma / np.sqrt(per_bin) * (RANGE_MEAN + SIGMAS * RANGE_SD)


def layer_gain(curves: HalfCurves, layer_sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, 4) how far each layer follows its particle over a half, 1 for wholly, and the standard deviation of that.

    The regression of the layer's contrast on the particle's, whose own noise is taken off its variance; `layer_sigma`
    is (P, 4), of one point.
    """
    own = curves.contrast - curves.contrast.mean(axis=0)
    power = np.square(own).mean(axis=0)
    true = np.where(power > 0, power - np.square(curves.block_sigma), np.nan)
    true = np.where(true > 0, true, np.nan)
    gain = np.empty((own.shape[1], curves.layers.shape[2]))
    for k in range(gain.shape[1]):  # a layer at a time: all four of a long half are a hundred megabytes for a moment
        layer = curves.layers[:, :, k].astype(float)
        seen = np.isfinite(layer)
        mean = np.where(seen, layer, 0.0).sum(axis=0) / np.where(seen.any(axis=0), seen.sum(axis=0), 1)
        gain[:, k] = (np.where(seen, layer - mean, 0.0) * own).sum(axis=0) / (
            np.where(seen.any(axis=0), seen.sum(axis=0), np.nan) * true
        )
    # the particle's noise is in both, since it is the mean of its layers
    gain -= np.square(curves.block_sigma / np.sqrt(true))[:, None]
    return gain, layer_sigma / np.sqrt(len(own) * true)[:, None]


class Activity:
    """Judges by the last cycle: the last two halves that passed enough charge."""

    def __init__(self, particles: int) -> None:
        self.judged = False
        """False until a half told something; every particle counts as active until then."""
        self._states = np.full(particles, ACTIVE, np.int8)
        self._still: deque[np.ndarray] = deque(maxlen=2)
        self._behind: deque[np.ndarray] = deque(maxlen=2)
        self._means: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=2)
        """Times (b,) and mean contrasts (b, P) of the last halves' stretches."""

    @property
    def states(self) -> np.ndarray:
        """(P,) int8: active, partial or dead."""
        return self._states

    def grow(self, particles: int) -> None:
        """Go on with more particles, active until two halves have shown otherwise."""
        self._states = grown(self._states, particles, ACTIVE)
        for seen in (self._still, self._behind):
            for place, each in enumerate(seen):
                seen[place] = grown(each, particles, False)
        for place, (t_s, means) in enumerate(self._means):
            self._means[place] = t_s, grown(means, particles, np.nan, axis=1)

    def add(self, curves: HalfCurves, layer_sigma_ratio: np.ndarray) -> Swings | None:
        """Take one half in which the ensemble may have swung; one in which it did not is left out, and None."""
        means = np.where(curves.known, binned(curves.contrast), np.nan)
        swing = span(means)
        limit = noise_range(curves.block_sigma, len(curves.t_s))
        known = np.isfinite(swing) & np.isfinite(limit)
        if not known.any():
            return None
        ensemble = np.quantile(swing[known], 0.75)
        if ensemble < 2.0 * np.median(limit[known]):
            return None
        floor = min(DEAD_SHARE * ensemble, DEAD_MOST)
        least = np.maximum(limit, floor)
        still = known & (swing < least)
        self._still.append(still)
        self._means.append((binned(curves.t_s), means))
        gain, sigma = layer_gain(curves, curves.block_sigma[:, None] * layer_sigma_ratio)
        behind = ((sigma < LAYER_SIGMA) & (np.abs(gain) < LAYER_SHARE)).any(axis=1)
        self._behind.append(known & ~still & behind)
        self._decide(known, self._drifts(curves, floor))
        sigma = curves.block_sigma * np.sqrt(2.0 / max(1.0, len(curves.t_s) / BINS))
        return Swings(swing, least, sigma, known)

    def _drifts(self, curves: HalfCurves, floor: float) -> np.ndarray:
        """(P,) bool: over the last two halves nothing is left beside a steady drift. What lives comes back."""
        if len(self._means) < 2:
            return np.zeros(len(self._states), bool)
        t_s = np.concatenate([times for times, _ in self._means])
        means = np.concatenate([values for _, values in self._means])
        x = (t_s - t_s.mean()) / np.ptp(t_s)
        left = means - means.mean(axis=0) - x[:, None] * (x @ means) / (x @ x)
        noise = noise_range(curves.block_sigma, len(curves.t_s)) * _cycle_over_half()
        return span(left) < np.maximum(noise, floor)

    def _decide(self, known: np.ndarray, drifts: np.ndarray) -> None:
        still = np.logical_and.reduce(list(self._still)) | drifts
        behind = np.logical_and.reduce(list(self._behind))
        fresh = np.where(still, DEAD, np.where(behind, PARTIAL, ACTIVE)).astype(np.int8)
        self._states = np.where(known, fresh, self._states)
        self.judged = True


def _cycle_over_half() -> float:
    """What noise alone reaches in twenty stretches, in that of ten."""
    return (CYCLE_MEAN + SIGMAS * CYCLE_SD) / (RANGE_MEAN + SIGMAS * RANGE_SD)
