"""How particles age: what changes from cycle to cycle beside what the others do, and where that leads.

Three things are followed, relative to the median particle, so that what the whole cell does (fade, another rate) is
nobody's: the loss of swing, the lag, and what differs between charge and discharge. A particle's own level never
counts, only its change.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.photometry.blocks import grown
from daemon.photometry.curves import SECOND_DIFFERENCE
from daemon.photometry.cycles import HalfMeasures

FADE, LAG, ASYMMETRY = range(3)
FEATURES = 3
"""Loss as -ln of the curve's size; lag in swings; discharge's lag minus charge's, as a share of the charge time."""
ONE_SIDED = np.array([True, True, False])
"""Loss and lag alarm as they grow, asymmetry either way."""
WINDOWS = (5, 8, 12)
"""Cycles over which trends are fitted; the one that tells most counts."""
KEPT = 24
BASE_CYCLES = 4
"""The first levels, that later ones are held against."""
LAST_CYCLES = 2
"""The last ones, whose mean counts."""
GUARD_CYCLES = 4
"""Cycles before the last ones that do not count as before: what fails has begun to by then."""
NO_MATTER = np.array([0.004, 0.002, 0.03])
"""Changes of loss, lag and asymmetry as large as this never alarm, however well they are known."""
TREND_WEIGHT = 4.0
"""A change counts as it grows: the surer its trend, up to this many times its own score, the more."""
MIN_CYCLES = 4
MIN_POPULATION = 8
"""Fewer particles do not tell one's fate from the cell's."""
PRIOR_CYCLES = 8.0
"""The scatter of a particle's levels about its trend is weighed against the typical one of as many cycles more."""
MAD_TO_SIGMA = 1.4826
ABRUPT_SIGMAS = 5.0
ABRUPT_LEAST = 0.012
"""A loss from one cycle to the next this large beside noise is a step (a crack changes brightness), not a trend."""
ABRUPT_SHARE = 4.0
"""... unless it is less than this many times what was lost in the cycle before."""
FAILED_RETENTION = 0.8
"""A particle has failed when it is dead or keeps less of its swing than this, beside the median particle."""
Z90 = 1.645
FAR_CYCLES = 1000.0


@dataclass(frozen=True)
class Health:
    """What one completed cycle adds, (P,) each; NaN where not known."""

    cycle: int
    t_s: float
    retention: np.ndarray
    """Swing beside the median particle's, over that at the start, steps taken off."""
    trends: np.ndarray
    """(P, 3) change a cycle of loss, lag share, asymmetry and lag asymmetry, beside the median particle."""
    trend_sigmas: np.ndarray
    scores: np.ndarray
    """(P, 3) trends in standard deviations of their own noise and of what differs between particles anyway."""
    risk_score: np.ndarray
    """Root of the squares of `scores` that alarm."""
    levels: np.ndarray
    """(P, 3) the last levels, beside the median particle."""
    lead_cycles: np.ndarray
    """Cycles until `FAILED_RETENTION` if the loss goes on as it does; infinite or NaN where that tells none."""
    lead_lo: np.ndarray
    lead_hi: np.ndarray
    failed: np.ndarray
    """(P,) bool"""
    fresh: np.ndarray
    """(P,) bool: measured in this cycle, and it did not step."""

    def rows(self, particle_id: np.ndarray, probability: np.ndarray, warned: np.ndarray) -> list[dict[str, Any]]:
        """Rows of the `health` table."""
        names = ("loss", "lag", "asymmetry")
        columns: dict[str, list[Any]] = {"retention": self.retention.tolist()}
        for place, name in enumerate(names):
            columns[name] = self.levels[:, place].tolist()
            columns[f"{name}_trend"] = self.trends[:, place].tolist()
            columns[f"{name}_trend_sigma"] = self.trend_sigmas[:, place].tolist()
        columns |= {
            "risk_score": self.risk_score.tolist(), "risk": probability.tolist(),
            "lead_cycles": _finite(self.lead_cycles), "lead_lo_cycles": _finite(self.lead_lo),
            "lead_hi_cycles": _finite(self.lead_hi), "warned": warned.astype(int).tolist(),
            "failed": self.failed.astype(int).tolist(),
        }  # fmt: skip
        keys = tuple(columns)
        return [
            {"particle_id": identity, "cycle": self.cycle, "t_s": self.t_s, **dict(zip(keys, row, strict=True))}
            for identity, row in zip(particle_id.tolist(), zip(*columns.values(), strict=True), strict=True)
        ]


