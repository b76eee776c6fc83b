"""Reaction rates at potential steps: under one held voltage, particles at equal charge feel the same overpotential.

A held current fixes the particles' mean rate, whatever they are made of; a held voltage lets each react at its own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.photometry.curves import HalfCurves, first_crossing
from daemon.photometry.cycles import SocOf
from daemon.photometry.soc import SLOW_C_RATE, Window
from kernels.electrode import THERMAL_V

HOLD_V = 0.003
"""A voltage is held while its samples stay this close."""
STEP_V = 0.010
"""A hold begins with a step of at least this much."""
FLOWS_SHARE = 0.02
"""Less than this share of the half's largest current all along is a rest, not a hold."""
MIN_HOLD_POINTS = 8
MAX_HOLDS = 32
LOW, HIGH = 0.2, 0.6
"""The rate is read between these shares of the way of the median particle: behind the step, before the end."""
WAY_POINTS = 9
"""At so many charges between these the equilibrium voltage is asked for."""
MIN_WAY = 0.02
"""A step after which the median particle's charge moves less tells no rates."""
SETTLED_SHARE = 0.05
"""A hold ends at equilibrium when its current fell below this share of its largest, and below C/20."""
SETTLED_C_RATE = SLOW_C_RATE
REST_MIN_S, REST_DRIFT_V = 60.0, 0.001
NEAR_GAP = 0.1
WIDEST_GAP = 0.25
"""Equilibrium voltages farther apart in charge say nothing of what lies between."""
MAX_POINTS = 256
MIN_PARTICLES = 5


@dataclass(frozen=True)
class Hold:
    """A stretch of held voltage behind a step."""

    start_t_s: float
    stop_t_s: float
    voltage_v: float
    settled: bool
    charge_mah: float
    """Net charge at its end."""


@dataclass(frozen=True)
class StepRates:
    """What the particles did after one potential step, (P,) each; NaN for those that did not pass both levels."""

    cycle: int
    half: str
    step: int
    t_s: float
    voltage_v: float
    overpotential_v: float
    """Held voltage minus equilibrium voltage, the one at which the way takes as long; NaN where that is not known."""
    soc_from: float
    soc_to: float
    """Charges between which rates are read."""
    rate_per_h: np.ndarray
    sigma_per_h: np.ndarray

    def rows(self, particle_id: np.ndarray) -> list[dict[str, Any]]:
        """Rows of the `rates` table for particles with a rate."""
        place = {
            "cycle": self.cycle, "half": self.half, "step": self.step, "t_s": self.t_s, "voltage_v": self.voltage_v,
            "overpotential_v": self.overpotential_v, "soc_from": self.soc_from, "soc_to": self.soc_to,
        }  # fmt: skip
        known = np.flatnonzero(np.isfinite(self.rate_per_h)).tolist()
        return [
            {
                "particle_id": int(particle_id[index]),
                **place,
                "rate_per_h": float(self.rate_per_h[index]),
                "rate_sigma_per_h": float(self.sigma_per_h[index]),
            }
            for index in known
        ]


