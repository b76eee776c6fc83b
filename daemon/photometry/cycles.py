"""The cycles table: what each particle did in each half."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daemon.photometry.activity import binned_range, noise_range
from daemon.photometry.blocks import all_grown
from daemon.photometry.curves import HalfCurves, first_crossing

ONSET, RATE_LOW, MIDDLE, RATE_HIGH, COMPLETE = 0.05, 0.20, 0.50, 0.80, 0.95
"""Shares of a half's own swing: onset and duration are read at 5 and 95 %, the rate between 20 and 80 %."""
LOOP_LEVELS = (0.2, 0.35, 0.5, 0.65, 0.8)
SAME_RATE = 0.10
"""Mean currents this close to each other are one rate."""
KEPT_HALVES = 4
"""Halves whose SoC columns follow later calibrations."""
MAX_REFERENCES = 64

SocOf = Callable[[np.ndarray], np.ndarray]
"""(P,) contrasts to (P,) SoC."""


@dataclass(frozen=True)
class HalfMeasures:
    """One half's measures, (P,) each; times, levels and loops are NaN for particles that are dead or still in noise."""

    cycle: int
    half: str
    swing: np.ndarray
    start: np.ndarray
    end: np.ndarray
    low: np.ndarray
    """Contrast after 20 % of the swing."""
    high: np.ndarray
    onset_t_s: np.ndarray
    duration_s: np.ndarray
    span_s: np.ndarray
    """Time from 20 to 80 % of the swing."""
    span_sigma_s: np.ndarray
    """Standard deviation of `span_s` from contrast noise."""
    lag_s: np.ndarray
    hysteresis_v: np.ndarray
    retention: np.ndarray

    def rate_per_h(self, soc: SocOf) -> np.ndarray:
        """Mean |d soc/dt| between 20 and 80 % of the half's own swing."""
        return np.abs(soc(self.high) - soc(self.low)) / np.where(self.span_s > 0, self.span_s, np.nan) * 3600.0


@dataclass
class Reference:
    """What later halves of one kind and rate are compared with."""

    sign: int
    current_ma: float
    swing: np.ndarray
    """(P,) swing in the first such half; NaN for particles still in that."""
    seen: np.ndarray
    """(P,) bool: false for particles not known in any such half yet: that came later, above all."""


