"""Ageing over many cycles: how well fade is measured, and which failures are announced in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daemon.events import EventKind
from daemon.photometry.science import Science
from daemon.photometry.update import ScienceUpdate
from tests.accuracy.effort import Effort
from tests.accuracy.electrode import Electrode, Optics, Recorder, Step, drive, science_of
from tests.accuracy.precursors import C_RATES, Focus, Precursors
from tests.bench.figures import Figure, at_least, at_most

TITLE = "Fade, and warnings before failure"
INTRO = """\
150 particles a run (the electrode of the parts above), 50 cycles at 1C, ten of them at 2C in between, an exposure a
minute. All fade by 0.05 to 0.3 % a cycle and slow down by 0.3 %, with 0.2 % of jitter; 15 % crack once (3 to 25 % of
brightness, half as fast again for a while, one in five unseen by the detector) and live on. 10 % fail: over 10 to 24
cycles their loss accelerates to as much as 20 %, their rate constants fall by up to 3 to 6 times, on discharge by up to
60 % more, each to a degree of its own and one of the three often not at all; half crack before. At the end they are
disconnected. A failure counts as warned of when its first warning comes 5 cycles ahead or earlier; a false flag is any
warning of a particle that does not fail. Thresholds were chosen on other seeds. The plain pipeline warns when the swing
of two cycles running falls short of the particle's own first by 10 %."""
COUNT = 150
CYCLES = 50
AHEAD = 5


def run(effort: Effort) -> list[Figure]:
    """Recall, false flags, lead time, and the fade itself."""
    runs = [Aged(seed) for seed in effort.seeds]
    lead = np.concatenate([one.lead[one.fails] for one in runs])
    told = np.concatenate([one.first_told < CYCLES + 1 for one in runs])
    fails = np.concatenate([one.fails for one in runs])
    cracked = np.concatenate([one.cracked for one in runs]) & ~fails
    plain_lead = np.concatenate([one.plain_lead[one.fails] for one in runs])
    plain_told = np.concatenate([one.plain_first < CYCLES + 1 for one in runs])
    ahead, in_time = lead[lead > 0], 100 * np.mean(lead >= AHEAD)
    return [
        at_least(f"failures warned of {AHEAD} cycles ahead or earlier, %", in_time, 80.0, digits=1),
        Figure("  by the plain pipeline", f"{100 * np.mean(plain_lead >= AHEAD):.1f} %", ""),
        Figure("  warned of before failure at all", f"{100 * np.mean(lead > 0):.1f} % of {int(fails.sum())}", ""),
        Figure("  lead time, median (quartiles)", _quartiles(ahead, "cycles"), ""),
        at_most("false flags, % of the particles that do not fail", 100 * float(told[~fails].mean()), 5.0,
                plain=f"{100 * plain_told[~fails].mean():.1f}"),
        Figure("  of the cracked that lived on", f"{100 * told[cracked].mean():.1f} % of {int(cracked.sum())}", ""),
        Figure("  warnings in a run without failing particles", _calm(effort), ""),
        *_remaining(runs),
        *_risks(runs),
        *_fade(runs),
    ]  # fmt: skip


@dataclass
class Fate:
    """What befalls the particles, (P,) each."""

    fails: np.ndarray
    onset: np.ndarray
    lasts: np.ndarray
    """Cycles from the onset to the failure."""
    loss: np.ndarray
    slowing: np.ndarray
    lopsided: np.ndarray
    fade: np.ndarray
    crack_cycle: np.ndarray
    """CYCLES: none."""
    crack_step: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, failing: float) -> Fate:
        fails = rng.random(COUNT) < failing
        onset, lasts = rng.integers(8, 24, COUNT), rng.integers(10, 25, COUNT)
        weights = rng.uniform(0.3, 1.0, (COUNT, 3))
        weights[np.arange(COUNT), rng.integers(0, 3, COUNT)] *= rng.integers(0, 2, COUNT)
        cracks = np.where(fails, rng.random(COUNT) < 0.5, rng.random(COUNT) < 0.15)
        when = np.where(fails, onset + rng.integers(0, 5, COUNT), rng.integers(3, CYCLES, COUNT))
        return cls(
            fails, onset, lasts, 0.2 * weights[:, 0], np.log(rng.uniform(3, 6, COUNT)) * weights[:, 1],
            0.6 * weights[:, 2], np.exp(rng.uniform(np.log(0.0005), np.log(0.003), COUNT)),
            np.where(cracks, when, CYCLES), -np.exp(rng.uniform(np.log(0.03), np.log(0.25), COUNT)),
        )  # fmt: skip

    @property
    def failure(self) -> np.ndarray:
        """Cycle in which each is disconnected."""
        return np.where(self.fails, self.onset + self.lasts, 10**6)

    def way(self, cycle: int) -> np.ndarray:
        """0 at the onset to 1 at the failure."""
        return np.where(self.fails, np.clip((cycle - self.onset) / self.lasts, 0.0, 1.0), 0.0)


