"""How a particle's reaction rate answers to overpotential, from the potential steps of a run.

Every step tells particles' rates between the same two charges under one held voltage (`daemon.photometry.kinetics`). By
Butler and Volmer, symmetric, a rate at overpotential eta is

    rate = g (2 R T / F) sinh(F eta / 2 R T),

with g = d(rate)/d(eta) at eta = 0. Rates of a particle are g times what all particles share at a step (how fast
exchange is at its charges, what is not symmetric, the error of its overpotential) and scatter of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daemon.insight.run_data import Columns, RunData
from daemon.photometry.derive import Z90
from daemon.photometry.response import LAG_LENGTH
from kernels.electrode import THERMAL_V

MIN_OVERPOTENTIAL_V = 0.003
"""Steps driven by less hang on the error of the equilibrium voltage."""
MIN_ENSEMBLE = 5
"""Particles with a rate that a step needs; the `rates` table asks for as many."""
OVERPOTENTIAL_SIGMA_V = 0.001
"""... which is about this: rests end within a millivolt, slow halves are apart by more but evenly."""
ONE_STEP_SIGMA = 0.3
"""Of ln g where one step is all there is: what other charges, or kinetics that are not symmetric, would have told."""
ROUNDS = 8
ALIKE = 4.0
"""A particle's own scatter counts against that of all as its steps against so many."""


@dataclass(frozen=True)
class StepSlopes:
    """(P,) slopes in 1/(h V) of a particle's own charge, NaN where unknown; `lo`, `hi` bound 90 %."""

    slope_per_h_v: np.ndarray
    slope_lo_per_h_v: np.ndarray
    slope_hi_per_h_v: np.ndarray
    relative_sigma: np.ndarray
    """(P,) of ln(slope), without what is common to all: what a comparison between particles rests on."""
    steps: np.ndarray
    """(P,) int: of how many steps."""
    overpotential_v: tuple[float, float]
    """Least and largest of the steps used, sign left out; NaN without any."""
    reason: str
    """Why nothing is known; empty when something is."""


