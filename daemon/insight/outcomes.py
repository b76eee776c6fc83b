"""What may drive a particle's fate (size, shape, brightness, crowding, place), and the fates: rates, lags, fade,
failure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from daemon.events import EventKind
from daemon.insight.run_data import RunData
from daemon.insight.step_rates import soc_sigmas, step_slopes
from daemon.tables import HALVES

KEPT_RETENTION = 0.8
"""Below 80 % of its first swing a particle has failed, the usual end of life of a cell."""
MIN_ENSEMBLE = 8
"""Particles with a known rate that a half needs before a particle is compared with them."""
MIN_FADE_HALVES = 3


@dataclass(frozen=True)
class Covariate:
    """A property known before the run: `more` is what particles with more of it are called."""

    name: str
    words: str
    unit: str
    more: str
    values: np.ndarray
    """(P,) float64, NaN where unknown."""


@dataclass(frozen=True)
class Outcome:
    """A number a particle. `up` and `down` say what particles with more and less of it do."""

    name: str
    words: str
    up: str
    down: str
    values: np.ndarray
    """(P,) float64, NaN where unknown."""
    by_rank: bool = True
    """False for yes and no."""


@dataclass(frozen=True)
class Failure:
    """When each particle failed, or until when it was seen not to."""

    name: str
    words: str
    up: str
    down: str
    duration: np.ndarray
    """(P,) until the failure or the last look, in `unit`; NaN for particles that were never at risk."""
    failed: np.ndarray
    """(P,) bool."""
    unit: str
    """`cycles`, or `h` in a run without cycles."""
    notes: tuple[str, ...] = ()


def covariates(run: RunData) -> list[Covariate]:
    """Every property the run knows; in pixels where it has no pixel size."""
    table = run.particles
    y, x = table["y_px"], table["x_px"]
    sized = bool(np.isfinite(table["equivalent_diameter_um"]).any())
    diameter = table["equivalent_diameter_um"] if sized else np.sqrt(4 / np.pi * table["area_px"])
    nearest = table["nearest_neighbour_um"] if sized else _nearest(y, x)
    um = "um" if sized else "px"
    centre_y, centre_x = _centre(run)
    outwards = np.hypot(y - centre_y, x - centre_x)
    return [
        Covariate("length", "length", "um", "longer", table["major_um"]),
        Covariate("size", "diameter", um, "larger", diameter),
        Covariate("aspect_ratio", "aspect ratio", "", "more elongated", table["aspect_ratio"]),
        Covariate("solidity", "solidity", "", "more convex", table["solidity"]),
        Covariate("brightness", "brightness", "e", "brighter", table["brightness_e"]),
        Covariate("nearest_neighbour", "distance to the nearest neighbour", um, "more isolated", nearest),
        Covariate("neighbours", "neighbours within 10 um", "", "more crowded", table["neighbours_within_10um"]),
        Covariate("y", "position down the field", "px", "lower", y),
        Covariate("x", "position across the field", "px", "farther right", x),
        Covariate("centre_distance", "distance from the field's centre", "px", "outer", outwards),
    ]  # fmt: skip


def outcomes(run: RunData) -> list[Outcome]:
    """Rate, lag and fade of each particle, and whether it was inactive all along."""
    found = []
    for half in HALVES:
        rate, lag = relative_rate(run, half), _relative_lag(run, half)
        found += [
            Outcome(f"rate_{half}", f"rate on {half}", f"{half} faster", f"{half} more slowly", rate),
            Outcome(f"lag_{half}", f"lag on {half}", f"lag behind on {half}", f"run ahead on {half}", lag),
        ]
    steps = step_slopes(run.rates, run.particle_id, soc_sigmas(run))
    if not steps.reason:
        slope = np.log(steps.slope_per_h_v)
        words = ("rate over overpotential", "react faster at potential steps", "react more slowly at potential steps")
        found.append(Outcome("rate_steps", *words, slope))
    fade = fade_per_cycle(run)
    never = np.where(run.particles["state"] == "lost", np.nan, never_active(run).astype(float))
    return [
        *found,
        Outcome("fade", "change of retention per cycle", "keep their swing better", "fade faster", fade),
        Outcome("inactive", "inactivity all along", "are inactive more often", "are inactive less often", never, False),
    ]


def relative_rate(run: RunData, half: str) -> np.ndarray:
    """(P,) natural logarithm of the rate over the ensemble's median in the same half; median over the halves."""
    _, rate = run.by_cycle("rate_per_h", half)
    return median_of_rows(np.log(np.where(rate > 0, rate, np.nan)))


