"""Fronts in one half by maximum likelihood: levels of every bin and layer, the front's place, its way and speed.

A particle's channels (eight axial bins, or four layers) each go from a level before the front to one behind it; where
the front is, each shows the share that its table says. Places come from all channels at once, weighted by their noise;
levels from the line of each channel's values over its share; both in turns. What is left over decides whether it was a
front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from daemon.photometry.blocks import finite_mean
from daemon.photometry.curves import SECOND_DIFFERENCE, first_crossing
from daemon.photometry.fronts_geometry import GRID, Way
from kernels.fronts import level_sums, locate, smooth

STEP_SIGMAS = 5.0
EXPLAINED = 0.80
TOGETHER = 0.5
"""A front must leave less than this share of what one common course of all channels leaves."""
LEAST_POINTS = 4
"""Instants within the transformation; fewer show a step, not a front."""
PLATEAU = 32
"""Instants before and behind the transformation that levels are read from."""
REACHED = 0.7
"""A channel that changed less than this share of what the others did has not been passed whole."""
LOOSE = 0.15
"""Standard deviation between channels' relative changes, where the data do not tell."""
ROUNDS = 3
MARGIN = 12
"""Grid steps beyond either end of a way: a wide front is in a particle before its middle is."""
WIDTHS_PX = (0.7, 1.0, 1.4, 2.0)
"""Widths of fronts tried beside a sharp one: sigmas of a Gaussian edge."""
WIDEST = 0.18
"""Of the way: what is wider is a gradient, not a front."""
WIDER = 9.0
"""By which a wider one must leave less squares: three sigma."""
UNSURE = np.array([0.3, 0.05])
"""Standard deviations of what the engine took off too much or too little: blur, px**2, and drift along the axis, px.
Fronts in many particles at once look like both to it."""
RESTLESS = 10.0 ** np.arange(-3.0, 2.5, 0.5)
"""Accelerations tried, as shares of the mean speed by the time of the whole way, squared."""
ONSET, COMPLETE = 0.05, 0.95
SEEN = 0.02
"""Shares of the area at either end where a front's place is not told: hardly any light changes there."""


@dataclass
class Series:
    """One half of Q particles: n instants of K channels."""

    t_s: np.ndarray
    rest_px: np.ndarray
    """(n, 2)"""
    values: np.ndarray
    """(n, Q, K) float32"""
    sigma: np.ndarray
    """(Q, K) standard deviation of a value."""
    base: np.ndarray
    """(Q, K) what each channel's change is in proportion to when all parts change alike."""
    span: np.ndarray
    """(Q, 2) first and last instant (exclusive) of the transformation."""
    course: np.ndarray
    """(n, Q) share of the whole particle's change, by its total contrast."""


@dataclass
class Fit:
    """Fronts of Q particles along one way, begun at either of its ends."""

    back: np.ndarray
    """(Q,) bool: begun at the way's far end."""
    place_px: np.ndarray
    """(n, Q) from the end of the way where each front began, smoothed; NaN outside the transformation."""
    sigma_px: np.ndarray
    passed: np.ndarray
    """(n, Q) transformed share of the area at that place."""
    explained: np.ndarray
    """(Q,) share of the variance beyond noise, during the transformation."""
    together: np.ndarray
    """(Q,) squares left over, beyond noise, over those that one common course leaves."""
    step_sigmas: np.ndarray
    onset_t_s: np.ndarray
    """(Q,) when 5 % of the area had been passed, and 95 %; NaN when it never was, or before the half."""
    end_t_s: np.ndarray
    speed_px_per_s: np.ndarray
    """(Q,) along the front's way."""
    speed_sigma_px_per_s: np.ndarray

    @property
    def good(self) -> np.ndarray:
        """(Q,) bool: a front, and nothing else, explains what was seen."""
        return (self.step_sigmas > STEP_SIGMAS) & (self.explained >= EXPLAINED) & (self.together < TOGETHER)


def noise(values: np.ndarray) -> np.ndarray:
    """(Q, K) standard deviation of values (n, Q, K) from their second differences, blind to what changes slowly."""
    second = np.abs(values[2:] - 2.0 * values[1:-1] + values[:-2])
    known = np.isfinite(second)
    middle = np.nanmedian(np.where(known.any(axis=0), second, 0.0), axis=0)
    return np.maximum(middle / SECOND_DIFFERENCE, 1e-9)


