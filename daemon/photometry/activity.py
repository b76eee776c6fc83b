"""Which particles take part: active, partial (a layer stays behind), dead; lost ones are told apart by the events."""

from __future__ import annotations

from collections import deque

import numpy as np

from daemon.photometry.blocks import grown
from daemon.photometry.curves import HalfCurves
from daemon.tables import PARTICLE_STATES

ACTIVE, PARTIAL, DEAD, LOST = (PARTICLE_STATES.index(name) for name in ("active", "partial", "dead", "lost"))

BINS = 10
RANGE_MEAN, RANGE_SD = 3.08, 0.80
"""Mean and standard deviation of the range of ten standard normal numbers."""
SIGMAS = 3.0
DEAD_SHARE = 0.05
"""A swing below this share of the ensemble's is dead whatever its noise: slow systematics look like that."""
LAYER_SHARE = 0.20
"""A layer that swings less than this share of its particle stays behind."""
MIN_CHARGE_SHARE = 0.20
"""A half must pass this share of the window's charge to tell anything."""


def binned_range(values: np.ndarray) -> np.ndarray:
    """Span of the means of ten equal stretches (fewer when there are fewer points) along the first axis."""
    bins = min(BINS, len(values))
    edges = np.arange(bins) * len(values) // bins
    finite = np.isfinite(values)
    count = np.add.reduceat(finite, edges, axis=0, dtype=float)
    sums = np.add.reduceat(np.where(finite, values, 0.0), edges, axis=0)
    means = sums / np.where(count > 0, count, np.nan)
    low, high = np.fmin.reduce(means, axis=0), np.fmax.reduce(means, axis=0)
    return high - low


def noise_range(block_sigma: np.ndarray, points: int) -> np.ndarray:
    """What noise alone reaches: mean range of ten bins and three standard deviations more."""
    per_bin = max(1.0, points / BINS)
    return block_sigma / np.sqrt(per_bin) * (RANGE_MEAN + SIGMAS * RANGE_SD)


class Activity:
    """Judges by the last cycle: the last two halves that passed enough charge."""

    def __init__(self, particles: int) -> None:
        self.judged = False
        """False until a half told something; every particle counts as active until then."""
        self._states = np.full(particles, ACTIVE, np.int8)
        self._still: deque[np.ndarray] = deque(maxlen=2)
        self._behind: deque[np.ndarray] = deque(maxlen=2)

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

    def add(self, curves: HalfCurves, layer_sigma_ratio: np.ndarray) -> None:
        """Take one half in which the ensemble may have swung; one in which it did not is left out."""
        swing = np.where(curves.known, binned_range(curves.contrast), np.nan)
        limit = noise_range(curves.block_sigma, len(curves.t_s))
        known = np.isfinite(swing) & np.isfinite(limit)
        if not known.any():
            return
        ensemble = np.quantile(swing[known], 0.75)
        if ensemble < 2.0 * np.median(limit[known]):
            return
        still = known & (swing < np.maximum(limit, DEAD_SHARE * ensemble))
        self._still.append(np.where(known, still, False))
        self._behind.append(known & ~still & self._layers_behind(curves, swing, layer_sigma_ratio))
        self._decide(known)

    def _layers_behind(self, curves: HalfCurves, swing: np.ndarray, ratio: np.ndarray) -> np.ndarray:
        # a layer at a time: all four of a long half at once are a hundred megabytes for a moment
        layers = np.stack([binned_range(layer.astype(float)) for layer in np.moveaxis(curves.layers, 2, 0)], axis=1)
        limit = noise_range(curves.block_sigma[:, None] * ratio, len(curves.t_s))
        sees = limit < LAYER_SHARE * swing[:, None]
        return (sees & (layers < np.maximum(limit, LAYER_SHARE * swing[:, None]))).any(axis=1)

    def _decide(self, known: np.ndarray) -> None:
        still = np.logical_and.reduce(list(self._still))
        behind = np.logical_and.reduce(list(self._behind))
        fresh = np.where(still, DEAD, np.where(behind, PARTIAL, ACTIVE)).astype(np.int8)
        self._states = np.where(known, fresh, self._states)
        self.judged = True