def median_of_rows(values: np.ndarray) -> np.ndarray:
    """(P,) medians of (C, P) values after the median of each row is taken off; rows that few know are left out."""
    known = values[np.isfinite(values).sum(axis=1) >= MIN_ENSEMBLE]
    return nanmedian(known - nanmedian(known.T)[:, None])


def nanmedian(values: np.ndarray) -> np.ndarray:
    """Median along the first axis of what is finite; NaN where nothing is."""
    found = np.full(values.shape[1:], np.nan)
    some = np.isfinite(values).any(axis=0)
    found[some] = np.nanmedian(values[:, some], axis=0)
    return found


def _relative_lag(run: RunData, half: str) -> np.ndarray:
    """(P,) lag as a share of the half's median duration; median over the halves."""
    _, lag_s = run.by_cycle("lag_s", half)
    _, duration_s = run.by_cycle("duration_s", half)
    return median_of_rows(lag_s / nanmedian(duration_s.T)[:, None])


def fade_per_cycle(run: RunData) -> np.ndarray:
    """(P,) slope of retention over cycles, mean of both kinds of half: median of slopes between the run's two sides.

    Pairs of halves a half run apart (incomplete Theil slopes, Theil 1950): a single bad half does not move it.
    """
    slopes = []
    for half in HALVES:
        cycle, retention = run.by_cycle("retention", half)
        if len(cycle) < MIN_FADE_HALVES:
            continue
        apart = (len(cycle) + 1) // 2
        step = (cycle[apart:] - cycle[:-apart])[:, None]
        slopes.append(nanmedian((retention[apart:] - retention[:-apart]) / step))
    if not slopes:
        return np.full(len(run.particle_id), np.nan)
    total, count = np.nansum(slopes, axis=0), np.isfinite(slopes).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def never_active(run: RunData) -> np.ndarray:
    """(P,) bool: dead at the end, and no half in which it moved."""
    return (run.particles["state"] == "dead") & ~_Halves(run).moved.any(axis=0)


def failures(run: RunData) -> list[Failure]:
    """Loss of function and cracking, each with the time at risk."""
    halves = _Halves(run)
    end = np.where(halves.lost < math.inf, halves.lost, halves.end)
    never = never_active(run)
    dead = run.particles["state"] == "dead"
    stopped = np.where(dead & ~never, halves.stopped(), math.inf)
    function = np.minimum.reduce([halves.first((EventKind.DISCONNECTED,), final=True), stopped, halves.faded()])
    crack = halves.first((EventKind.CRACK,))
    notes = halves.notes(int(never.sum()))
    whole = never & (crack == math.inf)
    return [
        _failure("failure", "failure", ("fail first", "fail last"), function, end, halves, never, notes),
        _failure("crack", "cracking", ("crack first", "crack last"), crack, end, halves, whole, notes),
    ]  # fmt: skip


def _failure(
    name: str, words: str, verbs: tuple[str, str], when: np.ndarray, end: np.ndarray, halves: _Halves,
    never: np.ndarray, notes: tuple[str, ...],
) -> Failure:  # fmt: skip
    failed = (when <= end) & ~never & ~halves.late
    duration = np.where(failed, when, end)
    risk = ~never & ~halves.late & (duration > 0)
    return Failure(name, words, *verbs, np.where(risk, duration, np.nan), failed & risk, halves.unit, notes)


