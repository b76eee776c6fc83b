"""What drives a particle's fate: is the planted driver named, and nothing else?"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from daemon.events import Event, EventKind
from daemon.insight.drivers import Drivers, drivers
from daemon.insight.outcomes import covariates, outcomes
from daemon.insight.run_data import RunData
from tests.accuracy.effort import Effort
from tests.bench.figures import Figure, at_least, at_most
from tests.daemon.insight.runs import correlated, particle_columns, run_data

TITLE = "Drivers"
INTRO = """\
Runs of 250 particles over 10 cycles: ellipses, lognormal in size and aspect ratio, at random places. Rates vary by
40 %, of which a share of 40 % goes by place (exponential correlation over 30 um); fade and lag vary by chance; a
fifth to a third of the particles crack. Planted: longer particles crack first (hazard ratio 2 per standard
deviation of the logarithm of length); more convex particles are faster on charge and discharge (0.3 standard
deviations); elsewhere a rate that falls across the field (0.4). A named driver is false when nothing of it was
planted: diameter in place of length is false, unless it is said that they cannot be told apart. Plain pipeline:
Spearman's correlation of every property with every fate (of cracking: with whether it cracked), p <= 0.05."""
PARTICLES, CYCLES, HALF_S = 250, 10, 4000.0
RATIO, RATE_EFFECT, SLOPE = 2.0, 0.3, 0.4
RATES = ("rate_charge", "rate_discharge")
OTHERS = ("lag_charge", "lag_discharge", "fade")


def run(effort: Effort) -> list[Figure]:
    """Worlds with drivers, without any, and with a slope across the field."""
    planted, nothing, slope, even = _Count(), _Count(), _Count(), _Count()
    for seed in effort.seeds:
        for k in range(10):
            truth = {("crack", "length"), *((rate, "solidity") for rate in RATES)}
            planted.add(_world([seed, 0, k], RATIO, RATE_EFFECT), truth)
        for k in range(12):
            nothing.add(_world([seed, 1, k]), set())
        for k in range(3):
            across = {(rate, "x") for rate in RATES}
            slope.add(_world([seed, 2, k], slope=SLOPE), across)
            even.add(_world([seed, 3, k], slope=SLOPE, by_place=0.0), across)
    return [
        at_least("cracking driven by length: named", planted.within["crack", "length"] / planted.runs, 0.9, digits=2),
        Figure("  as the only one", f"{planted.named['crack', 'length'] / planted.runs:.2f}", ""),
        Figure("  another as the only one", planted.instead(), ""),
        Figure("  hazard ratio, median (planted: 2)", f"{np.median(planted.ratios):.2f}", ""),
        at_least("  share of its 95 % intervals that hold it", planted.covered / planted.runs, 0.9, digits=2),
        at_least("rate driven by solidity: named", planted.share(RATES, "solidity"), 0.9, digits=2),
        at_most(
            "false drivers among those named", planted.false / max(1, planted.total), 0.05, digits=3,
            plain=f"{planted.plain_false / max(1, planted.plain_total):.2f}",
        ),
        at_most(
            "runs without any driver in which one is named", nothing.wrong / nothing.runs, 0.05, digits=3,
            plain=f"{nothing.plain_wrong / nothing.runs:.2f}",
        ),
        Figure(f"  drivers in {nothing.runs} such runs", f"{nothing.false}", "", plain=f"{nothing.plain_false}"),
        Figure("  of these, places or crowding", f"{nothing.by_place}", "", plain=f"{nothing.plain_by_place}"),
        at_least("rates that vary by place: said to", nothing.said(RATES), 0.9, digits=2),
        at_most("lag and fade that do not: said to", nothing.said(OTHERS), 0.05),
        Figure("rate that falls across a field that varies by itself: x named", f"{slope.share(RATES, 'x'):.2f}", ""),
        Figure("  that is even otherwise: x named", f"{even.share(RATES, 'x'):.2f}", ""),
        Figure("  said to go by place", f"{even.said(RATES):.2f}", ""),
    ]  # fmt: skip


