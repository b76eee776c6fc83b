"""From contrast to the particle's own charge fraction: anchors, the window, and what is known of each particle.

An anchor is an instant at which every connected solid-solution particle holds the ensemble's charge fraction: the end
of a relaxed rest, any point of a half slow enough (at most C/20), or, less surely, the mean of charge and discharge.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from daemon.engine.measures import LAYERS, MaskSet
from daemon.photometry.anchors import (
    FOLD_SIGMAS,
    Anchor,
    Drive,
    Folds,
    alike,
    alone,
    between,
    driven,
    end_points,
    folds,
    middle,
    point,
    rest_anchor,
)
from daemon.photometry.blocks import all_grown, finite_mean
from daemon.photometry.calibration import FOLDED, LAYER_KNOTS, NO_CURVE, end_members, monotone, spans
from daemon.photometry.curves import HalfCurves
from daemon.photometry.derive import PROFILE_VARIANCE, LayerTables, SocTable
from daemon.photometry.mixing import DIFFUSE, PLAIN, SHARP, doubt, shares, unmixing
from daemon.photometry.response import Anchors, Process, Responses, responding
from daemon.photometry.slices import Sliced

SLOW_C_RATE = 0.055
"""C/20, and a tenth for a drive that is not exact."""
WINDOW_GROWTH = 1.05
"""A half redefines the window when it passes this much more charge."""
WINDOW_SHARE = 0.10
"""With a known capacity: share of it that a half must pass to define a window."""
END_REACH = 0.10
"""Half ends this close to 0 and 1 are end members; anchors this close to them reach the ends."""
BIN_FRACTION = 0.005
"""Rests this close to each other are one anchor."""
BEYOND = 0.03
"""Anchors may lie this far outside of the window; ends this much farther from it than the nearest are not used."""
MAX_ANCHORS = 96
MAX_RESTS = 256
TWO_PHASE_SPREAD = 0.65
"""Distance between the quartiles of the particles' fractions: 1 when each is at either end, a half when evenly spread,
near 0 when all are alike. Quartiles, because a few cracked particles have lost their scale."""
MIN_POPULATION = 8
USUAL_TILT = 0.2
"""Prior standard deviation of what a gradient of 1 adds to a particle's SoC through uneven brightness."""
WHOLE = 0.6
"""Two phases change all layers alike: one that changes by less than this share of another did not change throughout."""
FOLDED_HALVES = 2
"""A contrast that turned back in one half only may have been a crack."""


@dataclass(frozen=True)
class Window:
    """Net charge at the discharged and the charged end."""

    discharged_mah: float
    charged_mah: float

    @property
    def capacity_mah(self) -> float:
        """Charge between the ends."""
        return self.charged_mah - self.discharged_mah

    def fraction(self, charge_mah: np.ndarray | float) -> np.ndarray:
        """The ensemble's charge fraction."""
        return (np.asarray(charge_mah, float) - self.discharged_mah) / self.capacity_mah