class _Halves:
    """The run's halves in order, as the clock of failures: a half is half a cycle. Without any, hours are."""

    def __init__(self, run: RunData) -> None:
        self._run, self.count = run, len(run.particle_id)
        self._place = {identity: k for k, identity in enumerate(run.particle_id.tolist())}
        rows: list[tuple[float, int, str, np.ndarray]] = []
        for half in HALVES:
            cycle, onset = run.by_cycle("onset_t_s", half)
            moved = np.isfinite(run.by_cycle("duration_s", half)[1])
            start = nanmedian(onset.T)
            rows += [(float(start[k]), int(cycle[k]), half, moved[k]) for k in range(len(cycle))]
        rows.sort(key=lambda row: (row[1], row[0]))
        self._keys = {(cycle, half): k for k, (_, cycle, half, _) in enumerate(rows)}
        self._start_s = np.maximum.accumulate([-math.inf if math.isnan(row[0]) else row[0] for row in rows] or [0.0])
        self.moved = np.array([row[3] for row in rows], bool).reshape(len(rows), self.count)
        """(H, P) whether each particle did something in each half."""
        self.unit = "cycles" if rows else "h"
        self.end = len(rows) / 2 if rows else _last_s(run) / 3600.0
        seen = np.zeros((len(rows), self.count), bool)
        for half in HALVES:
            for number, swing in zip(*run.by_cycle("swing", half), strict=True):
                seen[self._keys[int(number), half]] = np.isfinite(swing)
        self.late = seen.any(axis=0) & ~seen[: max(1, min(2, len(rows)))].any(axis=0)
        """(P,) particles that an edit added later."""
        gone = run.particles["state"] == "lost"
        self.lost = np.where(gone, np.minimum(self.first((EventKind.LOST,), final=True), self.end), math.inf)

    def at(self, t_s: float) -> float:
        """When an instant is, in `unit`: halves count whole."""
        if self.unit == "h":
            return t_s / 3600.0
        return max(1, int(np.searchsorted(self._start_s, t_s, side="right"))) / 2

    def first(self, kinds: Iterable[EventKind], final: bool = False) -> np.ndarray:
        """(P,) time of the first such event, inf without; `final`: of the last, unless the particle came back."""
        wanted = set(kinds)
        when = np.full(self.count, math.inf)
        for event in sorted(self._run.events, key=lambda each: each.t_s):
            place = self._place.get(-1 if event.particle_id is None else event.particle_id)
            if place is None or not math.isfinite(event.t_s):
                continue
            if event.kind in wanted and (final or math.isinf(when[place])):
                when[place] = self.at(event.t_s)
            elif final and event.kind is EventKind.RECONNECTED:
                when[place] = math.inf
        return when

    def stopped(self) -> np.ndarray:
        """(P,) the half after the last one in which a particle moved."""
        if not len(self.moved):
            return np.full(self.count, math.inf)
        last = len(self.moved) - np.argmax(self.moved[::-1], axis=0)
        return np.minimum((last + 1) / 2, self.end)

    def faded(self) -> np.ndarray:
        """(P,) when retention first fell below 80 % and was so in the next half of its kind too; inf if never."""
        when = np.full(self.count, math.inf)
        for half in HALVES:
            cycle, retention = self._run.by_cycle("retention", half)
            low = retention < KEPT_RETENTION
            for k in range(len(cycle) - 1):
                both = low[k] & low[k + 1]
                when[both] = np.minimum(when[both], (self._keys[int(cycle[k]), half] + 1) / 2)
        return when

    def notes(self, never: int) -> tuple[str, ...]:
        """Who is left out and why, in words."""
        counts = {
            f"{never} were inactive from the start and were never at risk": never,
            f"{int(self.late.sum())} were added by an edit of the masks and are left out": int(self.late.sum()),
            f"{int((self.lost < math.inf).sum())} left the field or were removed: watched until then, not failed": int(
                (self.lost < math.inf).sum()
            ),
        }
        return tuple(words for words, count in counts.items() if count)


def _last_s(run: RunData) -> float:
    """The last instant the run speaks of."""
    times = [*run.ensemble["t_s"], *run.echem["t_s"], *(event.t_s for event in run.events)]
    return float(max((t_s for t_s in times if math.isfinite(t_s)), default=0.0))


def _centre(run: RunData) -> tuple[float, float]:
    """Of the camera's field; of the particles' extent where the camera's size is not known."""
    camera = run.metadata.get("camera")
    height, width = (camera.get("height_px"), camera.get("width_px")) if isinstance(camera, dict) else (None, None)
    if isinstance(height, int | float) and isinstance(width, int | float) and min(height, width) > 0:
        return (height - 1) / 2, (width - 1) / 2
    sides = (run.particles["y_px"], run.particles["x_px"])
    known = [values[np.isfinite(values)] for values in sides]
    return tuple(float(v.min() + v.max()) / 2 if len(v) else math.nan for v in known)  # type: ignore[return-value]


def _nearest(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(P,) distance to the nearest other centre."""
    nearest = np.full(len(y), np.nan)
    for k in range(len(y)):
        distance = np.hypot(y - y[k], x - x[k])
        distance[k] = np.nan
        known = distance[np.isfinite(distance)]
        nearest[k] = known.min() if len(known) and np.isfinite(y[k] + x[k]) else np.nan
    return nearest