class Kinetics:
    """Finds potential steps half by half and keeps the equilibrium voltages that rests and settled holds have shown."""

    def __init__(self, capacity_mah: float | None) -> None:
        self._capacity_mah = capacity_mah
        self._equilibria: deque[tuple[float, float]] = deque(maxlen=MAX_POINTS)
        """(net charge in mAh, voltage)."""
        self._slow: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        """Net charges, rising, and voltages of the last slow half of either sign."""

    def add(self, curves: HalfCurves, soc: SocOf, window: Window | None, members: np.ndarray) -> list[StepRates]:
        """Rates of a finished half's steps; `members` (P,) bool take part. `curves` begin where the last left."""
        capacity_mah = self._capacity_mah or (window.capacity_mah if window else None)
        holds = find_holds(curves, capacity_mah)
        self._learn(curves, holds, capacity_mah)
        if window is None:
            return []
        found = (self._rates(curves, hold, number, soc, window, members) for number, hold in enumerate(holds))
        return [rates for rates in found if rates is not None]

    def equilibrium_v(self, soc: float, window: Window) -> float:
        """Voltage at rest at a charge fraction; NaN where nothing near it was seen.

        By the two nearest rests or settled holds; where these are far apart, by the mean of a slow charge and a slow
        discharge.
        """
        seen = self._nearest(soc, window)
        slow = [np.interp(soc, window.fraction(charge), volts, np.nan, np.nan) for charge, volts in self._slow.values()]
        if np.isnan(seen[0]) or seen[1] > NEAR_GAP:
            both = float(np.mean(slow)) if len(slow) == 2 else float("nan")
            if np.isfinite(both):
                return both
        return seen[0] if seen[1] <= WIDEST_GAP else float("nan")

    def _nearest(self, soc: float, window: Window) -> tuple[float, float]:
        """Voltage between the nearest equilibria below and above, and how far apart those are."""
        if not self._equilibria:
            return float("nan"), float("inf")
        charge, volts = np.array(self._equilibria).T
        fraction = window.fraction(charge)
        below, above = fraction <= soc, fraction >= soc
        if not below.any() or not above.any():
            return float("nan"), float("inf")
        low = np.flatnonzero(below)[fraction[below].argmax()]
        high = np.flatnonzero(above)[fraction[above].argmin()]
        gap = float(fraction[high] - fraction[low])
        share = (soc - fraction[low]) / gap if gap > 0 else 0.0
        return float(volts[low] + share * (volts[high] - volts[low])), gap

    def _learn(self, curves: HalfCurves, holds: list[Hold], capacity_mah: float | None) -> None:
        if capacity_mah and curves.half.mean_current_ma <= SLOW_C_RATE * capacity_mah and not holds:
            driven = curves.driven & np.isfinite(curves.charge_mah)
            order = np.argsort(curves.charge_mah[driven], kind="stable")
            self._slow[curves.half.sign] = (curves.charge_mah[driven][order], curves.voltage_v[driven][order])
        self._equilibria.extend((hold.charge_mah, hold.voltage_v) for hold in holds if hold.settled)
        for rest in curves.half.rests:
            length = rest.end_t_s - rest.start_t_s
            ends = np.array([rest.end_t_s - 0.2 * length, rest.end_t_s - 1e-3 * length])
            volts, _, charge = curves.half.interpolate(ends)
            if length >= REST_MIN_S and abs(volts[1] - volts[0]) < REST_DRIFT_V and np.isfinite(charge[1]):
                self._equilibria.append((float(charge[1]), float(volts[1])))

    def _rates(
        self, curves: HalfCurves, hold: Hold, number: int, soc: SocOf, window: Window, members: np.ndarray
    ) -> StepRates | None:
        first = max(int(np.searchsorted(curves.t_s, hold.start_t_s, side="right")) - 1, 0)
        last = int(np.searchsorted(curves.t_s, hold.stop_t_s, side="right"))
        if last - first < MIN_HOLD_POINTS:
            return None
        part = slice(first, last)
        charge = np.stack([soc(row) for row in curves.smooth[part]])
        charge = np.where(members & curves.known, charge, np.nan)
        ends = [row[np.isfinite(row)] for row in charge[[0, -1]]]
        start, end = (float(np.median(row)) if len(row) >= MIN_PARTICLES else float("nan") for row in ends)
        if not abs(end - start) >= MIN_WAY:
            return None
        t_s, side = curves.t_s[part], np.sign(end - start)
        low, high = (start + share * (end - start) for share in (LOW, HIGH))
        signed = np.nan_to_num((charge - low) * side, nan=-1.0), np.nan_to_num((charge - high) * side, nan=-1.0)
        span_s = first_crossing(t_s, signed[1]) - first_crossing(t_s, signed[0])
        rate = abs(high - low) / np.where(span_s > 0, span_s, np.nan) * 3600.0
        steepness = _steepness(curves, part, charge, low, high)
        sigma_s = np.sqrt(2.0) * curves.sigma * steepness / (rate / 3600.0)
        way = np.linspace(low, high, WAY_POINTS)
        over_v = overpotential(hold.voltage_v - np.array([self.equilibrium_v(float(at), window) for at in way]))
        return StepRates(
            curves.half.cycle, curves.half.name, number, hold.start_t_s, hold.voltage_v, over_v,
            float(low), float(high), rate, rate * sigma_s / span_s,
        )  # fmt: skip