class Calibrator:
    """Collects anchors, end members and folds half by half; `rows` gives the calibrations they support."""

    def __init__(self, particles: int, capacity_mah: float | None) -> None:
        self._particles = particles
        self._capacity_mah = capacity_mah
        self._shares = np.zeros((0, *PLAIN.shape))
        self.window: Window | None = None
        self.two_phase = False
        self._charge_mah = float("nan")
        self._rests: deque[Anchor] = deque(maxlen=MAX_RESTS)
        self._slow: deque[Drive] = deque(maxlen=4)
        self._fast: deque[Drive] = deque(maxlen=4)
        self._ends: deque[Anchor] = deque(maxlen=16)
        self._middles: deque[Anchor] = deque(maxlen=4)
        self._folds: deque[Folds] = deque(maxlen=6)
        self._processes: list[Process | None] = [None, None]
        """Chosen last, from steady anchors alone and with those of fast halves."""

    def grow(self, particles: int) -> None:
        """Go on with more particles, of which nothing is known yet."""
        self._particles = particles
        everything: list[deque[Any]] = [self._rests, self._ends, self._middles, self._folds]
        for kept in everything:
            for place, each in enumerate(kept):
                kept[place] = all_grown(each, particles)
        for drives in (self._slow, self._fast):
            for place, drive in enumerate(drives):
                drives[place] = drive.grown(particles)

    def add(self, curves: HalfCurves) -> None:
        """Take one finished half, or the lead-in before the first current (for its rest only)."""
        for rest in curves.half.rests:
            self._keep(self._rests, rest_anchor(curves, rest))
        # a sparse record's first sample of a half has charge of it already
        start_mah = self._charge_mah if np.isfinite(self._charge_mah) else curves.half.start_mah
        self._charge_mah = curves.half.end_mah
        if not curves.half.sign or not curves.driven.any():
            return
        if curves.half.index == 0:
            self._keep(self._ends, point(curves, slice(0, end_points(curves)), start_mah))
        self._keep(self._ends, point(curves, slice(-end_points(curves), None), curves.half.end_mah))
        self._widen(start_mah, curves.half.end_mah)
        if self.window is None or not self.passed_enough(curves, 0.5):
            return
        c_rate = curves.half.mean_current_ma / self._full_mah
        self._folds.append(folds(curves, c_rate))
        self._middles.append(middle(curves))
        drive = driven(curves)
        if drive is not None:
            (self._slow if c_rate <= SLOW_C_RATE else self._fast).append(drive)

    def mix(self, masks: MaskSet) -> None:
        """Take the outlines' part in how layers mix; of particles that were there before nothing is taken anew."""
        if len(self._shares) < masks.count:
            self._shares = np.concatenate([self._shares, shares(masks)[len(self._shares) :]])

    def _mix(self, layer_sigma_ratio: np.ndarray) -> Mix:
        missing = np.repeat(PLAIN[None], self._particles - len(self._shares), axis=0)
        share = np.concatenate([self._shares, missing])
        departure = SHARP if self.two_phase else DIFFUSE
        plain = (share == PLAIN).all(axis=(1, 2))
        weights = np.where(plain[:, None, None], PLAIN, unmixing(share, departure))
        return Mix.of(weights, layer_sigma_ratio, doubt(share, weights, departure))

    @property
    def _full_mah(self) -> float:
        """What C-rates are of."""
        return self._capacity_mah or (self.window.capacity_mah if self.window else float("nan"))

    @staticmethod
    def _keep(anchors: deque[Anchor], anchor: Anchor | None) -> None:
        if anchor is not None and np.isfinite(anchor.charge_mah):
            anchors.append(anchor)

    def _widen(self, start_mah: float, end_mah: float) -> None:
        low, high = sorted((start_mah, end_mah))
        least = WINDOW_SHARE * self._capacity_mah if self._capacity_mah else 0.0
        known = self.window.capacity_mah if self.window else 0.0
        if np.isfinite(high - low) and high - low > max(least, known * WINDOW_GROWTH, 1e-12):
            self.window = Window(low, high)

    def passed_enough(self, curves: HalfCurves, share: float) -> bool:
        """Whether the half passed at least this share of the window."""
        return self.window is not None and abs(curves.half.passed_mah) >= share * self.window.capacity_mah

    def rows(
        self, particle_id: np.ndarray, dead: np.ndarray, layer_sigma_ratio: np.ndarray
    ) -> Sliced[list[dict[str, Any]]]:
        """One calibration row a particle, in order, from all that is known now."""
        self._judge_phases(self._end_members(self._mix(layer_sigma_ratio), 0.0), dead)
        mix = self._mix(layer_sigma_ratio)
        turned = self._folded()
        curves: list[dict[str, Any] | None] = [None] * self._particles
        if not self.two_phase:
            curves = yield from self._curves(mix, dead | turned)
            yield
        ends = self._end_members(mix, 0.0 if self.two_phase else 1.0)
        bend = np.full(self._particles, 0.0 if self.two_phase else np.nan)
        rows = [curve or ends.row(index, bend[index], mix) for index, curve in enumerate(curves)]
        yield
        tilt = Tilts(rows, [*self._slow, *self._fast], layer_sigma_ratio)
        yield
        rows = []
        for index in range(self._particles):
            if dead[index] or self.window is None:
                curve = NO_CURVE
            elif turned[index]:
                curve = FOLDED
            else:
                curve = curves[index] or ends.row(index, bend[index] + tilt.left[index], mix)
            if curve["layers"] is not None:
                told = {name: curve["layers"][name] for name in ("weights", "unsure", LAYERS[0], LAYERS[-1])}
                curve = curve | {"layers": told | {"tilt": round(float(tilt.tilt[index]), 6)}}
            ratio = [float(value) for value in layer_sigma_ratio[index]]
            rows.append({"particle_id": int(particle_id[index]), **curve, "layer_sigma_ratio": ratio})
        return rows

    def _folded(self) -> np.ndarray:
        """Particles that folded in two of the last halves (in the one there is)."""
        seen = [fold.beyond if self.two_phase else fold.turned for fold in self._folds]
        count = np.sum(seen, axis=0) if seen else np.zeros(self._particles, int)
        return np.asarray(count >= min(FOLDED_HALVES, max(len(seen), 1)))

    def _curves(self, mix: Mix, left_out: np.ndarray) -> Sliced[list[dict[str, Any] | None]]:
        """The monotone curves (and folds) that the anchors support; slow and relaxed ones suffice where they span."""
        found: list[dict[str, Any] | None] = [None] * self._particles
        if self.window is None:
            return found
        steady = [*self._rests, *self._pairs(self._slow), *self._unpaired()]
        for place, anchors in enumerate((steady, [*steady, *self._pairs(self._fast)])):
            todo = [k for k in range(self._particles) if found[k] is None and not left_out[k]]
            matrix = self._matrix(anchors, mix) if todo else None
            if matrix is None or not spans(matrix.fraction):
                continue
            wanted = np.isin(np.arange(matrix.contrast.shape[1]) % self._particles, todo)
            responses = yield from responding(matrix, self._particles, wanted, self._processes[place], ~left_out)
            self._processes[place] = responses.process
            for index, row in zip(todo, monotone(matrix, responses, todo), strict=True):
                found[index] = row
            curved = [k for k in todo if (row := found[k]) is not None and row["kind"] == "monotone"]
            for index, layers in zip(curved, self._layers(matrix, responses, curved, mix), strict=True):
                found[index] = (found[index] or {}) | {"layers": layers}
        return found

    def _layers(
        self, anchors: Anchors, responses: Responses, which: list[int], mix: Mix
    ) -> Iterator[dict[str, Any] | None]:
        """The curves of the layers of some particles."""
        series = [index + k * self._particles for index in which for k in range(1, 1 + len(LAYERS))]
        rows = monotone(anchors, responses, series, LAYER_KNOTS)
        for place, index in enumerate(which):
            yield layers_row(mix, index, rows[place * len(LAYERS) : (place + 1) * len(LAYERS)])

    @staticmethod
    def _pairs(drives: Sequence[Drive]) -> list[Anchor]:
        """The last two charges and discharges that belong together."""
        pairs = [(one, other) for one, other in pairwise(drives) if other.source == one.source + 1]
        return [anchor for one, other in pairs[-2:] if alike(one, other) for anchor in between(one, other)]

    def _unpaired(self) -> list[Anchor]:
        """A slow half without a counterpart."""
        if len(self._slow) != 1:
            return []
        return alone(self._slow[0], self._slow[0].current_ma / self._full_mah)

    def _matrix(self, anchors: list[Anchor], mix: Mix) -> Anchors | None:
        """The anchors within the window by rising fraction, with a series for the particle and each layer."""
        if self.window is None or not anchors:
            return None
        fractions = self.window.fraction(np.array([anchor.charge_mah for anchor in anchors]))
        inside = [k for k in np.argsort(fractions, kind="stable") if -BEYOND <= fractions[k] <= 1.0 + BEYOND]
        groups = _grouped([(float(fractions[k]), anchors[k]) for k in inside])
        if not groups:
            return None
        fraction, contrast, sigma, lag = (np.array(each) for each in zip(*(mix.pooled(g) for g in groups), strict=True))
        source = np.array([group[0][1].source if len(group) == 1 else -1 - k for k, group in enumerate(groups)])
        source = np.where(source < 0, -1 - np.arange(len(groups)), source)
        flat = (contrast.reshape(len(groups), -1), sigma.reshape(len(groups), -1), lag.reshape(len(groups), -1))
        return Anchors(fraction, *flat, source)

    def _end_members(self, mix: Mix, extend: float) -> Ends:
        """Contrasts at the discharged and the charged end; `extend` 1 continues the line to 0 and 1 exactly."""
        if self.window is None:
            return Ends.unknown(self._particles)
        places = [(float(self.window.fraction(end.charge_mah)), end) for end in self._ends]
        low = _nearest([(place, end) for place, end in places if abs(place) <= END_REACH], 0.0)
        high = _nearest([(place, end) for place, end in places if abs(place - 1.0) <= END_REACH], 1.0)
        if not low or not high:
            return Ends.unknown(self._particles)
        (low_f, discharged, low_sigma), (high_f, charged, high_sigma) = (_mean_end(each, mix) for each in (low, high))
        slope = extend * (charged - discharged) / (high_f - low_f)
        differ = np.fmax(low_sigma, high_sigma)
        error = differ / np.sqrt(min(len(low), len(high)))
        return Ends(discharged - low_f * slope, charged + (1.0 - high_f) * slope, differ, error)

    def _judge_phases(self, ends: Ends, dead: np.ndarray) -> None:
        """Two phases show as particles at either end while the ensemble is between; relaxed rests tell best."""
        if self.window is None:
            return
        own = (ends.discharged[0], ends.charged[0], dead)
        for anchors in (list(self._rests), list(self._middles)):
            spreads = [phase_spread(anchor.contrast, anchor.sigma, *own) for anchor in anchors]
            known = [spread for spread in spreads if np.isfinite(spread)]
            if known:
                self.two_phase = bool(np.median(known) > TWO_PHASE_SPREAD)
                return


