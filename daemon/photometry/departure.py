"""Departures: since when, by how much, and how surely a particle has left the line it was on.

A generalised likelihood ratio against a broken line, over all cycles at which it may have broken (Siegmund and
Venkatraman 1995), beside what breaks in the other particles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

AGES = (3, 4, 6, 9, 13)
"""Cycles since the line may have broken."""
POWERS = (1, 3)
"""What departs goes by the age or by its third power."""
MIN_CYCLES = 6
BEFORE_CYCLES = 3
"""Cycles before a break that are asked for."""
PRIOR_CYCLES = 8.0
"""A particle's own scatter is weighed against the typical one for noise like its, of as many cycles."""
MIN_INFORMATION = 0.05
"""Of a departure, in cycles that show it whole."""
NUISANCES = 3
"""Slope, answer to what moves all, and the departure."""
MIN_FREEDOM = 3
"""Fewer cycles beyond what is fitted do not tell a particle's noise."""
CLIP = 3.0
EDGE = 1.5
"""What moves all must stand out of noise by this factor."""
TINY = 1e-12
LOW_QUANTILE = 0.16
"""The spread is read below the median where departing is upwards: those that do depart do not widen it."""
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Scale:
    """(F,) each: what counts of F features."""

    one_sided: np.ndarray
    """bool: only growth departs."""
    no_matter: np.ndarray
    """Departures as large as this are of no matter, however well they are known,"""
    pace: np.ndarray
    """nor are as large ones a cycle,"""
    slope: np.ndarray
    """and slopes a cycle that particles differ by anyway, at least."""


@dataclass(frozen=True)
class Departure:
    """Of P particles; NaN where not known."""

    score: np.ndarray
    """(P,) root of the squares of `scores` that alarm, of the break that tells most."""
    age_cycles: np.ndarray
    """(P,) how long ago that was."""
    scores: np.ndarray
    """(P, F) departures in standard deviations of noise, of what differs anyway, and of what is of no matter."""
    sizes: np.ndarray
    """(P, F) departures by now, beside the median particle's."""


def departures(cycle: np.ndarray, levels: np.ndarray, sigmas: np.ndarray, group: np.ndarray, scale: Scale) -> Departure:
    """Departures in the last of n cycles.

    `cycle` (n,), rising; `levels` (n, P, F), NaN where unknown; `sigmas` (n, P, F) their noise; `group` (n, P, F) int:
    levels of one group share an unknown offset (a rate, what came before a step). A line has a slope that is drawn
    towards the typical one by how well it is known.
    """
    particles, features = levels.shape[1:]
    shapes = _shapes(cycle)
    best = Departure(*(np.full((particles, features)[:k], np.nan) for k in (1, 1, 2, 2)))
    if len(cycle) < MIN_CYCLES or not shapes:
        return best
    hinges = np.stack([hinge for _, hinge in shapes], axis=1)
    size, score = np.full((2, particles, len(shapes), features), np.nan)
    for place in range(features):
        fitted = _broken_lines(cycle, hinges, levels[..., place], sigmas[..., place], group[..., place],
                               float(scale.slope[place]))  # fmt: skip
        ages = np.array([age for age, _ in shapes])
        limit = np.hypot(scale.no_matter[place], scale.pace[place] * ages)
        size[..., place], score[..., place] = _beside_others(*fitted, limit, bool(scale.one_sided[place]))
    alarming = np.where(scale.one_sided, np.maximum(score, 0.0), np.abs(score))
    known = np.isfinite(score[..., 0])
    total = np.where(known, np.sqrt(np.nansum(np.square(alarming), axis=2)), -1.0)
    pick, rows = total.argmax(axis=1), np.arange(particles)
    some = known.any(axis=1)
    return Departure(
        np.where(some, total[rows, pick], np.nan), np.where(some, ages[pick], np.nan),
        np.where(some[:, None], score[rows, pick], np.nan), np.where(some[:, None], size[rows, pick], np.nan),
    )  # fmt: skip