def transformation(smooth_course: np.ndarray) -> np.ndarray:
    """(Q, 2) first and last instant (exclusive) between the ends of courses (n, Q) that go from 0 to 1."""
    n = len(smooth_course)
    middle = (smooth_course >= 0.5).argmax(axis=0)
    instants = np.arange(n)[:, None]
    before = (smooth_course <= SEEN) & (instants <= middle)
    behind = (smooth_course >= 1.0 - SEEN) & (instants >= middle)
    first = np.where(before.any(axis=0), n - 1 - before[::-1].argmax(axis=0), 0)
    last = np.where(behind.any(axis=0), behind.argmax(axis=0) + 1, n)
    return np.stack([first, last], axis=1)


def fit(series: Series, way: Way, which: np.ndarray) -> Fit:
    """Fronts of the particles `which` (Q,), columns of `way`, in their `series`."""
    first, last = series.span.T
    span = np.stack([np.maximum(first - PLATEAU, 0), np.minimum(last + PLATEAU, _n(series))], axis=1)
    level, change = _first_levels(series, span)
    back = _begins_at_the_end(series, span, level, change)
    response, drift, passed = _turned(way, which, back)
    place = _first_places(series, change, passed)
    information, misfit, amount = np.zeros(place.shape), np.zeros(place.shape), np.zeros((*place.shape, 2))
    weight = 1.0 / series.sigma**2
    unsure = UNSURE[:, None] * way.nuisance[which] * series.base[:, None]
    table, found = (response, drift, unsure), (place, information, misfit, amount)
    scale = way.length_px[which] / GRID
    for turn in range(ROUNDS):
        locate(series.values, series.rest_px, span, level, change, weight, *table, *found)
        level, change, sigma = _levels(series, span, table, place, amount, change)
        if turn == 0:
            _widen(series, span, (level, change, weight), (response, drift, passed), unsure, found, scale)
    locate(series.values, series.rest_px, span, level, change, weight, *table, *found)
    explained, together, excess = _judge(series, level, change, weight, misfit)
    total = np.abs(change.sum(axis=1))
    step_sigmas = total / np.sqrt((sigma**2).sum(axis=1))
    unclear = (place <= 0.25) | (place >= GRID + 2 * MARGIN - 0.25) | ~(information > 0) | ~_within(series)
    variance = np.where(unclear, np.inf, excess / np.where(unclear, 1.0, information))
    smoothed, smoothed_variance = _smoothed(series, place, variance)
    share = _at(passed, smoothed)
    onset, end = (_passing_s(series, share, level) for level in (ONSET, COMPLETE))
    outside = (share < SEEN) | (share > 1.0 - SEEN) | ~_within(series) | ~np.isfinite(smoothed)
    share[outside], smoothed[outside] = np.nan, np.nan
    speed, speed_sigma = _speed(series.t_s, place, np.where(outside, np.inf, variance))
    place_px, sigma_px = (smoothed - MARGIN) * scale, np.sqrt(smoothed_variance) * scale
    speeds = speed * scale, speed_sigma * scale
    return Fit(back, place_px, sigma_px, share, explained, together, step_sigmas, onset, end, *speeds)


def _n(series: Series) -> int:
    return len(series.t_s)


def _within(series: Series) -> np.ndarray:
    """(n, Q) bool: during the transformation."""
    instants = np.arange(_n(series))[:, None]
    return (instants >= series.span[:, 0]) & (instants < series.span[:, 1])