@dataclass(frozen=True)
class Mix:
    """How the measured contrasts of layers make their own, and their noise."""

    weights: np.ndarray
    """(P, 4, 4)"""
    ratio: np.ndarray
    """(4, P) sigma of each layer over that of the particle; NaN where unknown."""
    unsure: np.ndarray
    """(P,) standard deviation of a gradient by what blur hides, as a share of it."""

    @classmethod
    def of(cls, weights: np.ndarray, layer_sigma_ratio: np.ndarray, unsure: np.ndarray) -> Mix:
        """From the weights and (P, 4) sigmas of the layers over that of the particle."""
        noise = np.where(weights != 0, weights * layer_sigma_ratio[:, None, :], 0.0)
        return cls(weights, np.sqrt((noise**2).sum(axis=2)).T, unsure)

    def series(self, own: np.ndarray, layers: np.ndarray) -> np.ndarray:
        """(5, P): the particle's, then its layers'."""
        mixed = np.where(self.weights != 0, self.weights * layers[:, None, :], 0.0).sum(axis=2)
        return np.concatenate([own[None], mixed.T])

    def pooled(self, group: list[tuple[float, Anchor]]) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Mean fraction, and (5, P) contrasts, sigmas and lags of anchors at nearly the same fraction."""
        contrasts = np.stack([self.series(anchor.contrast, anchor.layers) for _, anchor in group])
        lags = [np.abs(self.series(anchor.lag[:, 0], anchor.lag[:, 1:])) for _, anchor in group]
        variance = np.stack([self.noise(anchor.sigma) ** 2 for _, anchor in group])
        known = np.isfinite(contrasts)
        count = known.sum(axis=0)
        variance = np.where(known, variance, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan) ** 2
        fraction = float(np.clip(np.mean([place for place, _ in group]), 0.0, 1.0))
        return fraction, finite_mean(contrasts), np.sqrt(variance), finite_mean(np.stack(lags))

    def noise(self, sigma: np.ndarray) -> np.ndarray:
        """(5, P) sigmas from the particle's."""
        return np.concatenate([sigma[None], sigma * self.ratio])