class Uncalibrated(Science):
    """Ageing asks for no charge states, whose calibrations take most of a run's time."""

    def _calibrate(self, update: ScienceUpdate) -> None:
        pass


class Aged:
    """One seed's run."""

    def __init__(self, seed: int, failing: float = 0.10, *, still: bool = False) -> None:
        """`still`: nothing but fates, without noise, jitter and cracks."""
        rng = np.random.default_rng([seed, 33])
        self.optics, self._unrest = Optics.draw(rng, COUNT), 0.0 if still else 1.0
        self.recorder = self._prepare(rng, failing)
        if still:
            self.fate.crack_cycle[:] = CYCLES
            self.optics.flux0_e = self.optics.flux0_e * 1e4
        self._scale = np.ones(COUNT)
        self._k = 3.0 * np.exp(rng.normal(0, 0.4, COUNT))
        share = self.optics.area_px**1.5
        self._share = share / share.sum()
        electrode = Electrode(self._k, self._share, np.full(COUNT, 0.02))
        self._true_gain: list[np.ndarray] = []
        drive(electrode, self.recorder, Step(duration_s=600, frame_s=60), 0)
        for cycle in range(CYCLES):
            self._cycle(electrode, cycle, rng)
        self.fails, self.cracked = self.fate.fails, self.fate.crack_cycle < CYCLES
        self._read()

    def _prepare(self, rng: np.random.Generator, failing: float) -> Recorder:
        self.fate: Fate | Precursors = Fate.draw(rng, failing)
        return Recorder(self.optics, rng)

    def _jitter(self, rng: np.random.Generator, sigma: float) -> np.ndarray:
        return np.exp(self._unrest * rng.normal(0, sigma, COUNT))

    def _cycle(self, electrode: Electrode, cycle: int, rng: np.random.Generator) -> None:
        fate, way = self.fate, self.fate.way(cycle)
        gone = cycle >= fate.failure
        gain = (1.0 - fate.fade) ** cycle * (1.0 - fate.loss * way**2.5) * self._jitter(rng, 0.002)
        gain = np.where(gone, 0.0, gain)
        since = cycle - fate.crack_cycle
        boost = 1.0 + 0.5 * np.where(since >= 0, np.exp(-np.maximum(since, 0) / 4.0), 0.0)
        electrode.k_per_h = self._k * 0.997**cycle * np.exp(-fate.slowing * way**1.5) * boost
        electrode.k_per_h = electrode.k_per_h * self._jitter(rng, 0.01)
        electrode.discharge_gain = 1.0 - fate.lopsided * way**1.5
        electrode.share = np.where(gone, 0.0, self._share * gain)
        self._true_gain.append(gain * self._scale)
        c_rate = 2.0 if 20 <= cycle < 30 else 1.0
        capacity = electrode.share.sum()
        for sign in (1, -1):
            step = Step(c_rate=sign * c_rate * capacity, until_v=4.15 if sign > 0 else 3.5, frame_s=60 / c_rate)
            if sign < 0:
                self._crack(cycle)
            drive(electrode, self.recorder, step, cycle, None, gain)

    def _crack(self, cycle: int) -> None:
        """Brightness steps between charge and discharge; four of five are seen."""
        for index in np.flatnonzero(self.fate.crack_cycle == cycle).tolist():
            self.recorder.crack(index, float(self.fate.crack_step[index]), seen=index % 5 > 0)
            self._scale[index] *= 1.0 + self.fate.crack_step[index]

    def _read(self) -> None:
        self.outcome = outcome = science_of(self.recorder, science=Uncalibrated)
        ends = sorted({(row["t_s"], cycle) for (_, cycle), row in outcome.health.items()})
        self.first_told = np.full(COUNT, 10**6)
        self.events = [event for event in outcome.events if event.kind is EventKind.WARNING]
        cycle_of = dict(ends)
        for event in self.events:
            place = event.particle_id - 1
            self.first_told[place] = min(self.first_told[place], cycle_of[event.t_s])
        failure = self.fate.failure
        self.lead = np.where(self.first_told < 10**6, failure - self.first_told, -(10**6))
        swing = np.array([outcome.column("swing", cycle, "charge") for cycle in range(CYCLES)])
        short = swing / swing[0] < 0.9
        self.plain_first = np.where(
            (short[1:] & short[:-1]).any(axis=0), (short[1:] & short[:-1]).argmax(axis=0) + 1, 10**6
        )
        self.plain_lead = np.where(self.plain_first < 10**6, failure - self.plain_first, -(10**6))
        self.retention = np.array([outcome.column("retention", cycle, "charge") for cycle in range(20)])
        self.true_retention = np.array(self._true_gain[:20]) / self._true_gain[0]