class HealthBook:
    """Follows the particles over completed cycles. Memory: twelve cycles, and an offset for each pair of rates."""

    def __init__(self, particles: int) -> None:
        self._first: HalfMeasures | None = None
        self._stepped = np.zeros(particles, bool)
        self._reanchor = np.zeros((particles, FEATURES), bool)
        self._levels: deque[np.ndarray] = deque(maxlen=KEPT)
        self._sigmas: deque[np.ndarray] = deque(maxlen=KEPT)
        self._offsets: dict[tuple[int, int], np.ndarray] = {}
        self._last = np.full((particles, FEATURES), np.nan)
        self._changed = np.full((particles, FEATURES), np.nan)
        self._base = np.full((BASE_CYCLES, particles, FEATURES), np.nan)
        """The first levels of each, what later ones are held against."""

    def grow(self, particles: int) -> None:
        """Go on with more particles, unknown in the cycles so far."""
        if self._first is not None:
            self._first = None  # its cycle is not whole for them; one cycle without trends is no loss
        self._stepped, self._reanchor = grown(self._stepped, particles, False), grown(self._reanchor, particles, False)
        for kept in (self._levels, self._sigmas):
            for place, each in enumerate(kept):
                kept[place] = grown(each, particles, np.nan)
        self._offsets = {key: grown(offset, particles, np.nan) for key, offset in self._offsets.items()}
        self._last, self._changed = grown(self._last, particles, np.nan), grown(self._changed, particles, np.nan)
        self._base = grown(self._base, particles, np.nan, axis=1)

    def step(self, index: int) -> None:
        """A particle's brightness stepped: this cycle's measures are no measure of ageing, and its scale is another."""
        if index < len(self._stepped):
            self._stepped[index] = True

    def add(self, measures: HalfMeasures, alive: np.ndarray) -> Health | None:
        """Take one half; the health of all particles when it completes a cycle. `alive` (P,) bool: not dead."""
        first, self._first = self._first, measures
        if first is None or first.cycle != measures.cycle or min(first.reference, measures.reference) < 0:
            return None
        raw, sigma = _levels(first, measures)
        stepped, self._stepped = self._stepped, np.zeros(len(alive), bool)
        raw[stepped | ~alive] = np.nan
        judged = np.isfinite(raw[:, FADE])
        if judged.sum() < MIN_POPULATION:
            return None
        raw -= _median(raw)
        self._reanchor[:, FADE] |= stepped
        levels = self._anchored(raw, sigma, (first.reference, measures.reference))
        self._levels.append(levels)
        self._sigmas.append(sigma)
        return self._judge(measures, levels, alive)

    def _anchored(self, raw: np.ndarray, sigma: np.ndarray, key: tuple[int, int]) -> np.ndarray:
        """Levels that go on where they were after another rate and after steps."""
        offset = self._offsets.get(key)
        unknown = np.full(raw.shape, np.nan)
        offset = unknown if offset is None else offset
        known, last = np.isfinite(raw), self._last
        fresh = known & (np.isnan(offset) | self._reanchor)
        offset = np.where(fresh, raw - np.where(np.isfinite(last), last, 0.0 * raw if self._offsets else raw), offset)
        levels = raw - offset
        change = levels - last
        bound = np.maximum(ABRUPT_LEAST, ABRUPT_SIGMAS * np.sqrt(2.0) * sigma)
        abrupt = (np.abs(change) > bound) & (np.abs(change) > ABRUPT_SHARE * np.abs(np.nan_to_num(self._changed)))
        abrupt = np.repeat(abrupt[:, [FADE, LAG]].any(axis=1, keepdims=True), FEATURES, axis=1)
        levels = np.where(abrupt, np.nan, levels)
        self._changed = np.where(np.isfinite(change) & ~abrupt, change, self._changed)
        self._reanchor = (self._reanchor & ~known) | (abrupt & (np.arange(FEATURES) == FADE))
        self._last = np.where(np.isfinite(levels), levels, last)
        self._offsets[key] = offset
        self._keep_base(levels)
        return levels

    def _keep_base(self, levels: np.ndarray) -> None:
        """Fill each particle's first free place, as long as there is one."""
        free = np.isnan(self._base) & np.isfinite(levels)
        place = free.argmax(axis=0)
        columns = np.nonzero(free.any(axis=0))
        self._base[(place[columns], *columns)] = levels[columns]

    def _judge(self, measures: HalfMeasures, levels: np.ndarray, alive: np.ndarray) -> Health:
        series, sigmas = np.stack(self._levels), np.stack(self._sigmas)
        sigmas = sigmas * noise_ratio(series, sigmas)
        excess, change_score = self._excess(series, sigmas)
        departure = _departures(series, sigmas)
        # what grows from below its first levels only comes back
        change_score = np.where((departure > change_score) & (change_score > 0), departure, change_score)
        best = np.full(len(alive), np.nan)
        trends, trend_sigmas, scores = (np.full(levels.shape, np.nan) for _ in range(3))
        slopes = {}
        for window in WINDOWS:
            slope, own = fitted_slopes(series[-window:], sigmas[-window:])
            score = _together(_beside_others(slope, own), change_score)
            risk = _alarm(score)
            slopes[window] = slope[:, FADE], own[:, FADE]
            better = np.isfinite(risk) & ~(risk <= best)
            best = np.where(better, risk, best)
            trends, trend_sigmas = (
                np.where(better[:, None], slope, trends),
                np.where(better[:, None], own, trend_sigmas),
            )
            scores = np.where(better[:, None], score, scores)
        lost = excess[:, FADE]
        lead, lo, hi = lead_cycles(lost, *slopes[WINDOWS[0]], slopes[WINDOWS[-1]][0])
        failed = ~alive | (np.exp(-lost) < FAILED_RETENTION)
        return Health(
            measures.cycle, measures.end_t_s, np.exp(-lost), trends, trend_sigmas, scores, best, excess, lead, lo, hi,
            failed, np.isfinite(levels[:, FADE]),
        )  # fmt: skip

    def _excess(self, series: np.ndarray, sigmas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(P, F) the last levels over the first ones, and that in standard deviations.

        Of noise, of what differs between particles anyway, and of what is of no matter.
        """
        last, last_count = _mean_known(series[-LAST_CYCLES:])
        base, base_count = _mean_known(self._base)
        excess = np.where(base_count >= BASE_CYCLES, last - base, np.nan)
        noise = np.square(_median(sigmas)) * (1.0 / last_count + 1.0 / base_count)
        spread = np.square(MAD_TO_SIGMA * _median(np.abs(excess - _median(excess))))
        natural = np.maximum(spread - _median(noise), 0.0)
        return excess, (excess - _median(excess)) / np.sqrt(noise + natural + np.square(NO_MATTER))


def noise_ratio(series: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """(F,) scatter from cycle to cycle of the typical particle over what its noise makes, at least 1."""
    if len(series) < MIN_CYCLES + 2:
        return np.ones(series.shape[2])
    second = np.abs(series[2:] - 2.0 * series[1:-1] + series[:-2]) / sigmas[1:-1]
    ratio = _median(_median(second)) / SECOND_DIFFERENCE
    return np.fmax(ratio, 1.0)


def _departures(series: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """(P, F) how far the last levels left each particle's own straight line of before, in standard deviations.

    Slopes of before are drawn towards the typical one by how well they are known.
    """
    if len(series) < LAST_CYCLES + GUARD_CYCLES + MIN_CYCLES:
        return np.full(series.shape[1:], np.nan)
    before = series[: -LAST_CYCLES - GUARD_CYCLES]
    slope, own = fitted_slopes(before, sigmas[: len(before)])
    typical = _median(slope)
    natural = np.maximum(np.square(MAD_TO_SIGMA * _median(np.abs(slope - typical))) - np.square(_median(own)), 1e-12)
    weight = natural / (natural + np.square(own))
    slope = typical + weight * (slope - typical)
    known = np.isfinite(before)
    level, count = _mean_known(before)
    place = np.where(known, np.arange(len(before))[:, None, None], 0).sum(axis=0) / count
    ahead = len(series) - (LAST_CYCLES + 1) / 2.0 - place
    last, last_count = _mean_known(series[-LAST_CYCLES:])
    left = last - level - slope * ahead
    noise = np.square(_median(sigmas)) * (1.0 / count + 1.0 / last_count) + weight * np.square(own * ahead)
    spread = np.square(MAD_TO_SIGMA * _median(np.abs(left - _median(left))))
    differs = np.maximum(spread - _median(noise), 0.0)
    return (left - _median(left)) / np.sqrt(noise + differs + np.square(NO_MATTER))


def _mean_known(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean along the first axis over what is known, and of how many; NaN and 1 for none."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    return np.where(known.any(axis=0), np.where(known, values, 0.0).sum(axis=0) / count, np.nan), count


def _together(trend: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Geometric mean of scores that agree in sign, the trend's at most `TREND_WEIGHT` times the change's; else 0."""
    mean = np.sqrt(np.minimum(np.abs(trend), TREND_WEIGHT * np.abs(change)) * np.abs(change))
    return np.where(np.isnan(trend + change), np.nan, np.where(trend * change > 0, np.sign(change) * mean, 0.0))


def _levels(first: HalfMeasures, second: HalfMeasures) -> tuple[np.ndarray, np.ndarray]:
    """(P, 3) levels of one cycle and their standard deviations from contrast noise."""
    charge, discharge = (first, second) if first.half == "charge" else (second, first)
    likes = [charge.likeness, discharge.likeness]
    with np.errstate(all="ignore"):
        loss = -np.mean([np.log(each.gain) for each in likes], axis=0)
        loss_sigma = np.hypot(*(each.gain_sigma / each.gain for each in likes)) / 2.0
        # contrasts may drift or step, both halves' alike: only what lies behind on either way is lag
        way = (likes[0].way - likes[1].way) / 2.0
        lag = (likes[1].offset - likes[0].offset) / 2.0 / way
        lag_sigma = np.hypot(likes[0].offset_sigma, likes[1].offset_sigma) / 2.0 / np.abs(way)
        late = [each.lag_s / each.charge_time_s for each in (charge, discharge)]
        late_sigma = np.hypot(*(each.lag_sigma_s / each.charge_time_s for each in (charge, discharge)))
    levels = np.stack((loss, lag, late[1] - late[0]), axis=1)
    return np.where(np.isfinite(levels), levels, np.nan), np.stack((loss_sigma, lag_sigma, late_sigma), axis=1)


def fitted_slopes(series: np.ndarray, sigmas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, F) slopes a cycle of straight lines through (n, P, F) levels, and their standard deviations.

    The scatter about the line is the particle's own, drawn towards what is typical for noise like its; NaN below
    `MIN_CYCLES`.
    """
    known = np.isfinite(series)
    count = known.sum(axis=0)
    x = np.where(known, np.arange(len(series))[:, None, None], 0.0)
    y = np.where(known, series, 0.0)
    safe = np.where(count > 0, count, 1)
    x_mean, y_mean = x.sum(axis=0) / safe, y.sum(axis=0) / safe
    dx = np.where(known, x - x_mean, 0.0)
    dy = np.where(known, y - y_mean, 0.0)
    sxx = np.square(dx).sum(axis=0)
    enough = (count >= MIN_CYCLES) & (sxx > 0)
    slope = np.where(enough, (dx * dy).sum(axis=0) / np.where(sxx > 0, sxx, 1.0), np.nan)
    left = np.square(np.where(known, dy - np.nan_to_num(slope) * dx, 0.0)).sum(axis=0)
    formal = np.where(known & np.isfinite(sigmas), sigmas, 0.0)
    formal = np.sqrt(np.square(formal).sum(axis=0) / safe)
    freedom = np.maximum(count - 2, 1)
    ratio = np.where(enough & (formal > 0), left / freedom / np.where(formal > 0, formal, 1.0) ** 2, np.nan)
    typical = np.square(formal) * _median(ratio)
    scatter = (PRIOR_CYCLES * typical + left) / (PRIOR_CYCLES + freedom)
    return slope, np.sqrt(scatter / np.where(enough, sxx, np.nan))


def _beside_others(slope: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """(P, F) distance from the median slope in standard deviations: of the fit, and of what differs anyway."""
    away = slope - _median(slope)
    spread = np.square(MAD_TO_SIGMA * _median(np.abs(away)))
    natural = np.maximum(spread - np.square(_median(sigma)), 0.0)
    return away / np.sqrt(np.square(sigma) + natural)


def _alarm(score: np.ndarray) -> np.ndarray:
    """(P,) root of the sum of squares of what alarms; NaN where nothing is known."""
    size = np.where(ONE_SIDED, np.maximum(score, 0.0), np.abs(score))
    return np.where(np.isfinite(score).any(axis=1), np.sqrt(np.nansum(np.square(size), axis=1)), np.nan)


def lead_cycles(
    lost: np.ndarray, slope: np.ndarray, sigma: np.ndarray, slow_slope: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cycles until the loss reaches that of a failed particle, and the bounds of 90 %; (P,) each, inf for never.

    The loss goes on by its slope of the last five cycles, which itself grows as it did against that of twelve.
    """
    left = -np.log(FAILED_RETENTION) - lost
    apart = (WINDOWS[-1] - WINDOWS[0]) / 2.0
    growth = np.where(np.isfinite(slow_slope), np.maximum(slope - slow_slope, 0.0) / apart, 0.0)
    middle = _reach(left, slope, growth)
    sooner = _reach(left, slope + Z90 * sigma, growth + Z90 * sigma / apart)
    later = _reach(left, slope - Z90 * sigma, np.maximum(growth - Z90 * sigma / apart, 0.0))
    return middle, sooner, later


def _reach(left: np.ndarray, slope: np.ndarray, growth: np.ndarray) -> np.ndarray:
    """Smallest L > 0 with slope L + growth L**2 / 2 = left."""
    with np.errstate(all="ignore"):
        linear = np.where(slope > 0, left / slope, np.inf)
        root = np.sqrt(np.square(slope) + 2.0 * growth * left)
        cycles = np.where(growth > 1e-9, (root - slope) / growth, linear)
    cycles = np.where(left <= 0, 0.0, cycles)
    return np.where(np.isnan(slope), np.nan, np.where(cycles > FAR_CYCLES, np.inf, cycles))


def _median(values: np.ndarray) -> np.ndarray:
    """Median along the first axis over what is known; NaN where nothing is, without warnings."""
    known = np.isfinite(values)
    filled = np.where(known.any(axis=0), values, 0.0)
    return np.where(known.any(axis=0), np.nanmedian(filled, axis=0), np.nan)


def _finite(values: np.ndarray) -> list[float]:
    return np.where(np.isfinite(values), values, np.nan).tolist()