@dataclass(frozen=True)
class Ends:
    """(5, P) contrasts of particle and layers at the ends of the window, and how sure they are."""

    discharged: np.ndarray
    charged: np.ndarray
    differ: np.ndarray
    """How much an end differs from cycle to cycle, or its noise."""
    error: np.ndarray
    """... and their mean's standard deviation."""

    @classmethod
    def unknown(cls, particles: int) -> Ends:
        """Nothing known."""
        none = np.full((1 + len(LAYERS), particles), np.nan)
        return cls(none, none, none, none)

    def row(self, index: int, bend: float, mix: Mix) -> dict[str, Any]:
        """The line between the ends of one particle, with those of its layers where `bend` is known."""
        columns = (self.discharged, self.charged, self.differ, self.error)
        each = zip(*(column[:, index] for column in columns), strict=True)
        own, *parts = (end_members(low, high, differ, bend, error) for low, high, differ, error in each)
        if own["kind"] != "end_members" or not np.isfinite(bend):
            return own
        swings = np.abs(self.charged[1:, index] - self.discharged[1:, index])
        if swings.min() < WHOLE * swings.max():  # not all of it is transformed at one of the ends
            return NO_CURVE
        return own | {"layers": layers_row(mix, index, parts)}


class Tilts:
    """(P,) by how much a particle's own curve reads too high a gradient of 1 (`tilt`), and what is left of the
    disagreement between it and the mean of its layers' curves in the driven halves, half-way, when that is taken off
    (`left`).
    """

    def __init__(self, rows: Sequence[dict[str, Any]], drives: Sequence[Drive], ratio: np.ndarray) -> None:
        by_column = dict(enumerate(rows))
        table, layers = SocTable(by_column, len(rows)), LayerTables(by_column, len(rows), LAYERS)
        parts: list[list[np.ndarray]] = [[np.zeros((0, len(rows)))] for _ in range(4)]
        for drive in drives if len({drive.sign for drive in drives}) == 2 else ():
            names = {name: drive.values[:, :, 1 + k] for k, name in enumerate(LAYERS)}
            each = [layers.layer(k, names, drive.sigma, ratio) for k in range(len(LAYERS))]
            gradient, sigma = layers.gradient(names, drive.sigma, ratio)
            own = table.soc_beyond(drive.values[:, :, 0])
            if not table.two_phase.any():
                own = own + table.bend(drive.values[:, :, 0], PROFILE_VARIANCE * (gradient**2 - sigma**2))
            mean = np.mean([soc for soc, _, _ in each], axis=0)
            found = (own - mean, gradient, sigma / 2.0, 4.0 * np.clip(mean, 0, 1) * (1.0 - np.clip(mean, 0, 1)))
            for part, values in zip(parts, found, strict=True):
                part.append(values)
        off, gradient, sigma, inner = (np.concatenate(part) for part in parts)
        known = np.isfinite(off) & np.isfinite(gradient) & np.isfinite(sigma)
        off, gradient, sigma, inner = (np.where(known, values, 0.0) for values in (off, gradient, sigma, inner))
        count = np.maximum(known.sum(axis=0), 1)
        doubt = (sigma**2).sum(axis=0) / count / USUAL_TILT**2
        self.tilt = (off * gradient).sum(axis=0) / np.maximum((gradient**2).sum(axis=0) + doubt, 1e-12)
        self.left = np.sqrt(((off - self.tilt * gradient) ** 2).sum(axis=0) / np.maximum((inner**2).sum(axis=0), 0.5))