@dataclass
class _Count:
    """What was named over many runs."""

    runs: int = 0
    total: int = 0
    false: int = 0
    wrong: int = 0
    by_place: int = 0
    covered: int = 0
    plain_total: int = 0
    plain_false: int = 0
    plain_wrong: int = 0
    plain_by_place: int = 0
    named: Counter = field(default_factory=Counter)
    within: Counter = field(default_factory=Counter)
    """Named, or one of those that could not be told apart."""
    place: Counter = field(default_factory=Counter)
    ratios: list[float] = field(default_factory=list)

    def add(self, run_data: RunData, truth: set[tuple[str, str]]) -> None:
        found = drivers(run_data)
        leading = [(fate.outcome, effect) for fate in found.fates for effect in fate.drivers]
        named = {(fate, effect.covariate) for fate, effect in leading if not effect.rivals}
        sets = [
            {(fate, name) for name in (effect.covariate, *effect.rivals)} for fate, effect in leading if effect.rivals
        ]
        plain = _plain(run_data)
        self.runs += 1
        self.named.update(named)
        self.within.update(named.union(*sets))
        lost = [each for each in sets if not each & truth]
        self.total += len(leading)
        self.false += len(named - truth) + len(lost)
        self.wrong += bool(named - truth or lost)
        self.by_place += _by_place((named - truth).union(*lost))
        self.place.update(fate.outcome for fate in found.fates if fate.by_place)
        self.plain_total += len(plain)
        self.plain_false += len(plain - truth)
        self.plain_wrong += bool(plain - truth)
        self.plain_by_place += _by_place(plain - truth)
        self._ratio(found)

    def _ratio(self, found: Drivers) -> None:
        crack = next(fate for fate in found.fates if fate.outcome == "crack")
        for effect in crack.effects:
            if effect.covariate == "length":
                self.ratios.append(effect.effect)
                self.covered += effect.lo <= RATIO <= effect.hi

    def share(self, fates: tuple[str, ...], covariate: str) -> float:
        return sum(self.named[fate, covariate] for fate in fates) / (len(fates) * self.runs)

    def said(self, fates: tuple[str, ...]) -> float:
        return sum(self.place[fate] for fate in fates) / (len(fates) * self.runs)

    def instead(self) -> str:
        others = {name: n for (fate, name), n in self.named.items() if fate == "crack" and name != "length"}
        return ", ".join(f"{name}: {n}" for name, n in sorted(others.items())) or "none"


def _by_place(named: set[tuple[str, str]]) -> int:
    return sum(covariate in ("y", "x", "centre_distance", "nearest_neighbour", "neighbours") for _, covariate in named)


def _world(
    seed: list[int], ratio: float = 1.0, rate_effect: float = 0.0, slope: float = 0.0, by_place: float = 0.4
) -> RunData:
    rng = np.random.default_rng(seed)
    particles = particle_columns(rng, PARTICLES)
    length, solid = _score(np.log(particles["major_um"])), _score(particles["solidity"])
    log_rate = math.sqrt(1 - by_place) * rng.normal(size=PARTICLES)
    log_rate += math.sqrt(by_place) * correlated(rng, particles, 30 / 0.096)
    log_rate = 0.4 * (log_rate + rate_effect * solid - slope * _score(particles["x_px"]))
    fade, halves = rng.normal(-0.004, 0.003, PARTICLES), []
    for half in range(2 * CYCLES):
        noise = rng.normal(size=(3, PARTICLES))
        halves.append({
            "cycle": half // 2, "half": ("charge", "discharge")[half % 2], "swing": 0.1, "duration_s": 3000.0,
            "onset_t_s": half * HALF_S + rng.uniform(50, 150, PARTICLES), "lag_s": 100 * noise[1],
            "rate_per_h": np.exp(log_rate + 0.1 * noise[0]), "retention": 1 + fade * (half // 2) + 0.01 * noise[2],
        })  # fmt: skip
    when = rng.exponential(1 / (0.025 * ratio**length))
    cracks = [
        Event(EventKind.CRACK, 2 * HALF_S * t, 2 * HALF_S * t, int(identity))
        for t, identity in zip(when, particles["particle_id"], strict=True)
        if t < CYCLES
    ]
    return run_data(particles, halves, events=cracks)


def _score(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def _plain(run_data: RunData) -> set[tuple[str, str]]:
    """What everyone's first look would name."""
    cracked = {event.particle_id for event in run_data.events}
    fates = {each.name: each.values for each in outcomes(run_data) if np.ptp(each.values) > 0}
    fates["crack"] = np.isin(run_data.particle_id, list(cracked)).astype(float)
    return {
        (name, each.name)
        for name, values in fates.items()
        for each in covariates(run_data)
        if stats.spearmanr(each.values, values).pvalue <= 0.05
    }
