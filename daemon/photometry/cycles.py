"""The cycles table: what each particle did in each half."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daemon.photometry.activity import binned_range, noise_range
from daemon.photometry.blocks import all_grown, grown
from daemon.photometry.curves import HalfCurves, first_crossing
from daemon.photometry.halves import Half
from daemon.photometry.likeness import Likeness, LikenessBook

ONSET, RATE_LOW, MIDDLE, RATE_HIGH, COMPLETE = 0.05, 0.20, 0.50, 0.80, 0.95
"""Shares of a half's own swing: onset and duration are read at 5 and 95 %, the rate between 20 and 80 %."""
LOOP_LEVELS = (0.2, 0.35, 0.5, 0.65, 0.8)
SAME_RATE = 0.10
"""Mean currents this close to each other are one rate."""
END_SIGMA = 2.0
"""Standard deviation of the end of a fitted line over that of its middle."""
LAG_SIGMA = 3.0**0.5
"""Of a time of half swing, in those of a smoothed point over the slope: its own, and the mean of both ends'."""
KEPT_HALVES = 4
"""Halves whose SoC columns follow later calibrations."""
MAX_REFERENCES = 64
SAME_HOLD_V = 0.005
"""Halves at held voltages this close are one rate, whatever current follows."""
UNKNOWN_WHY = ("", "not measured from its start", "dead", "within noise")
"""Why a row has no times."""

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
    lag_sigma_s: np.ndarray
    """Standard deviation of `lag_s` from contrast noise."""
    hysteresis_v: np.ndarray
    retention: np.ndarray
    retention_sigma: np.ndarray
    swing_sigma: np.ndarray
    """Standard deviation of `swing` from contrast noise."""
    asymmetry: np.ndarray
    """ln(time on discharge / time on charge), each from 20 to 80 % of its swing; in the cycle's second half."""
    asymmetry_sigma: np.ndarray
    likeness: Likeness
    """The half's curves beside those of the first of its kind."""
    unknown: np.ndarray
    """Place in `UNKNOWN_WHY`: why times are NaN."""
    end_t_s: float
    """When the half ended."""
    charge_time_s: float
    """How long current flowed."""
    reference: int
    """Which kind of half and rate it is, counted from 0; -1 when it is none."""
    potentiostatic: bool
    """The voltage was held and the current followed."""

    def grown(self, particles: int) -> HalfMeasures:
        """The same with more particles, of which nothing is known."""
        like, why = all_grown(self.likeness, particles), grown(self.unknown, particles, 1)
        wide = all_grown(replace(self, likeness=like, unknown=self.unknown.astype(float)), particles)
        return replace(wide, unknown=why)

    def rate_per_h(self, soc: SocOf) -> np.ndarray:
        """Mean |d soc/dt| between 20 and 80 % of the half's own swing."""
        return np.abs(soc(self.high) - soc(self.low)) / np.where(self.span_s > 0, self.span_s, np.nan) * 3600.0