def layers_row(mix: Mix, index: int, parts: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Curves of the particle's layers beside the `weights` (4, 4) that make their contrasts of those measured, and how
    `unsure` these leave a gradient; None when a layer has no curve.
    """
    names = ("contrast_knots", "soc_knots", "soc_sigma_knots")
    curves = [{key: part[key] for key in names} for part in parts if part is not None and part["contrast_knots"]]
    if len(curves) < len(LAYERS):
        return None
    mixed = {"weights": np.round(mix.weights[index], 6).tolist(), "unsure": round(float(mix.unsure[index]), 6)}
    return mixed | dict(zip(LAYERS, curves, strict=True))


def _grouped(places: list[tuple[float, Anchor]]) -> list[list[tuple[float, Anchor]]]:
    """Rests at nearly the same fraction together, every other anchor alone; by rising fraction."""
    width = BIN_FRACTION
    while True:
        groups: list[list[tuple[float, Anchor]]] = []
        for place, anchor in places:
            last = next((group for group in reversed(groups) if group[0][1].rest), None) if anchor.rest else None
            if last is not None and place - last[0][0] <= width:
                last.append((place, anchor))
            else:
                groups.append([(place, anchor)])
        rests = sum(group[0][1].rest for group in groups)
        if rests <= MAX_ANCHORS:
            return groups
        width *= 2.0


def phase_spread(
    contrast: np.ndarray, sigma: np.ndarray, discharged: np.ndarray, charged: np.ndarray, dead: np.ndarray
) -> float:
    """Distance between the quartiles of the particles' fractions between their ends; NaN when it tells nothing."""
    span = charged - discharged
    good = np.isfinite(contrast) & np.isfinite(span) & (np.abs(span) > FOLD_SIGMAS * sigma) & ~dead
    if good.sum() < MIN_POPULATION:
        return float("nan")
    fraction = np.clip((contrast[good] - discharged[good]) / span[good], 0.0, 1.0)
    if not 0.25 < fraction.mean() < 0.75:
        return float("nan")
    low, high = np.quantile(fraction, [0.25, 0.75])
    return float(high - low)


def _nearest(ends: list[tuple[float, Anchor]], to: float) -> list[tuple[float, Anchor]]:
    """The last four of those about as near as the nearest."""
    least = min((abs(place - to) for place, _ in ends), default=0.0)
    return [(place, end) for place, end in ends if abs(place - to) <= least + BEYOND][-4:]


def _mean_end(ends: list[tuple[float, Anchor]], mix: Mix) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean fraction and (5, P) contrast at one end, and its standard deviation: noise, or how much it differed from
    cycle to cycle.
    """
    contrast = np.stack([mix.series(end.contrast, end.layers) for _, end in ends])
    mean = finite_mean(contrast)
    noise2 = finite_mean(np.stack([mix.noise(end.sigma) for _, end in ends]) ** 2)
    scatter2 = finite_mean((contrast - mean) ** 2)
    return float(np.mean([place for place, _ in ends])), mean, np.sqrt(np.fmax(noise2, scatter2))