class CycleBook:
    """Measures finished halves and keeps what later ones are compared with. Weights are the particles' areas."""

    def __init__(self, particle_id: np.ndarray, weights: np.ndarray) -> None:
        self._particle_id = particle_id
        self._weights = weights
        self.kept: deque[HalfMeasures] = deque(maxlen=KEPT_HALVES)
        self._previous: HalfCurves | None = None
        self._references: list[Reference] = []

    def grow(self, particle_id: np.ndarray, weights: np.ndarray) -> None:
        """Go on with more particles, unknown in the halves so far; each is compared with its own first half."""
        count = len(particle_id)
        self._particle_id, self._weights = particle_id, weights
        kept = [all_grown(measures, count) for measures in self.kept]
        self.kept.clear()
        self.kept.extend(kept)
        if self._previous is not None:
            self._previous = self._previous.grown(count)
        self._references = [all_grown(reference, count) for reference in self._references]

    def add(self, curves: HalfCurves, alive: np.ndarray) -> HalfMeasures:
        """Measure one half; `alive` (P,) bool are the particles not dead."""
        moves = (
            curves.known & alive & (binned_range(curves.contrast) > noise_range(curves.block_sigma, len(curves.t_s)))
        )
        times = {
            share: curves.crossing_s(curves.level(share)) for share in (ONSET, RATE_LOW, MIDDLE, RATE_HIGH, COMPLETE)
        }
        span_s = times[RATE_HIGH] - times[RATE_LOW]
        slope = (RATE_HIGH - RATE_LOW) * np.abs(curves.farthest - curves.start) / np.where(span_s > 0, span_s, np.nan)
        measures = HalfMeasures(
            cycle=curves.half.cycle,
            half=curves.half.name,
            swing=curves.swing,
            start=np.where(curves.known, curves.start, np.nan),
            end=np.where(curves.known, curves.smooth[-1], np.nan),
            low=np.where(moves, curves.level(RATE_LOW), np.nan),
            high=np.where(moves, curves.level(RATE_HIGH), np.nan),
            onset_t_s=np.where(moves, times[ONSET], np.nan),
            duration_s=np.where(moves, times[COMPLETE] - times[ONSET], np.nan),
            span_s=np.where(moves, span_s, np.nan),
            span_sigma_s=np.sqrt(2.0) * curves.sigma / slope,
            lag_s=np.where(moves, times[MIDDLE] - self._ensemble_middle_s(curves, moves), np.nan),
            hysteresis_v=np.where(moves, self._hysteresis(curves), np.nan),
            retention=self._retention(curves, moves),
        )
        # all that the next half's hysteresis asks for; the rest of a long half would stay in memory through that one
        self._previous = replace(curves, contrast=curves.contrast[:0], layers=curves.layers[:0])
        self.kept.append(measures)
        return measures

    def rows(self, measures: HalfMeasures, soc: SocOf) -> list[dict[str, Any]]:
        """One row a particle, SoC columns by the calibrations as they are now."""
        columns = {
            "swing": measures.swing,
            "soc_start": soc(measures.start),
            "soc_end": soc(measures.end),
            "onset_t_s": measures.onset_t_s,
            "duration_s": measures.duration_s,
            "rate_per_h": measures.rate_per_h(soc),
            "lag_s": measures.lag_s,
            "hysteresis_v": measures.hysteresis_v,
            "retention": measures.retention,
        }
        place = {"cycle": measures.cycle, "half": measures.half}
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [
            {"particle_id": particle, **place, **dict(zip(columns, row, strict=True))}
            for particle, row in zip(self._particle_id.tolist(), values, strict=True)
        ]

    def _ensemble_middle_s(self, curves: HalfCurves, members: np.ndarray) -> float:
        """When the area-weighted mean of the particles' own progress, 0 to 1, reaches half of its span."""
        if not members.any():
            return float("nan")
        way = (curves.farthest - curves.start)[members]
        progress = (curves.smooth[:, members] - curves.start[members]) / np.where(way == 0, 1.0, way)
        mean = progress @ (self._weights[members] / self._weights[members].sum())
        return float(first_crossing(curves.t_s, (mean - mean[0] - 0.5 * (mean.max() - mean[0]))[:, None])[0])

    def _hysteresis(self, curves: HalfCurves) -> np.ndarray:
        """Mean of V(charge) - V(discharge) at equal contrast, over the middle of what both halves of a cycle share."""
        other = self._previous
        if curves.half.index % 2 == 0 or other is None or other.half.index != curves.half.index - 1:
            return np.full(len(self._particle_id), np.nan)
        low = np.maximum(curves.smooth.min(axis=0), other.smooth.min(axis=0))
        high = np.minimum(curves.smooth.max(axis=0), other.smooth.max(axis=0))
        differences = []
        for share in LOOP_LEVELS:
            level = low + share * (high - low)
            here, there = _voltage_at(curves, level), _voltage_at(other, level)
            differences.append(curves.half.sign * (here - there))
        return np.where(high > low, np.mean(differences, axis=0), np.nan)

    def _retention(self, curves: HalfCurves, moves: np.ndarray) -> np.ndarray:
        """Swing over the swing in the first half of the same kind and rate; NaN for particles still in that."""
        sign, current = curves.half.sign, curves.half.mean_current_ma
        for known in self._references:
            if sign == known.sign and abs(current - known.current_ma) <= SAME_RATE * known.current_ma:
                first = curves.known & ~known.seen
                known.swing = np.where(first & moves, curves.swing, known.swing)
                known.seen |= first
                return curves.swing / known.swing
        if not np.isfinite(current) or len(self._references) >= MAX_REFERENCES:
            return np.full(len(self._particle_id), np.nan)
        reference = np.where(moves, curves.swing, np.nan)
        self._references.append(Reference(sign, current, reference, curves.known.copy()))
        return reference / reference


def _voltage_at(curves: HalfCurves, level: np.ndarray) -> np.ndarray:
    """(P,) cell voltage when each particle first passes its contrast level; NaN outside the record."""
    return np.interp(curves.crossing_s(level), curves.t_s, curves.voltage_v)
