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
from daemon.photometry.cycles import HalfMeasures
from daemon.photometry.departure import Scale, departures, median
from daemon.photometry.likeness import Likeness
from daemon.photometry.rescaled import Scales, rescaled_within

FADE, LAG, ASYMMETRY = range(3)
FEATURES = 3
"""Loss as -ln of the curve's size; lag in swings; discharge's lag minus charge's, as a share of the charge time."""
SCALE = Scale(
    one_sided=np.array([True, True, False]),
    no_matter=np.array([0.003, 0.0005, 0.015]),
    pace=np.array([0.0012, 0.0002, 0.003]),
    slope=np.array([5e-4, 2e-4, 1e-3]),
)
"""Loss and lag alarm as they grow, asymmetry either way."""
TREND_CYCLES = 8
"""Over which the trends told are fitted."""
KEPT = 40
"""Cycles in which departures are sought."""
BASE_CYCLES = 4
"""The first levels, that later ones are held against."""
LAST_CYCLES = 2
"""The last ones, whose mean counts,"""
ANCHOR_CYCLES = 3
"""and those at which another rate goes on."""
MIN_CYCLES = 4
MIN_POPULATION = 8
"""Fewer particles do not tell one's fate from the cell's."""
PRIOR_CYCLES = 8.0
"""The scatter of a particle's levels about its trend is weighed against the typical one of as many cycles more."""
MOST_RATES = 10_000
"""More than there are pairs of rates."""
ABRUPT_SIGMAS = 5.0
ABRUPT_LAG = 0.05
"""A lag that jumps by this share of the swing beside noise is a half that was disturbed: its cycle is left out."""
FAILED_RETENTION = 0.8
"""A particle has failed when it is dead or keeps less of its swing than this, beside the median particle."""


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
    """(P, 3) departures in standard deviations of noise and of what differs between particles anyway."""
    risk_score: np.ndarray
    """Root of the squares of `scores` that alarm."""
    departed: np.ndarray
    """(P,) cycles ago that was, of the break that tells most."""
    levels: np.ndarray
    """(P, 3) the last levels, beside the median particle."""
    failed: np.ndarray
    """(P,) bool"""
    fresh: np.ndarray
    """(P,) bool: measured in this cycle, and it did not step."""

    def rows(
        self, particle_id: np.ndarray, probability: np.ndarray, warned: np.ndarray, left: np.ndarray
    ) -> list[dict[str, Any]]:
        """Rows of the `health` table; `left` (3, P) are the cycles left: lower bound, median, upper bound."""
        lead_lo, lead, lead_hi = left.tolist()
        names = ("loss", "lag", "asymmetry")
        columns: dict[str, list[Any]] = {"retention": self.retention.tolist()}
        for place, name in enumerate(names):
            columns[name] = self.levels[:, place].tolist()
            columns[f"{name}_trend"] = self.trends[:, place].tolist()
            columns[f"{name}_trend_sigma"] = self.trend_sigmas[:, place].tolist()
        columns |= {
            "risk_score": self.risk_score.tolist(), "risk": probability.tolist(),
            "lead_cycles": lead, "lead_lo_cycles": lead_lo, "lead_hi_cycles": lead_hi,
            "warned": warned.astype(int).tolist(),
            "failed": self.failed.astype(int).tolist(),
        }  # fmt: skip
        keys = tuple(columns)
        return [
            {"particle_id": identity, "cycle": self.cycle, "t_s": self.t_s, **dict(zip(keys, row, strict=True))}
            for identity, row in zip(particle_id.tolist(), zip(*columns.values(), strict=True), strict=True)
        ]


