"""A half beside the first of its kind: how much of its curve a particle still follows, how far behind the others.

Halves are laid over each other by the ensemble's own progress, not by time or charge: they may end elsewhere, and the
cell may have lost capacity. All points of a half count, so fade is known far better than from a swing's two ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daemon.photometry.blocks import grown
from daemon.photometry.curves import HalfCurves

GRID = 64
MARGIN = 0.15
"""A later half may reach this far beyond the first one's ends."""
MIN_OVERLAP = 0.5
"""Share of a half's points that must lie within what the first one passed."""
MIN_MEMBERS = 5


@dataclass
class FirstHalf:
    """The curves of the first half of a kind and rate."""

    start: np.ndarray
    """(P,) contrast at its start,"""
    way: np.ndarray
    """and from there to the farthest point; NaN for particles still in it."""
    curve: np.ndarray
    """(G, P) contrasts over the ensemble's progress."""


@dataclass(frozen=True)
class Likeness:
    """(P,) each; NaN where not known."""

    gain: np.ndarray
    """The curve's size over that in the first half, at equal progress of the ensemble."""
    gain_sigma: np.ndarray
    offset: np.ndarray
    """Contrast over the first half's at equal progress, on average."""
    offset_sigma: np.ndarray
    way: np.ndarray
    """Contrast from the first half's start to its farthest point."""


class LikenessBook:
    """Keeps first halves by number and lays later ones over them."""

    def __init__(self) -> None:
        self._first: dict[int, FirstHalf] = {}

    def grow(self, particles: int) -> None:
        """Go on with more particles, which no first half knows: theirs stays unknown at these rates."""
        for first in self._first.values():
            first.start, first.way = grown(first.start, particles, np.nan), grown(first.way, particles, np.nan)
            first.curve = grown(first.curve, particles, np.nan, axis=1)

    def add(self, curves: HalfCurves, moves: np.ndarray, reference: int) -> Likeness:
        """Compare a half with the first of its kind, `reference`; `moves` (P,) bool are followed."""
        if reference < 0 or moves.sum() < MIN_MEMBERS:
            return unknown_likeness(len(moves))
        first = self._first.get(reference)
        if first is None:
            first = self._first[reference] = _first_half(curves, moves)
        return _compared(curves, moves, first)


def unknown_likeness(particles: int) -> Likeness:
    """Nothing known of P particles."""
    return Likeness(*(np.full(particles, np.nan) for _ in range(5)))


def _first_half(curves: HalfCurves, moves: np.ndarray) -> FirstHalf:
    start = np.where(moves, curves.start, np.nan)
    way = np.where(moves, curves.farthest - curves.start, np.nan)
    progress = np.maximum.accumulate(_progress(curves, start, way))
    progress = progress + 1e-9 * np.arange(len(progress))  # interpolation asks for rising places
    grid = np.linspace(-MARGIN, 1.0 + MARGIN, GRID)
    curve = _rows_at(np.interp(grid, progress, np.arange(len(progress)), np.nan, np.nan), curves.smooth)
    return FirstHalf(start, way, np.where(moves, curve, np.nan))


def _progress(curves: HalfCurves, start: np.ndarray, way: np.ndarray) -> np.ndarray:
    """(n,) the median particle's way, 0 to 1 in the first half; a particle that cracked moves it little."""
    known = np.isfinite(way) & (way != 0) & curves.known
    return np.median((curves.smooth[:, known] - start[known]) / way[known], axis=1)


def _rows_at(place: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(m, P) rows (n, P) at places (m,) between them; NaN outside."""
    low = np.clip(np.floor(np.nan_to_num(place)).astype(np.intp), 0, len(rows) - 2)
    share = (place - low)[:, None]
    return np.asarray(rows[low] * (1.0 - share) + rows[low + 1] * share)


def _compared(curves: HalfCurves, moves: np.ndarray, first: FirstHalf) -> Likeness:
    with np.errstate(all="ignore"):
        progress = _progress(curves, first.start, first.way)
        model = _rows_at((progress + MARGIN) / (1.0 + 2.0 * MARGIN) * (GRID - 1), first.curve)
        inside = np.isfinite(model)
        count = inside.sum(axis=0)
        enough = moves & (count >= MIN_OVERLAP * len(progress))
        count = np.where(enough, count, np.nan)
        seen = np.where(inside, curves.contrast, 0.0)
        model = np.where(inside, model, 0.0)
        seen_mean, model_mean = seen.sum(axis=0) / count, model.sum(axis=0) / count
        dx = np.where(inside, model - model_mean, 0.0)
        power = np.square(dx).sum(axis=0)
        gain = (dx * np.where(inside, seen - seen_mean, 0.0)).sum(axis=0) / power
        gain_sigma = curves.block_sigma / np.sqrt(power)
        way = np.where(enough, first.way, np.nan)
        return Likeness(gain, gain_sigma, seen_mean - model_mean, curves.block_sigma / np.sqrt(count), way)