def _shapes(cycle: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Ages, and (n,) what departs since then, 1 in the last cycle."""
    since = cycle - cycle[-1]
    return [
        (age, np.power(np.maximum(since + age, 0.0) / age, power))
        for age in AGES
        if np.count_nonzero(since <= -age) >= BEFORE_CYCLES
        for power in POWERS
    ]


def _broken_lines(
    cycle: np.ndarray, hinges: np.ndarray, levels: np.ndarray, sigmas: np.ndarray, group: np.ndarray, least_slope: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(P, R) departures by now and their standard deviations for R shapes (n, R), and (P,) degrees of freedom.

    Beside offsets and slope a particle may answer more or less to what moves all (focus): a random effect too.
    """
    known = np.isfinite(levels).T
    same = (group.T[:, :, None] == group.T[:, None, :]) & known[:, None, :] & known[:, :, None]
    members = np.maximum(same.sum(axis=2), 1)
    apart = np.eye(len(cycle)) * known[:, None, :] - same / members[..., None]
    y = (apart @ np.where(known, levels.T, 0.0)[..., None])[..., 0]
    line, hinge = (apart @ shape for shape in ((cycle - cycle[-1])[:, None], hinges))
    with np.errstate(all="ignore"):
        own = _share(line[..., 0], y)
        y = y - median(own) * line[..., 0]
        answer = apart @ _common(_without(y[..., None], line[..., 0], 0.0)[..., 0])[:, None]
        nuisances = [answer[..., 0], line[..., 0]]
        x = np.concatenate((y[..., None], hinge), axis=2)
        bare = x
        for nuisance in _in_turn(nuisances, (0.0, 0.0)):
            bare = _without(bare, nuisance, 0.0)
        freedom = known.sum(axis=1) - np.where(known, 1.0 / members, 0.0).sum(axis=1) - NUISANCES
        freedom = np.where(freedom > MIN_FREEDOM - 0.5, freedom, np.nan)
        variance = _variance(bare, np.where(known, np.square(sigmas.T), np.nan), freedom)
        stiff = [
            variance / np.maximum(_differ(nuisance, y, variance), least)
            for nuisance, least in zip(nuisances, (TINY, least_slope**2), strict=True)
        ]
        for nuisance, stiffness in zip(_in_turn(nuisances, stiff), stiff, strict=True):
            x = _without(x, nuisance, stiffness)
        information = np.square(x[..., 1:]).sum(axis=1)
        information = np.where(information > MIN_INFORMATION, information, np.nan)
        seen = np.einsum("pn,pnr->pr", x[..., 0], x[..., 1:])
        return seen / information, np.sqrt(variance[:, None] / information), PRIOR_CYCLES + freedom


def _share(nuisance: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(P,) of (P, n) in (P, n), by least squares."""
    power = np.square(nuisance).sum(axis=1)
    return np.where(power > TINY, (nuisance * y).sum(axis=1) / power, np.nan)


def _differ(nuisance: np.ndarray, y: np.ndarray, variance: np.ndarray) -> float:
    """The variance of the particles' shares of a nuisance, noise taken off."""
    share = _share(nuisance, y)
    noise = median(variance / np.square(nuisance).sum(axis=1))
    return float(np.nan_to_num(np.square(MAD_TO_SIGMA * median(np.abs(share - median(share)))) - noise))


def _without(x: np.ndarray, nuisance: np.ndarray, stiffness: np.ndarray | float) -> np.ndarray:
    """(P, n, R) whitened for a random share of a nuisance (P, n): with stiffness 0 it is projected out.

    `stiffness` (P,) is the variance of noise over that of the shares.
    """
    power = np.square(nuisance).sum(axis=1)
    taken = np.where(power > TINY, 1.0 - np.sqrt(stiffness / (power + stiffness)), 0.0) / np.maximum(power, TINY)
    return x - nuisance[..., None] * (taken[:, None] * np.einsum("pn,pnr->pr", nuisance, x))[:, None, :]


def _in_turn(nuisances: list[np.ndarray], stiffness: Sequence[np.ndarray | float]) -> Iterator[np.ndarray]:
    """The nuisances, each whitened for those before it."""
    first, second = nuisances
    yield first
    yield _without(second[..., None], first, stiffness[0])[..., 0]


def _common(left: np.ndarray) -> np.ndarray:
    """(n,) what moves many particles at once, more or less each: the first singular vector of (P, n) residuals.

    0 where it is no more than noise makes (edge of Marchenko and Pastur). Residuals are clipped at `CLIP` of each
    particle's own scatter, so that one particle does not make it.
    """
    scale = MAD_TO_SIGMA * np.median(np.abs(left), axis=1, keepdims=True)
    scaled = np.clip(np.where(scale > TINY, left / scale, 0.0), -CLIP, CLIP)
    scatter = scaled.T @ scaled / max(len(scaled), 1)
    values, vectors = np.linalg.eigh(scatter)
    edge = np.median(values) * (1.0 + np.sqrt(len(scatter) / len(scaled))) ** 2 * EDGE
    return vectors[:, -1] if values[-1] > edge else np.zeros(len(scatter))


def _variance(bare: np.ndarray, formal: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """(P,) of the noise: what the best broken line leaves, drawn to what is typical for `formal` (P, n)."""
    y, hinge = bare[..., 0], bare[..., 1:]
    information = np.square(hinge).sum(axis=1)
    gained = np.where(information > MIN_INFORMATION, np.square(np.einsum("pn,pnr->pr", y, hinge)) / information, 0.0)
    left = np.maximum(np.square(y).sum(axis=1) - gained.max(axis=1), 0.0)
    typical = median(formal.T)
    return (PRIOR_CYCLES * median(left / freedom / typical) * typical + left) / (PRIOR_CYCLES + freedom)


def _beside_others(
    size: np.ndarray, sigma: np.ndarray, freedom: np.ndarray, limit: np.ndarray, one_sided: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(P, R) departures beside the median ones, and in standard deviations: the root of the likelihood ratio."""
    away = size - median(size)
    known = np.isfinite(away)
    filled = np.where(known.any(axis=0), away, 0.0)
    low = -np.nanquantile(filled, LOW_QUANTILE, axis=0)
    spread = low if one_sided else MAD_TO_SIGMA * median(np.abs(away))
    natural = np.maximum(np.square(spread) - np.square(median(sigma)), 0.0)
    ratio = np.square(away) / (np.square(sigma) + natural + np.square(limit))
    return away, np.sign(away) * np.sqrt(freedom[:, None] * np.log1p(ratio / freedom[:, None]))


def median(values: np.ndarray) -> np.ndarray:
    """Median along the first axis over what is known; NaN where nothing is, without warnings."""
    known = np.isfinite(values)
    filled = np.where(known.any(axis=0), values, 0.0)
    return np.where(known.any(axis=0), np.nanmedian(filled, axis=0), np.nan)
