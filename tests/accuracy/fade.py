"""Ageing over many cycles: how well fade is measured, and which failures are announced in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daemon.events import EventKind
from daemon.photometry.science import Science
from daemon.photometry.slices import Sliced
from tests.accuracy.ceiling import most_announced, sigma_of, signal_of, told_levels
from tests.accuracy.effort import Effort
from tests.accuracy.electrode import Electrode, Optics, Recorder, Step, drive, science_of
from tests.accuracy.precursors import C_RATES, FORMS, Focus, Precursors
from tests.bench.figures import Figure, at_least, at_most, between

TITLE = "Fade, and warnings before failure"
INTRO = """\
150 particles a run (the electrode of the parts above), 50 cycles, an exposure a minute at 1C. Two families, with
thresholds chosen on other seeds. Slow: all fade by 0.05 to 0.3 % a cycle and slow down by 0.3 %, with 0.2 % of jitter;
ten cycles are at 2C; 15 % crack once (3 to 25 % of brightness, half as fast again for a while, one in five unseen by
the detector) and live on. 10 % fail: over 10 to 24 cycles their loss accelerates to as much as 20 %, their rate
constants fall by up to 3 to 6 times, on discharge by up to 60 % more, each to a degree of its own and one of the three
often not at all; half crack before. Harder: 30 % fail over 8 to 20 cycles, each in one form only (ending at 10 to 25 %
of loss, at rate constants 3 to 6 times lower with an asymmetry of 30 to 60 %, or at 40 to 120 mV of hysteresis), at
0.5C, 1C and 2C by chance; a quarter of the others fade by 0.1 to 0.4 % a cycle until 2 to 8 % are lost, some slow down
with it, and live on; focus wanders by 1 % of contrast, by a third more or less from particle to particle, and light
drifts. In both the end is a disconnection. A failure counts as warned of when its first warning comes 5 cycles ahead or
earlier; a false flag is any warning of a particle that does not fail. The plain pipeline warns when the swing of two
cycles running falls short of the particle's own first by 10 %. The ceiling is the recall of a likelihood ratio (Page's
test) that knows each failing particle's own course, size and noise beforehand, but not its time, at 5 % false flags: no
detector of these levels does better."""
COUNT = 150
CYCLES = 50
AHEAD = 5
FALSE = 0.05


def run(effort: Effort) -> list[Figure]:
    """Recall, false flags and lead time of both families, and the fade itself."""
    slow, harder = [Aged(seed) for seed in effort.seeds], [Harder(seed, 0.3) for seed in effort.seeds]
    best = np.concatenate([one.ceiling() for one in harder])
    return [
        *_recall("slow", slow),
        *_false("slow", slow, effort),
        *_remaining("slow", slow),
        *_risks(slow),
        *_fade(slow),
        *_stopped(slow),
        *_recall("harder", harder),
        Figure("  ceiling", f"{100 * np.nanmean(best):.1f} %", ""),
        *_forms(harder, best),
        *_false("harder", harder, effort),
        *_remaining("harder", harder),
        *_risks(harder),
    ]


def _recall(family: str, runs: list[Aged]) -> list[Figure]:
    lead, plain = (np.concatenate([getattr(one, name)[one.fails] for one in runs]) for name in ("lead", "plain_lead"))
    return [
        at_least(f"{family}: failures warned of {AHEAD} cycles ahead or earlier, %", 100 * np.mean(lead >= AHEAD), 80.0,
                 digits=1),
        Figure("  by the plain pipeline", f"{100 * np.mean(plain >= AHEAD):.1f} %", ""),
        Figure("  warned of before failure at all", f"{100 * np.mean(lead > 0):.1f} % of {len(lead)}", ""),
        Figure("  first warnings ahead of failure, median (quartiles)", _quartiles(lead[lead > 0], "cycles"), ""),
    ]  # fmt: skip


def _forms(runs: list[Aged], best: np.ndarray) -> list[Figure]:
    """Recall and false flags by form: a form's failing particles among all that live on."""
    lead = np.concatenate([one.lead[one.fails] for one in runs])
    form = np.concatenate([one.fate.form[one.fails] for one in runs])
    return [
        Figure(f"  {name}: recall (ceiling)",
               f"{100 * np.mean(lead[form == k] >= AHEAD):.0f} % ({100 * np.nanmean(best[form == k]):.0f} %)"
               f" of {np.count_nonzero(form == k)}", "")
        for k, name in enumerate(FORMS)
    ]  # fmt: skip