def _first_levels(series: Series, span: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels and changes (Q, K) from what there is at both ends; channels not yet passed change as the others do."""
    instants = np.arange(_n(series))[:, None]
    before = (instants >= span[:, 0]) & (instants <= series.span[:, 0])
    behind = (instants < span[:, 1]) & (instants >= series.span[:, 1] - 1)
    low, high = (finite_mean(np.where(part[:, :, None], series.values, np.nan)) for part in (before, behind))
    relative = (high - low) / series.base
    channels = relative.shape[1]
    sign = np.sign(relative.sum(axis=1, keepdims=True))
    upper = np.sort(np.where(np.isfinite(relative), relative * sign, -np.inf), axis=1)[:, channels // 2 :]
    typical = sign * np.median(upper, axis=1, keepdims=True)
    short = relative * sign < REACHED * typical * sign
    return np.nan_to_num(low), np.nan_to_num(np.where(short, typical, relative) * series.base)


def _begins_at_the_end(series: Series, span: np.ndarray, level: np.ndarray, change: np.ndarray) -> np.ndarray:
    """(Q,) bool: later channels of the way change before earlier ones."""
    inside = _within(series)[:, :, None] & np.isfinite(series.values)
    state = np.where(inside, (series.values - level) / np.where(change != 0, change, np.inf), 0.0)
    changed = state.sum(axis=0) / np.maximum(inside.sum(axis=0), 1)
    sharpness = (change / series.sigma) ** 2
    k = np.arange(changed.shape[1])
    mean = (sharpness * k).sum(axis=1, keepdims=True) / np.maximum(sharpness.sum(axis=1, keepdims=True), 1e-300)
    back: np.ndarray = (sharpness * (k - mean) * changed).sum(axis=1) > 0
    return back


def _turned(way: Way, which: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Response, drift and passed share of the `which`, from `MARGIN` before the end where each front begins."""
    response, drift, passed = way.response[which], way.drift[which], way.passed[which]
    response[back] = 1.0 - response[back][:, ::-1]
    drift[back] = -drift[back][:, ::-1]
    passed[back] = 1.0 - passed[back][:, ::-1]
    beyond = ((0, 0), (MARGIN, MARGIN))
    return (
        np.pad(response, (*beyond, (0, 0)), mode="edge"), np.pad(drift, (*beyond, (0, 0), (0, 0)), mode="edge"),
        np.pad(passed, beyond, mode="edge"),
    )  # fmt: skip


def _widen(
    series: Series,
    span: np.ndarray,
    levels: tuple[np.ndarray, np.ndarray, np.ndarray],
    tables: tuple[np.ndarray, np.ndarray, np.ndarray],
    unsure: np.ndarray,
    found: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    scale: np.ndarray,
) -> None:
    """Give response, drift and passed share, in place, the width of front that leaves the least squares."""
    inside = _within(series)
    trial = tuple(each.copy() for each in found)
    locate(series.values, series.rest_px, span, *levels, *tables[:2], unsure, *trial)
    least = np.where(inside, trial[2], 0.0).sum(axis=0) - WIDER
    best = tuple(table.copy() for table in tables)
    for width_px in WIDTHS_PX:
        sigmas = width_px / np.where(scale > 0, scale, np.inf)
        wide = tuple(
            np.stack([gaussian_filter1d(own, s, axis=0, mode="nearest") for own, s in zip(table, sigmas, strict=True)])
            for table in tables
        )
        trial = tuple(each.copy() for each in found)
        locate(series.values, series.rest_px, span, *levels, *wide[:2], unsure, *trial)
        left = np.where(inside, trial[2], 0.0).sum(axis=0)
        better = (left < least) & (width_px <= WIDEST * GRID * scale)
        least = np.where(better, left, least)
        for kept, table in zip(best, wide, strict=True):
            kept[better] = table[better]
    for table, kept in zip(tables, best, strict=True):
        table[:] = kept


def _first_places(series: Series, change: np.ndarray, passed: np.ndarray) -> np.ndarray:
    """(n, Q) places by the total alone, of which a partial transformation passes only a part."""
    full = change.sum(axis=1)
    seen = series.course * (_reached(series) / np.where(full != 0, full, np.inf))
    grid = np.arange(GRID + 1.0 + 2 * MARGIN)
    return np.stack([np.interp(seen[:, q], passed[q], grid) for q in range(len(full))], axis=1)


def _reached(series: Series) -> np.ndarray:
    """(Q,) change of all channels together over the transformation."""
    total = series.values.sum(axis=2)
    q = np.arange(total.shape[1])
    first, last = total[series.span[:, 0], q], total[series.span[:, 1] - 1, q]
    return np.nan_to_num(last - first)


def _levels(
    series: Series,
    span: np.ndarray,
    table: tuple[np.ndarray, np.ndarray, np.ndarray],
    place: np.ndarray,
    amount: np.ndarray,
    change: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels, changes and the changes' sigmas (Q, K) by least squares over each channel's share, and by the others'
    changes where that does not tell.
    """
    sums = np.zeros((*change.shape, 5))
    level_sums(series.values, series.rest_px, span, *table, place, amount, sums)
    n, z, zz, y, zy = np.moveaxis(sums, 2, 0)
    n = np.maximum(n, 1.0)
    spread, joint = zz - z * z / n, zy - z * y / n
    relative = change / series.base
    typical = np.median(relative, axis=1, keepdims=True) * series.base
    loose = series.sigma**2 / np.maximum((LOOSE * typical) ** 2, 1e-300)
    change = (joint + loose * typical) / (spread + loose)
    return (y - change * z) / n, change, series.sigma / np.sqrt(spread + loose)


def _judge(
    series: Series, level: np.ndarray, change: np.ndarray, weight: np.ndarray, misfit: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(Q,) each: explained share, squares left over against those of a common course, squares a degree of freedom."""
    inside = _within(series)
    values = np.where(inside[:, :, None], series.values, np.nan)
    count = np.isfinite(values).sum(axis=(0, 2))
    points, channels = np.maximum(inside.sum(axis=0), 1), values.shape[2]
    total = np.nansum(weight * (values - finite_mean(values)) ** 2, axis=(0, 2))
    left = np.where(inside, misfit, 0.0).sum(axis=0)
    pull = weight * change
    common = np.nansum(pull * (values - level), axis=2) / (pull * change).sum(axis=1)
    alike = values - level - change * common[:, :, None]
    alike -= finite_mean(alike)
    others = np.nansum(weight * alike**2, axis=(0, 2))
    free = np.maximum(count - points - 2 * channels, 1.0)
    beyond = np.maximum(left - free, 0.0)
    explained = 1.0 - beyond / np.maximum(total - count, 1e-9)
    explained = np.where(total > count + 5.0 * np.sqrt(2.0 * count), explained, 0.0)
    return explained, beyond / np.maximum(others - free, 1e-9), np.maximum(left / free, 1.0)


def _smoothed(series: Series, place: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places and variances (n, Q) by the smoother whose restlessness is most likely."""
    t_s, span = series.t_s, series.span
    took = np.maximum(t_s[span[:, 1] - 1] - t_s[span[:, 0]], 1e-9)
    out, spread = np.full(place.shape, np.nan), np.full(place.shape, np.nan)
    best, chosen = np.full(len(took), -np.inf), np.full(len(took), RESTLESS[0])
    likelihood = np.empty(len(took))
    for restless in RESTLESS:
        smooth(t_s, span, place, variance, restless * GRID**2 / took**3, out, spread, likelihood)
        better = likelihood > best
        best, chosen = np.where(better, likelihood, best), np.where(better, restless, chosen)
    smooth(t_s, span, place, variance, chosen * GRID**2 / took**3, out, spread, likelihood)
    return out, spread


def _at(table: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(n, Q) values of tables (Q, G) at places, linear between."""
    last = table.shape[1] - 1
    at = np.clip(np.where(np.isfinite(place), place, 0.0), 0.0, last)
    cell = np.minimum(at.astype(np.intp), last - 1)
    q = np.arange(table.shape[0])
    low, high = table[q, cell], table[q, cell + 1]
    return np.asarray(low + (at - cell) * (high - low), float)


def _passing_s(series: Series, share: np.ndarray, level: float) -> np.ndarray:
    """(Q,) when the share passed reaches `level`: nothing before the transformation, what was reached after it."""
    instants = np.arange(_n(series))[:, None]
    last = np.take_along_axis(share, series.span[None, :, 1] - 1, axis=0)
    whole = np.where(instants < series.span[:, 0], 0.0, np.where(instants >= series.span[:, 1], last, share))
    return first_crossing(series.t_s, whole - level)


def _speed(t_s: np.ndarray, place: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) slope of the places over time and its sigma: noise, and how little straight the way is."""
    weight = np.where(np.isfinite(variance), 1.0 / np.where(variance > 0, variance, np.inf), 0.0)
    points = (weight > 0).sum(axis=0)
    total = np.where(points > 2, weight.sum(axis=0), np.nan)
    time = t_s[:, None] - (weight * t_s[:, None]).sum(axis=0) / total
    away = place - (weight * place).sum(axis=0) / total
    spread = (weight * time**2).sum(axis=0)
    speed = (weight * time * away).sum(axis=0) / spread
    left = (weight * (away - speed * time) ** 2).sum(axis=0) / np.maximum(points - 2, 1)
    return speed, np.sqrt(np.maximum(left, 1.0) / spread)


def warm_fronts() -> None:
    """Compile, or load, what a half's end needs, with the types of work."""
    n, channels = 8, 4
    series = Series(
        t_s=np.arange(float(n)), rest_px=np.zeros((n, 2)), values=np.zeros((n, 1, channels), np.float32),
        sigma=np.ones((1, channels)), base=np.ones((1, channels)), span=np.array([[0, n]]), course=np.zeros((n, 1)),
    )  # fmt: skip
    with np.errstate(all="ignore"):
        fit(series, Way.empty(1, channels), np.array([0]))