class HealthBook:
    """Follows the particles over completed cycles. Memory: `KEPT` cycles, and an offset for each pair of rates."""

    def __init__(self, particles: int) -> None:
        self._first: HalfMeasures | None = None
        self._stepped = np.zeros(particles, bool)
        self._segment = np.zeros(particles, int)
        """Steps so far."""
        self._jumped = np.zeros(particles, bool)
        self._scales = Scales(particles)
        self._cycles: deque[int] = deque(maxlen=KEPT)
        self._levels: deque[np.ndarray] = deque(maxlen=KEPT)
        self._sigmas: deque[np.ndarray] = deque(maxlen=KEPT)
        self._groups: deque[np.ndarray] = deque(maxlen=KEPT)
        self._offsets: dict[tuple[int, int], np.ndarray] = {}
        self._offset_segment: dict[tuple[int, int], np.ndarray] = {}
        self._last = np.full((ANCHOR_CYCLES, particles, FEATURES), np.nan)
        self._base = np.full((BASE_CYCLES, particles, FEATURES), np.nan)
        """The first levels of each, what later ones are held against."""

    def grow(self, particles: int) -> None:
        """Go on with more particles, unknown in the cycles so far."""
        if self._first is not None:
            self._first = None  # its cycle is not whole for them; one cycle without trends is no loss
        self._stepped, self._segment = grown(self._stepped, particles, False), grown(self._segment, particles, 0)
        self._jumped = grown(self._jumped, particles, False)
        self._scales.grow(particles)
        for kept, unknown in ((self._levels, np.nan), (self._sigmas, np.nan), (self._groups, -1)):
            for place, each in enumerate(kept):
                kept[place] = grown(each, particles, unknown)
        self._offsets = {key: grown(offset, particles, np.nan) for key, offset in self._offsets.items()}
        self._offset_segment = {key: grown(segment, particles, 0) for key, segment in self._offset_segment.items()}
        self._last = grown(self._last, particles, np.nan, axis=1)
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
        halves = _likes(first, measures)
        raw, sigma = _levels(first, measures)
        stepped, self._stepped = self._stepped | rescaled_within(*halves), np.zeros(len(alive), bool)
        raw[stepped | ~alive] = np.nan
        if np.isfinite(raw[:, FADE]).sum() < MIN_POPULATION:
            self._segment = self._segment + stepped
            return None
        raw -= median(raw)
        key = (first.reference, measures.reference)
        self._segment = self._segment + stepped
        self._segment = self._segment + self._scales.stepped(key, raw[:, FADE], halves, self._segment)
        levels = self._anchored(raw, sigma, key)
        self._cycles.append(measures.cycle)
        self._levels.append(levels)
        self._sigmas.append(sigma)
        self._groups.append(self._group(key))
        return self._judge(measures, levels, alive)

    def _group(self, key: tuple[int, int]) -> np.ndarray:
        """(P, 3) int: levels of one number share an offset; steps of brightness change that of the loss alone."""
        rate = list(self._offsets).index(key)
        group = np.full((len(self._segment), FEATURES), rate)
        group[:, FADE] += MOST_RATES * self._segment
        return group

    def _anchored(self, raw: np.ndarray, sigma: np.ndarray, key: tuple[int, int]) -> np.ndarray:
        """Levels that go on where they were after another rate and after steps."""
        last, known = median(self._last), np.isfinite(raw)
        offset = self._offsets.get(key, np.full(raw.shape, np.nan))
        again = np.zeros(raw.shape, bool)
        again[:, FADE] = self._offset_segment.get(key, self._segment) != self._segment
        fresh = known & (np.isnan(offset) | again)
        start = np.where(np.isfinite(last), last, 0.0 * raw if self._offsets else raw)
        offset = np.where(fresh, raw - start, offset)
        levels = raw - offset
        jumped = np.abs(levels - last)[:, LAG] > np.maximum(ABRUPT_LAG, ABRUPT_SIGMAS * np.sqrt(2.0) * sigma[:, LAG])
        levels = np.where((jumped & ~self._jumped)[:, None], np.nan, levels)  # what lasts was no disturbance
        self._jumped = np.where(known[:, LAG], jumped, self._jumped)
        self._last = np.where(np.isfinite(levels), np.concatenate((self._last[1:], levels[None])), self._last)
        before = self._offset_segment.get(key, self._segment)
        self._offset_segment[key] = np.where(known[:, FADE], self._segment, before)
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
        left = departures(np.array(self._cycles), series, sigmas, np.stack(self._groups), SCALE)
        trends, trend_sigmas = fitted_slopes(series[-TREND_CYCLES:], sigmas[-TREND_CYCLES:])
        excess = self._excess(series)
        retention = np.exp(-excess[:, FADE])
        failed = ~alive | (retention < FAILED_RETENTION)
        return Health(
            measures.cycle, measures.end_t_s, retention, trends, trend_sigmas, left.scores, left.score,
            left.age_cycles, excess, failed, np.isfinite(levels[:, FADE]),
        )  # fmt: skip

    def _excess(self, series: np.ndarray) -> np.ndarray:
        """(P, F) the last levels over the first ones."""
        last, _ = _mean_known(series[-LAST_CYCLES:])
        base, base_count = _mean_known(self._base)
        return np.where(base_count >= BASE_CYCLES, last - base, np.nan)


def _mean_known(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean along the first axis over what is known, and of how many; NaN and 1 for none."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    return np.where(known.any(axis=0), np.where(known, values, 0.0).sum(axis=0) / count, np.nan), count


def _likes(first: HalfMeasures, second: HalfMeasures) -> tuple[Likeness, Likeness]:
    """Of charge and of discharge."""
    charge, discharge = (first, second) if first.half == "charge" else (second, first)
    return charge.likeness, discharge.likeness


def _levels(first: HalfMeasures, second: HalfMeasures) -> tuple[np.ndarray, np.ndarray]:
    """(P, 3) levels of one cycle and their standard deviations from contrast noise."""
    charge, discharge = (first, second) if first.half == "charge" else (second, first)
    likes = _likes(first, second)
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
    typical = np.square(formal) * median(ratio)
    scatter = (PRIOR_CYCLES * typical + left) / (PRIOR_CYCLES + freedom)
    return slope, np.sqrt(scatter / np.where(enough, sxx, np.nan))