def step_slopes(rates: Columns, particle_id: np.ndarray, soc_sigma: np.ndarray | None = None) -> StepSlopes:
    """From the columns of the `rates` table, for the particles `particle_id` (P,); `soc_sigma` (P,) is how far their
    calibrations may be off, which `rates` does not hold.
    """
    if not len(rates["particle_id"]):
        return _unknown(len(particle_id), "no potential step was seen")
    eta_v, rate, sigma = _by_step(rates, particle_id)
    told = np.abs(eta_v) >= MIN_OVERPOTENTIAL_V
    told &= np.isfinite(rate).sum(axis=1) >= MIN_ENSEMBLE
    if not told.any():
        why = "the steps' overpotential is not known or too small, or too few particles passed"
        return _unknown(len(particle_id), why)
    eta_v, rate, sigma = np.abs(eta_v[told]), rate[told], sigma[told]
    drive = 2.0 * THERMAL_V * np.sinh(np.minimum(eta_v / (2.0 * THERMAL_V), 30.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        log_g = np.log(rate / drive[:, None])
        noise = np.where(np.isfinite(log_g), sigma / rate, np.nan)
    step, own = _parted(log_g)
    scatter = _scatter(log_g - step[:, None] - own, noise)
    count = np.isfinite(log_g).sum(axis=0)
    variance = np.where(np.isfinite(log_g), noise**2, 0.0).sum(axis=0) / np.maximum(count, 1) ** 2
    if soc_sigma is not None:
        variance = variance + (_of_curves(np.abs(rates["soc_to"] - rates["soc_from"])) * np.nan_to_num(soc_sigma)) ** 2
    relative = np.where(count > 0, np.sqrt(variance + scatter / np.maximum(count, 1)), np.nan)
    return _told(step, own, relative, count, eta_v)


def _of_curves(way: np.ndarray) -> float:
    """Relative error of a way in SoC for one of the calibration: what its two ends do not share."""
    width = float(np.median(way))
    return float(np.sqrt(2.0 * (1.0 - np.exp(-0.5 * (width / LAG_LENGTH) ** 2))) / width)


def soc_sigmas(run: RunData) -> np.ndarray:
    """(P,) how far each calibration may be off; NaN where there is none."""
    return np.array([(row or {}).get("soc_sigma") or np.nan for row in run.calibrations], float)


def _unknown(particles: int, why: str) -> StepSlopes:
    none = np.full(particles, np.nan)
    return StepSlopes(none, none, none, none, np.zeros(particles, int), (np.nan, np.nan), why)


def _by_step(rates: Columns, particle_id: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(S,) overpotentials, (S, P) rates and their sigmas; a step is told by its time."""
    times, row = np.unique(rates["t_s"], return_inverse=True)
    place = {int(identity): k for k, identity in enumerate(particle_id.tolist())}
    column = np.array([place.get(int(identity), -1) for identity in rates["particle_id"]], int)
    eta_v = np.full(len(times), np.nan)
    eta_v[row] = rates["overpotential_v"]
    values = np.full((2, len(times), len(place)), np.nan)
    good = (column >= 0) & (rates["rate_per_h"] > 0)
    for k, name in enumerate(("rate_per_h", "rate_sigma_per_h")):
        values[k, row[good], column[good]] = rates[name][good]
    return eta_v, values[0], values[1]


def _parted(log_g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a step has in common (S,), by medians in turns (Tukey's median polish), and each one's mean beyond (P,)."""
    own = np.zeros(log_g.shape[1])
    for _ in range(ROUNDS):
        step = _median((log_g - own).T)
        own = _median(log_g - step[:, None])
        own = own - np.nanmedian(own)
    known = np.isfinite(log_g)
    count = np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    own = np.where(known, log_g - step[:, None], 0.0).sum(axis=0) / count
    return step, own - np.nanmedian(own)


def _median(values: np.ndarray) -> np.ndarray:
    """Along the first axis of what is finite; NaN where nothing is."""
    found, some = np.full(values.shape[1:], np.nan), np.isfinite(values).any(axis=0)
    found[some] = np.nanmedian(values[:, some], axis=0)
    return found


def _scatter(left: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """(P,) variance of ln g from step to step beyond noise: a particle's own, drawn to all particles' as to `ALIKE`
    more steps; 0 where every particle has one step.
    """
    count = np.isfinite(left).sum(axis=0)
    freedom = np.maximum(count - 1.0, 0.0)
    if not freedom.any():
        return np.zeros(left.shape[1])
    beyond = np.where(np.isfinite(left), left**2, 0.0).sum(axis=0)
    expected = freedom * np.where(np.isfinite(noise), noise**2, 0.0).sum(axis=0) / np.maximum(count, 1)
    pooled = max(float((beyond - expected).sum() / freedom.sum()), 0.0)
    return np.asarray(np.maximum((beyond - expected + ALIKE * pooled) / (freedom + ALIKE), 0.0))


def _told(step: np.ndarray, own: np.ndarray, relative: np.ndarray, count: np.ndarray, eta_v: np.ndarray) -> StepSlopes:
    by_eta = np.sqrt(np.mean((OVERPOTENTIAL_SIGMA_V / (2.0 * THERMAL_V) / np.tanh(eta_v / (2.0 * THERMAL_V))) ** 2))
    apart = float(np.std(step, ddof=1)) if len(step) > 1 else ONE_STEP_SIGMA
    whole = np.sqrt(relative**2 + by_eta**2 + apart**2)
    middle = float(np.mean(step)) + own
    slope, low, high = (np.exp(middle + z * whole) for z in (0.0, -Z90, Z90))
    return StepSlopes(slope, low, high, relative, count, (float(eta_v.min()), float(eta_v.max())), "")