class Harder(Aged):
    """One seed's run of failures that announce themselves otherwise, for a shorter time, seen less steadily."""

    def _prepare(self, rng: np.random.Generator, failing: float) -> Recorder:
        self.fate = Precursors.draw(rng, COUNT, CYCLES, failing)
        self._focus, self._c_rate = Focus.draw(rng, COUNT), rng.choice(C_RATES, CYCLES)
        drift = rng.normal(0, 2e-5, COUNT)
        return Recorder(self.optics, rng, residual=3e-4 * self._unrest, drift_per_h=drift * self._unrest)

    def _cycle(self, electrode: Electrode, cycle: int, rng: np.random.Generator) -> None:
        fate = self.fate
        gone = cycle >= fate.failure
        gain = (1.0 - fate.fade) ** cycle * fate.gain(cycle) * self._jitter(rng, 0.002)
        gain = np.where(gone, 0.0, gain)
        electrode.k_per_h = self._k * 0.997**cycle * np.exp(-fate.slowing(cycle)) * self._jitter(rng, 0.01)
        electrode.discharge_gain = fate.discharge_gain(cycle)
        electrode.share = np.where(gone, 0.0, self._share * gain)
        self._true_gain.append(gain * self._scale)
        c_rate, capacity = float(self._c_rate[cycle]), electrode.share.sum()
        seen = gain * (1.0 + self._unrest * self._focus.wander())
        for sign in (1, -1):
            electrode.shift_v = sign * fate.hysteresis_v(cycle)
            step = Step(c_rate=sign * c_rate * capacity, until_v=4.15 if sign > 0 else 3.5, frame_s=60 / c_rate)
            if sign < 0:
                self._crack(cycle)
            drive(electrode, self.recorder, step, cycle, None, seen)


def _quartiles(values: np.ndarray, unit: str) -> str:
    if not len(values):
        return "none"
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.0f} ({low:.0f} to {high:.0f}) {unit}"


def _calm(effort: Effort) -> str:
    runs = [Aged(seed + 5000, failing=0.0) for seed in effort.seeds[:2]]
    return ", ".join(str(len({event.particle_id for event in one.events})) for one in runs) + f" of {COUNT}"


def _remaining(runs: list[Aged]) -> list[Figure]:
    """Told lead times against the true ones, of warnings that tell one."""
    error, inside = [], []
    for one in runs:
        for event in one.events:
            place = event.particle_id - 1
            cycle = one.first_told[place]
            row = one.outcome.health[event.particle_id, cycle]
            true = one.fate.failure[place] - cycle
            if one.fails[place] and np.isfinite(row["lead_cycles"]):
                error.append(row["lead_cycles"] / true)
                high = row["lead_hi_cycles"] if np.isfinite(row["lead_hi_cycles"]) else np.inf
                inside.append(row["lead_lo_cycles"] <= true <= high)
    if not error:
        return []
    return [
        Figure("cycles told until 80 % is left over those until failure, median", f"{np.median(error):.1f}", ""),
        Figure("  contact lost within the interval told", f"{100 * np.mean(inside):.0f} % of {len(inside)}", ""),
    ]  # fmt: skip


def _risks(runs: list[Aged]) -> list[Figure]:
    """Of the particles warned of, the mean risk told, and the share that failed."""
    risk, failed = [], []
    for one in runs:
        for event in one.events:
            risk.append(event.magnitude)
            failed.append(one.fails[event.particle_id - 1])
    if not risk:
        return []
    return [
        Figure("risk told with warnings, mean; share that failed", f"{np.mean(risk):.2f}; {np.mean(failed):.2f}", "")
    ]


def _fade(runs: list[Aged]) -> list[Figure]:
    error = np.concatenate([(one.retention - one.true_retention)[:, ~one.fails & ~one.cracked].ravel() for one in runs])
    return [Figure("retention at one rate: error, rms", f"{100 * np.sqrt(np.nanmean(error**2)):.2f} %", "")]