def overpotential(over_v: np.ndarray) -> float:
    """The one overpotential at which a way takes as long as under `over_v` (n,), in V, at even charges on it.

    Symmetric Butler-Volmer kinetics and even exchange: the harmonic mean of the sinh. The middle one where the drive
    changes its sign on the way (the equilibrium voltage is not known so well) or an end is not known.
    """
    middle = float(over_v[len(over_v) // 2])
    if not (np.isfinite(over_v).all() and (over_v * np.sign(middle) > 0).all()):
        return middle
    drive = np.sinh(np.minimum(np.abs(over_v) / (2.0 * THERMAL_V), 30.0))
    slowness = np.trapezoid(1.0 / drive) / (len(drive) - 1)
    return float(np.sign(middle) * 2.0 * THERMAL_V * np.arcsinh(1.0 / slowness))


def _steepness(curves: HalfCurves, part: slice, charge: np.ndarray, low: float, high: float) -> np.ndarray:
    """(P,) |d soc/d contrast| between two charges."""
    columns = np.arange(charge.shape[1])
    away = [np.abs(np.nan_to_num(charge - level, nan=np.inf)).argmin(axis=0) for level in (low, high)]
    contrast = curves.smooth[part]
    change = np.abs(contrast[away[1], columns] - contrast[away[0], columns])
    return np.abs(charge[away[1], columns] - charge[away[0], columns]) / np.where(change > 0, change, np.nan)


def find_holds(curves: HalfCurves, capacity_mah: float | None) -> list[Hold]:
    """Stretches of held voltage behind steps in a half's record, the first `MAX_HOLDS`."""
    samples = np.array(curves.half.samples)
    if len(samples) < MIN_HOLD_POINTS:
        return []
    t_s, volts, current, charge = samples.T
    jumps = np.flatnonzero(np.abs(np.diff(volts)) >= STEP_V) + 1
    edges = np.unique([0, *jumps.tolist(), len(volts)])
    holds: list[Hold] = []
    for begin, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        inside = slice(begin + 1 if stop - begin > MIN_HOLD_POINTS else begin, stop)
        level = float(np.median(volts[inside]))
        size = np.abs(current[inside])
        steady = np.abs(volts[inside] - level).max(initial=0.0) <= HOLD_V
        flows = size.max(initial=0.0) > FLOWS_SHARE * np.abs(current).max() and np.ptp(size) > 0.2 * size.max()
        if stop - begin < MIN_HOLD_POINTS or not steady or not flows:
            continue
        least = SETTLED_C_RATE * capacity_mah if capacity_mah else np.inf
        settled = bool(size[-1] <= min(SETTLED_SHARE * size.max(), least))
        start_s = float(t_s[begin - 1]) if begin else curves.half.start_t_s
        holds.append(Hold(start_s, float(t_s[stop - 1]), level, settled, float(charge[stop - 1])))
    return holds[:MAX_HOLDS]


def step_spread(rates: list[StepRates]) -> tuple[float, float, int]:
    """Spread of the particles' rates after potential steps over their mean, the variance of measuring removed.

    Returns (spread, its standard deviation, number of particles), the step with most particles; NaN below five.
    """
    if not rates:
        return float("nan"), float("nan"), 0
    most = max(rates, key=lambda step: int(np.isfinite(step.rate_per_h).sum()))
    return spread(most.rate_per_h, most.sigma_per_h)


def spread(rate: np.ndarray, sigma: np.ndarray) -> tuple[float, float, int]:
    """Coefficient of variation of (P,) rates without that of measuring them, its standard deviation, and how many.

    The standard deviation is the sampling error of a variance, with the fourth moment seen (delta method), and that of
    the mean.
    """
    good = np.isfinite(rate) & np.isfinite(sigma)
    count = int(good.sum())
    if count < MIN_PARTICLES:
        return float("nan"), float("nan"), count
    values, mean = rate[good], float(rate[good].mean())
    away = values - mean
    seen = float(np.square(away).sum() / (count - 1))
    variance = seen - float(np.mean(np.square(sigma[good])))
    if mean <= 0:
        return float("nan"), float("nan"), count
    cv = float(np.sqrt(max(variance, 0.0))) / mean
    influence = np.square(away) / (2.0 * max(variance, seen * 1e-2)) - away / mean
    return cv, float(max(cv, np.sqrt(seen) / mean * 0.1) * influence.std(ddof=1) / np.sqrt(count)), count