def _false(family: str, runs: list[Aged], effort: Effort) -> list[Figure]:
    told, plain, fails, cracked, harmless = (
        np.concatenate([values(one) for one in runs])
        for values in (
            lambda one: one.first_told < CYCLES + 1, lambda one: one.plain_first < CYCLES + 1, lambda one: one.fails,
            lambda one: one.cracked, lambda one: getattr(one.fate, "harmless", np.zeros(COUNT, bool)),
        )
    )  # fmt: skip
    kinds = {"cracked that lived on": cracked & ~fails, "harmlessly fading": harmless}
    calm = type(runs[0])(effort.seeds[0] + 5000, 0.0)
    flagged = len({event.particle_id for event in calm.events})
    return [
        at_most(f"{family}: false flags, % of the particles that do not fail", 100 * float(told[~fails].mean()),
                100 * FALSE, plain=f"{100 * plain[~fails].mean():.1f}"),
        *(Figure(f"  of the {name}", f"{100 * told[some].mean():.1f} % of {int(some.sum())}", "")
          for name, some in kinds.items() if some.any()),
        Figure("  warned of in a run without failing particles", f"{flagged} of {COUNT}", ""),
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

    def _calibrate(self) -> Sliced[None]:
        yield from ()


class Aged:
    """One seed's run."""

    def __init__(self, seed: int, failing: float = 0.10, *, still: bool = False) -> None:
        """`still`: nothing but fates, without noise, jitter and cracks."""
        rng, self._drawn = np.random.default_rng([seed, 33]), (seed, failing)
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
        self.cycle_of = cycle_of = dict(ends)
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

    def ceiling(self) -> np.ndarray:
        """(failing,) the chance that anyone could warn of each in time, from the same run without noise."""
        still = type(self)(*self._drawn, still=True)
        told, quiet = (told_levels(one.outcome.health, CYCLES, COUNT)[:, self.fails] for one in (self, still))
        failure, onset = self.fate.failure[self.fails], self.fate.onset[self.fails]
        return most_announced(signal_of(quiet), sigma_of(told), failure, onset, AHEAD, FALSE)


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


def _remaining(family: str, runs: list[Aged]) -> list[Figure]:
    """Told lead times against the true ones: of first warnings, and of those told again."""
    ratio, inside, again, untold = [], [], [], 0
    for one in runs:
        for event in one.events:
            place, cycle = event.particle_id - 1, one.cycle_of[event.t_s]
            row, true = one.outcome.health[event.particle_id, cycle], one.fate.failure[place] - cycle
            if not one.fails[place] or true <= 0:
                continue
            if not np.isfinite(row["lead_cycles"]):
                untold += 1
                continue
            covered = row["lead_lo_cycles"] <= true <= row["lead_hi_cycles"]
            if cycle == one.first_told[place]:
                ratio.append(row["lead_cycles"] / true)
                inside.append(covered)
            else:
                again.append((row["lead_cycles"] / true, covered))
    if not ratio:
        return []
    worse = "none"
    if again:
        values = np.array(again, float)
        worse = f"{np.median(values[:, 0]):.2f}; {values[:, 1].mean():.2f} of {len(again)}"
    return [
        between(f"{family}: cycles left as told with first warnings over true ones, median", float(np.median(ratio)),
                0.8, 1.25),
        between("  failed within the 90 % interval told, share", float(np.mean(inside)), 0.85, 0.95),
        Figure("  the same of warnings told again: median; share", worse, ""),
        Figure("  warnings before failure that tell no time", str(untold), ""),
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


def _stopped(runs: list[Aged]) -> list[Figure]:
    """Disconnections told by their event: of those there were within the run, and of others."""
    true = told = wrong = 0
    for one in runs:
        places = {
            e.particle_id - 1
            for e in one.outcome.events
            if e.kind is EventKind.DISCONNECTED and e.particle_id is not None
        }
        failed = set(np.flatnonzero(one.fate.failure < CYCLES).tolist())
        true, told, wrong = true + len(failed), told + len(failed & places), wrong + len(places - failed)
    return [
        Figure(f"`disconnected` told of {true} that stop", str(told), ""),
        Figure(f"  told of {len(runs) * COUNT - true} others", str(wrong), ""),
    ]