@dataclass
class Reference:
    """What later halves of one kind and rate are compared with."""

    sign: int
    current_ma: float
    hold_v: float
    """Voltage of a half under held voltage; NaN under current."""
    swing: np.ndarray
    """(P,) swing in the first such half; NaN for particles still in that."""
    swing_sigma: np.ndarray
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
        self._likeness = LikenessBook()

    def grow(self, particle_id: np.ndarray, weights: np.ndarray) -> None:
        """Go on with more particles, unknown in the halves so far; each is compared with its own first half."""
        count = len(particle_id)
        self._particle_id, self._weights = particle_id, weights
        kept = [measures.grown(count) for measures in self.kept]
        self.kept.clear()
        self.kept.extend(kept)
        if self._previous is not None:
            self._previous = self._previous.grown(count)
        self._references = [all_grown(reference, count) for reference in self._references]
        self._likeness.grow(count)

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
        span_sigma_s = np.sqrt(2.0) * curves.sigma / slope
        swing_sigma = END_SIGMA * curves.sigma * np.sqrt(2.0)
        reference, retention, retention_sigma = self._retention(curves, moves, swing_sigma)
        asymmetry, asymmetry_sigma = self._asymmetry(curves.half, np.where(moves, span_s, np.nan), span_sigma_s)
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
            span_sigma_s=np.where(moves, span_sigma_s, np.nan),
            lag_s=np.where(moves, times[MIDDLE] - self._ensemble_middle_s(curves, moves), np.nan),
            lag_sigma_s=np.where(moves, LAG_SIGMA * curves.sigma / slope, np.nan),
            hysteresis_v=np.where(moves, self._hysteresis(curves), np.nan),
            retention=retention,
            retention_sigma=retention_sigma,
            swing_sigma=np.where(curves.known, swing_sigma, np.nan),
            asymmetry=asymmetry,
            asymmetry_sigma=asymmetry_sigma,
            likeness=self._likeness.add(curves, moves, reference),
            unknown=np.where(~curves.known, 1, np.where(~alive, 2, np.where(~moves, 3, 0))).astype(np.int8),
            end_t_s=float(curves.t_s[-1]),
            charge_time_s=curves.half.drive_s,
            reference=reference,
            potentiostatic=np.isfinite(curves.half.hold_v),
        )
        # all that the next half's hysteresis asks for; the rest of a long half would stay in memory through that one
        self._previous = replace(curves, contrast=curves.contrast[:0], layers=curves.layers[:0])
        self.kept.append(measures)
        return measures

    def joined(self, curves: HalfCurves) -> HalfCurves:
        """The half with where the one before left its particles."""
        return curves.preceded(self._previous)

    def rows(self, measures: HalfMeasures, soc: SocOf) -> list[dict[str, Any]]:
        """One row a particle, SoC columns by the calibrations as they are now."""
        rate = measures.rate_per_h(soc)
        columns = {
            "swing": measures.swing,
            "soc_start": soc(measures.start),
            "soc_end": soc(measures.end),
            "onset_t_s": measures.onset_t_s,
            "duration_s": measures.duration_s,
            "rate_per_h": rate,
            "lag_s": measures.lag_s,
            "hysteresis_v": measures.hysteresis_v,
            "retention": measures.retention,
            "swing_sigma": measures.swing_sigma,
            "rate_sigma_per_h": rate * measures.span_sigma_s / measures.span_s,
            "lag_sigma_s": measures.lag_sigma_s,
            "retention_sigma": measures.retention_sigma,
            "asymmetry": measures.asymmetry,
            "asymmetry_sigma": measures.asymmetry_sigma,
        }
        unknown = [UNKNOWN_WHY[why] for why in measures.unknown.tolist()]
        place = {"cycle": measures.cycle, "half": measures.half}
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [
            {"particle_id": particle, **place, **dict(zip(columns, row, strict=True)), "unknown_why": why}
            for particle, row, why in zip(self._particle_id.tolist(), values, unknown, strict=True)
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

    def _retention(
        self, curves: HalfCurves, moves: np.ndarray, swing_sigma: np.ndarray
    ) -> tuple[int, np.ndarray, np.ndarray]:
        """The kind and rate, and the swing over that in its first half with its sigma; NaN for particles in none."""
        half = curves.half
        for place, known in enumerate(self._references):
            if _same_rate(half, known):
                first = curves.known & ~known.seen
                known.swing = np.where(first & moves, curves.swing, known.swing)
                known.swing_sigma = np.where(first & moves, swing_sigma, known.swing_sigma)
                known.seen |= first
                retention = curves.swing / known.swing
                return place, retention, np.hypot(swing_sigma, retention * known.swing_sigma) / known.swing
        unknown = np.full(len(self._particle_id), np.nan)
        if not np.isfinite(half.mean_current_ma) or len(self._references) >= MAX_REFERENCES:
            return -1, unknown, unknown
        swing = np.where(moves, curves.swing, np.nan)
        known = Reference(half.sign, half.mean_current_ma, half.hold_v, swing, swing_sigma, curves.known.copy())
        self._references.append(known)
        return len(self._references) - 1, swing / swing, 0.0 * swing

    def _asymmetry(self, half: Half, span_s: np.ndarray, sigma_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ln(discharge / charge) of the times from 20 to 80 %, and its sigma, with the other half of the cycle."""
        other = self.kept[-1] if self.kept else None
        if other is None or half.index % 2 == 0 or other.cycle != half.cycle:
            return np.full(len(span_s), np.nan), np.full(len(span_s), np.nan)
        ratio = np.log(np.where(span_s > 0, span_s, np.nan) / other.span_s)
        return -half.sign * ratio, np.hypot(sigma_s / span_s, other.span_sigma_s / other.span_s)


def _same_rate(half: Half, known: Reference) -> bool:
    if half.sign != known.sign or np.isfinite(half.hold_v) != np.isfinite(known.hold_v):
        return False
    if np.isfinite(half.hold_v):
        return abs(half.hold_v - known.hold_v) <= SAME_HOLD_V
    return abs(half.mean_current_ma - known.current_ma) <= SAME_RATE * known.current_ma


def _voltage_at(curves: HalfCurves, level: np.ndarray) -> np.ndarray:
    """(P,) cell voltage when each particle first passes its contrast level; NaN outside the record."""
    return np.interp(curves.crossing_s(level), curves.t_s, curves.voltage_v)
