"""Kinetic models: how well rates and diffusivities of particles are recovered from a run's charges and cell record."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.insight.models import Models, fit_models
from daemon.insight.run_data import RunData
from hw.twin.electrode import Electrode
from hw.twin.sample import make_sample
from hw.twin.settings import SampleOptions
from tests.accuracy.effort import Effort
from tests.bench.figures import Figure, at_most, between
from tests.electrode import PROGRAM, Record, Spheres, cycled
from tests.electrode_run import write_run

TITLE = "Kinetic models of particles"
INTRO = """\
Twelve particles in a run file: charge and discharge at C/20, 1C and 2C with rests, contrasts with a noise of 0.001 of
SoC a frame, calibrations as given. The physics is of two kinds: spheres in shells with Butler-Volmer kinetics,
written for these tests, and the electrode of the simulated instrument, whose equations are those that are fitted. ln
k has a standard deviation of 0.4. The truth of a rate is the exchange rate at SoC 0.5, contact resistance included.
"Relative" is after the median of all particles' errors is taken off: what comparisons rest on. For two phases only
that is compared: the absolute rate is of the transformation, by definition."""
PARTICLES = 12
STEPS = 240
LIMITS_V = {"nmc": (3.2, 4.35), "graphite": (2.6, 3.42), "lfp": (3.0, 3.8)}
RADIUS_UM = 1.5


@dataclass(frozen=True)
class Case:
    """A run's fits and their truth: (P,) ln k in 1/h and tau in s, of those that are alive."""

    models: Models
    ln_rate: np.ndarray
    tau_s: np.ndarray

    def of(self, name: str) -> np.ndarray:
        """(P,) of the fits."""
        return np.array([getattr(fit, name) for fit in self.models.results])

    @property
    def error(self) -> np.ndarray:
        """(P,) of ln k."""
        return np.log(self.of("rate_per_h")) - self.ln_rate


def run(effort: Effort) -> list[Figure]:
    """Both kinds of electrode."""
    seeds = effort.seeds[: 1 if len(effort.seeds) < 3 else 3]
    figures = []
    for name in ("spheres", "graphite", "nmc"):
        figures += _figures(name, [_case(name, seed) for seed in seeds])
    switching = [_case("lfp", seed) for seed in seeds]
    away = np.concatenate([one.error - np.nanmedian(one.error) for one in switching])
    spread = np.array([one.models.rate_spread / one.ln_rate.std(ddof=1) for one in switching])
    return [
        *figures,
        at_most("two phases (lfp): relative rate, median error", 100 * float(np.nanmedian(np.abs(away))), 10, "%", 1),
        between("  spread of ln k over the true one", float(np.median(spread)), 0.9, 1.1),
        Figure("  known of all", f"{100 * np.mean(np.isfinite(away)):.0f} %", ""),
    ]


def _figures(name: str, cases: list[Case]) -> list[Figure]:
    error = np.concatenate([one.error for one in cases])
    away = np.concatenate([one.error - np.nanmedian(one.error) for one in cases])
    low, high = (np.log(np.concatenate([one.of(f"rate_{end}_per_h") for one in cases])) for end in ("lo", "hi"))
    truth = np.concatenate([one.ln_rate for one in cases])
    tau = np.concatenate([np.log((RADIUS_UM * 1e-6) ** 2 / one.of("diffusivity_m2_s") / one.tau_s) for one in cases])
    spread = np.array([one.models.rate_spread / one.ln_rate.std(ddof=1) for one in cases])
    known = np.isfinite(error)
    return [
        at_most(f"{name}: rate at SoC 0.5, median error", 100 * float(np.median(np.abs(error[known]))), 10, "%", 1),
        at_most("  relative, median error", 100 * float(np.median(np.abs(away[known]))), 10, "%", 1),
        between("  spread of ln k over the true one", float(np.median(spread)), 0.9, 1.1),
        between(
            "  share of 90 % intervals that hold the truth", float(np.mean((low < truth) & (truth < high))), 0.8, 1.0
        ),
        at_most("  diffusivity, median error", 100 * float(np.nanmedian(np.abs(tau))), 10, "%", 1),
        Figure("  rates known of all", f"{100 * np.mean(known):.0f} %", ""),
    ]


def _case(name: str, seed: int) -> Case:
    record, ln_rate, tau_s = _spheres(seed) if name == "spheres" else _twin(name, seed)
    kinds = ["end_members" if name == "lfp" else "monotone"] * record.soc.shape[1]
    with tempfile.TemporaryDirectory() as folder:
        path = write_run(Path(folder), record, seed=seed, kinds=kinds, diameter_um=2 * RADIUS_UM)
        return Case(fit_models(RunData.load(path)), ln_rate, tau_s)


def _spheres(seed: int) -> tuple[Record, np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 5])
    ln_rate = np.log(4.0) + 0.4 * rng.standard_normal(PARTICLES)
    tau_s = 800.0 * np.exp(0.3 * rng.standard_normal(PARTICLES))
    return cycled(Spheres(np.exp(ln_rate), tau_s), steps=STEPS), ln_rate, tau_s


def _twin(name: str, seed: int) -> tuple[Record, np.ndarray, np.ndarray]:
    options = SampleOptions(
        seed=seed, particles=PARTICLES, material=name, kinetics_field_sigma=0.0, cracks_per_h=1e-9, dead_fraction=0.0,
        radius_um=RADIUS_UM,
    )  # fmt: skip
    electrode = Electrode(make_sample(options))
    sample, stuff = electrode.sample, electrode.sample.material
    rows = []
    for c_rate, hours in PROGRAM:
        electrode.set_current(c_rate * options.capacity_mah) if c_rate else electrode.rest()
        low, high = LIMITS_V[name]
        for step in range(STEPS):
            electrode.advance(0.01 if step == 0 else hours * 1.2 * 3600.0 / STEPS)
            soc, surface = (stuff.soc(c) for c in (electrode.state.c, electrode.state.c_surface))
            rows.append((electrode.t_s, electrode.voltage_v, electrode.current_ma, soc, 1.5 * (surface - soc)))
            past = electrode.voltage_v >= high or electrode.soc > 0.99
            if (c_rate > 0 and past) or (c_rate < 0 and (electrode.voltage_v <= low or electrode.soc < 0.01)):
                break
    middle = np.interp(stuff.content(0.5), np.linspace(0, 1, len(stuff.activity)), stuff.activity)
    exchange = sample.k_hz * middle
    exchange = exchange / (1 + exchange * sample.resistance_s) / abs(stuff.discharged - stuff.charged)
    rate = sample.k_hz if name == "lfp" else exchange
    record = Record(*(np.array(column) for column in zip(*rows, strict=True)))
    return record, np.log(3600.0 * rate), sample.diffusion_s
