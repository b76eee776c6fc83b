"""Why particles fail, fade, lag or lead: size, shape, brightness, crowding and place against their fates.

Every property is tested alone against every fate, Benjamini-Hochberg over all of these tests; then, for each fate,
properties are taken in one by one, each beside those before it, so that what only goes along with a driver is not
called one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from daemon.insight.estimates import Estimate, normal_scores, standardised
from daemon.insight.hazard import HazardModel, refusal
from daemon.insight.outcomes import Covariate, Failure, Outcome, covariates, failures, outcomes
from daemon.insight.run_data import RunData
from daemon.insight.spatial import Field

ALPHA = 0.05
MIN_PARTICLES = 20
"""Known values that a test needs; fewer would find only what the eye sees too."""
MIN_KNOWN_SHARE = 0.5
"""Of a fate's particles: a property known for fewer speaks of another population."""
MIN_INACTIVE = 5
CLEARLY = 0.05
"""Weight of no correlation over distance below which there clearly is one."""
MAX_DRIVERS = 3
"""Of one fate: more are a story, not a finding."""


@dataclass(frozen=True)
class Effect:
    """One property against one fate. Per standard deviation of the property (of its normal scores).

    Of failures `effect` is a hazard ratio, of the others standard deviations of the fate: 0.1 is small, 0.3 middling,
    0.5 large.
    """

    covariate: str
    outcome: str
    effect: float
    lo: float
    hi: float
    """95 % interval."""
    p: float
    q: float
    """p adjusted for all tests of the run (Benjamini & Hochberg 1995)."""
    particles: int
    standing: str
    """`driver`; `one of` (a driver and `rivals` that these data cannot tell it from, all of them `one of`); `goes
    along` (with a driver, which explains it); `none`."""
    leading: bool = False
    """Drivers and, of those that cannot be told apart, the one that explains best."""
    rivals: tuple[str, ...] = ()
    beside: float = math.nan
    beside_lo: float = math.nan
    beside_hi: float = math.nan
    beside_p: float = math.nan
    """The same beside the fate's drivers (for one of these: beside the others)."""
    changes_p: float = math.nan
    """Hazard ratios: p of a change over the run; a small one says that the ratio is an average."""
    sentence: str = ""


@dataclass(frozen=True)
class Fate:
    """One fate and what was found about it; `unknown` says why nothing could be."""

    outcome: str
    words: str
    particles: int
    failures: int | None
    unknown: str
    effects: tuple[Effect, ...]
    spatial_share: float = math.nan
    """Share of the fate's variance that goes by place: what neighbours have in common."""
    by_place: bool = False
    """Whether it clearly does."""
    concordance: float = math.nan
    """Failures with drivers: share of pairs of which the drivers tell who fails first; 0.5 is chance."""
    notes: tuple[str, ...] = ()
    not_tested: dict[str, str] = field(default_factory=dict)
    """Properties of the run that could not be tested against this fate, and why."""

    @property
    def drivers(self) -> list[Effect]:
        """Those found, strongest evidence first; one of each that cannot be told apart."""
        return sorted((each for each in self.effects if each.leading), key=lambda each: each.p)


@dataclass(frozen=True)
class Drivers:
    """All fates of a run."""

    fates: tuple[Fate, ...]
    unknown: dict[str, str]
    """Properties that could not be used, and why."""
    alpha: float

    def sentences(self) -> list[str]:
        """What was found, in words; what was not, too."""
        told = [effect.sentence for fate in self.fates for effect in fate.drivers]
        for fate in self.fates:
            if fate.by_place:
                share = f"{100 * fate.spatial_share:.0f} % of its variance"
                told.append(f"{fate.words.capitalize()} goes by place: neighbours agree, in {share}.")
        tested = [fate.words for fate in self.fates if not fate.unknown and not fate.drivers]
        if tested:
            told.append(f"Nothing measured drives {_listed(tested)} (of effects that this run would show).")
        return [*told, *(f"{fate.words.capitalize()}: {fate.unknown}." for fate in self.fates if fate.unknown)]

    def as_dict(self) -> dict[str, Any]:
        """Plain values; NaN is not yet null."""
        return asdict(self) | {"sentences": self.sentences()}


def drivers(run: RunData, alpha: float = ALPHA) -> Drivers:
    """Test everything against everything, for at most `alpha` false ones among those named (a share)."""
    from statsmodels.stats.multitest import multipletests

    properties, unknown = _usable(run)
    all_fates: list[Outcome | Failure] = [*failures(run), *outcomes(run)]
    fields: dict[bytes, Field] = {}
    tests = [_Tests(run, each, properties, fields) for each in all_fates]
    alone = [(k, name, one) for k, each in enumerate(tests) for name, one in each.alone().items()]
    p = np.array([one.p for *_, one in alone])
    q = multipletests(p, method="fdr_bh")[1] if len(p) else p
    least = {k: min(1.0, _least(alone, k)) for k in {at for at, *_ in alone}}
    driven = dict(zip(least, multipletests(list(least.values()), alpha, "fdr_bh")[0], strict=True)) if least else {}
    found = []
    for k, each in enumerate(tests):
        mine = {name: (one, float(adjusted)) for (at, name, one), adjusted in zip(alone, q, strict=True) if at == k}
        found.append(each.fate(mine, alpha if driven.get(k) else 0.0, len(least)))
    return Drivers(tuple(found), unknown, alpha)


def _least(alone: Sequence[tuple[int, str, Estimate]], k: int) -> float:
    """A fate's p: of its clearest property, Bonferroni over all of them.

    Benjamini and Hochberg's share of false ones counts what only goes along as right, and lets in more false fates than
    it says; by fate it does not.
    """
    mine = [one.p for at, _, one in alone if at == k]
    return min(mine) * len(mine)


def _usable(run: RunData) -> tuple[list[Covariate], dict[str, str]]:
    """Properties as normal scores, and why the others are none."""
    usable, unknown = [], {}
    for each in covariates(run):
        known = each.values[np.isfinite(each.values)]
        if len(known) < MIN_PARTICLES:
            no_scale = not len(known) and len(each.values) and run.metadata.get("pixel_size_nm") is None
            unknown[each.name] = f"known for {len(known)} particles{'; the run has no pixel size' if no_scale else ''}"
        elif np.ptp(known) == 0:
            unknown[each.name] = "the same for all particles"
        else:
            usable.append(replace(each, values=standardised(normal_scores(each.values))))
    return usable, unknown


class _Tests:
    """Tests of one fate. Particles with an unknown property are left out of the tests of that property."""

    def __init__(
        self, run: RunData, fate: Outcome | Failure, properties: Sequence[Covariate], fields: dict[bytes, Field]
    ) -> None:
        """`fields` are shared: most fates are known for the same particles."""
        self._fate, self._raw = fate, {each.name: each for each in covariates(run)}
        self._words = {each.name: each for each in properties}
        self._y, self._x = run.particles["y_px"], run.particles["x_px"]
        base = fate.duration if isinstance(fate, Failure) else fate.values
        self._rows = np.isfinite(base) & np.isfinite(self._y) & np.isfinite(self._x)
        self._left_out = {each.name: why for each in properties if (why := self._why_left_out(each.values))}
        self._columns = {each.name: each.values for each in properties if each.name not in self._left_out}
        self._fields = fields
        self.unknown = self._why_not()

    def _why_left_out(self, values: np.ndarray) -> str:
        """Why a property is not tested; empty when it is."""
        known, count = self._rows & np.isfinite(values), int(self._rows.sum())
        if known.sum() < max(MIN_PARTICLES, MIN_KNOWN_SHARE * count):
            return f"known for {int(known.sum())} of {count} particles"
        return "the same for all particles" if np.ptp(values[known]) == 0 else ""

    def _why_not(self) -> str:
        count = int(self._rows.sum())
        fate = self._fate
        if count < MIN_PARTICLES:
            return f"known for {count} particles; at least {MIN_PARTICLES} are needed"
        if isinstance(fate, Failure):
            return refusal(fate.duration[self._rows], fate.failed[self._rows])
        values = fate.values[self._rows]
        if not fate.by_rank and min(values.sum(), count - values.sum()) < MIN_INACTIVE:
            return f"{int(values.sum())} of {count} particles were; at least {MIN_INACTIVE} must be, and as many not"
        return "the same for all particles" if np.ptp(values) == 0 else ""

    def alone(self) -> dict[str, Estimate]:
        """Every property by itself."""
        found = {} if self.unknown else {name: self._estimate([name]) for name in self._columns}
        return {name: each for name, each in found.items() if each is not None}

    def fate(self, alone: dict[str, tuple[Estimate, float]], alpha: float, fates: int) -> Fate:
        """What stands, given (estimate, q) of each property alone and how many fates are tested."""
        chosen = self._chosen(alone, alpha, fates)
        rows = self._rows_of(chosen)
        rivals = {name: self._rivals(name, chosen, alone, alpha) for name in chosen}
        effects = tuple(self._effect(name, *alone[name], rivals, alpha) for name in alone)
        failed = int(self._fate.failed[self._rows].sum()) if isinstance(self._fate, Failure) else None
        notes: tuple[str, ...] = self._fate.notes if isinstance(self._fate, Failure) else ()
        concordance = math.nan
        if isinstance(self._fate, Failure) and chosen:
            model, columns = self._hazard(rows), self._design(chosen, rows)
            concordance = model.concordance(columns)
            effects = self._with_changes(effects, chosen, model.changes_over_time(columns))
        no_fit = {name: "no fit" for name in self._columns if name not in alone}
        not_tested = {} if self.unknown else self._left_out | no_fit
        return Fate(
            self._fate.name, self._fate.words, int(self._rows.sum()), failed, self.unknown, effects,
            *self._by_place(), concordance, notes, not_tested,
        )  # fmt: skip

    def _chosen(self, alone: dict[str, tuple[Estimate, float]], alpha: float, fates: int) -> list[str]:
        """Forward: the clearest one that q allows, then whatever stands beside it, Bonferroni over those left and all
        fates."""
        allowed = [name for name, (_, q) in alone.items() if q <= alpha]
        if not allowed:
            return []
        chosen = [min(allowed, key=lambda name: alone[name][0].p)]
        while len(chosen) < MAX_DRIVERS:
            left = [name for name in alone if name not in chosen]
            tried = [(found.p, name) for name in left if (found := self._estimate([*chosen, name])) is not None]
            if not tried or min(tried)[0] * len(tried) * fates > alpha:
                break
            chosen.append(min(tried)[1])
        return chosen

    def _rivals(
        self, name: str, chosen: list[str], alone: dict[str, tuple[Estimate, float]], alpha: float
    ) -> tuple[str, ...]:
        """Properties that q allows too and beside which the chosen one does not stand: it may be these that count."""
        others = [each for each in chosen if each != name]
        near = [each for each, (_, q) in alone.items() if q <= alpha and each not in chosen]
        beside = {each: self._estimate([*others, each, name]) for each in near}
        return tuple(each for each, found in beside.items() if found is None or found.p > alpha)

    def _effect(self, name: str, found: Estimate, q: float, rivals: dict[str, tuple[str, ...]], alpha: float) -> Effect:
        others = [each for each in rivals if each != name]
        beside = self._estimate([*others, name]) if others else None
        told_apart = name in rivals and not rivals[name]
        shared = name in rivals or any(name in each for each in rivals.values())
        standing = "driver" if told_apart else "one of" if shared else "goes along" if q <= alpha else "none"
        value, lo, hi = self._shown(found)
        effect = Effect(
            name,
            self._fate.name,
            value,
            lo,
            hi,
            found.p,
            q,
            found.count,
            standing,
            name in rivals,
            rivals.get(name, ()),
        )
        if beside is not None:
            value, lo, hi = self._shown(beside)
            effect = replace(effect, beside=value, beside_lo=lo, beside_hi=hi, beside_p=beside.p)
        return replace(effect, sentence=self._sentence(effect))

    def _with_changes(self, effects: tuple[Effect, ...], chosen: list[str], p: list[float]) -> tuple[Effect, ...]:
        by_name = dict(zip(chosen, p, strict=True))
        return tuple(replace(each, changes_p=by_name.get(each.covariate, math.nan)) for each in effects)

    def _estimate(self, names: list[str]) -> Estimate | None:
        """Of the last of `names` beside those before it."""
        rows = self._rows_of(names)
        columns = self._design(names, rows)
        if isinstance(self._fate, Failure):
            if refusal(self._fate.duration[rows], self._fate.failed[rows]) or _collinear(columns):
                return None
            return self._hazard(rows).estimate(columns)
        values = self._fate.values[rows]
        scores = standardised(normal_scores(values) if self._fate.by_rank else values)
        if not np.isfinite(scores).all():
            return None
        fit = self._field(rows).fit(scores, np.column_stack([np.ones(len(columns)), columns]), tested=1)
        if fit is None or _collinear(columns):
            return None
        return Estimate(float(fit.beta[-1]), float(fit.sigma[-1]), fit.free, len(columns))

    def _by_place(self) -> tuple[float, bool]:
        if self.unknown or isinstance(self._fate, Failure):
            return math.nan, False
        values = self._fate.values[self._rows]
        scores = standardised(normal_scores(values) if self._fate.by_rank else values)
        fit = self._field(self._rows).fit(scores, np.ones((len(scores), 1)))
        return (fit.share, fit.alone < CLEARLY) if fit is not None else (math.nan, False)

    def _rows_of(self, names: Sequence[str]) -> np.ndarray:
        rows = self._rows.copy()
        for name in names:
            rows &= np.isfinite(self._columns[name])
        return rows

    def _design(self, names: Sequence[str], rows: np.ndarray) -> np.ndarray:
        return np.column_stack([standardised(self._columns[name][rows]) for name in names])

    def _field(self, rows: np.ndarray) -> Field:
        key = rows.tobytes()
        if key not in self._fields:
            self._fields[key] = Field(self._y[rows], self._x[rows])
        return self._fields[key]

    def _hazard(self, rows: np.ndarray) -> HazardModel:
        assert isinstance(self._fate, Failure)
        return HazardModel(self._fate.duration[rows], self._fate.failed[rows], self._field(rows))

    def _shown(self, found: Estimate) -> tuple[float, float, float]:
        """Value and 95 % interval, as ratios for hazards."""
        values = (found.value, *found.interval())
        return tuple(map(math.exp, values)) if isinstance(self._fate, Failure) else values  # type: ignore[return-value]

    def _sentence(self, effect: Effect) -> str:
        """``Longer particles crack first: hazard ratio 2.1 per standard deviation of length (1.5 to 3.0, q =
        0.001).``"""
        covariate, hazard = self._words[effect.covariate], isinstance(self._fate, Failure)
        rises = effect.effect > (1.0 if hazard else 0.0)
        what = "hazard ratio" if hazard else "standard deviations"
        value = f"{effect.effect:.2f}" if hazard else f"{effect.effect:+.2f}"
        sentence = (
            f"{covariate.more.capitalize()} particles {self._fate.up if rises else self._fate.down}: {what} {value} per"
            f" standard deviation of {covariate.words} ({effect.lo:.2f} to {effect.hi:.2f}, q = {effect.q:.1g})."
        )
        if effect.rivals:
            names = _listed([self._words[name].words for name in (effect.covariate, *effect.rivals)], "and")
            sentence += f" It may be another of these, which cannot be told apart here: {names}."
        return sentence if hazard else f"{sentence} {self._quarters(covariate.name)}"

    def _quarters(self, name: str) -> str:
        """How far the fate's median differs between the outer quarters of the property, in words a scale can be read
        off."""
        fate = self._fate
        assert isinstance(fate, Outcome)
        rows = self._rows & np.isfinite(self._columns[name])
        values, column = fate.values[rows], self._raw[name].values[rows]
        low, high = np.quantile(column, (0.25, 0.75))
        middle = np.mean if not fate.by_rank else np.median
        few, many = float(middle(values[column <= low])), float(middle(values[column >= high]))
        if fate.name.startswith("rate"):
            return f"The upper quarter's median rate is {100 * math.expm1(many - few):+.0f} % of the lower quarter's."
        if fate.name == "fade":
            return f"The quarters' medians are {100 * few:+.2f} % (lower) and {100 * many:+.2f} % (upper) per cycle."
        return f"Lower quarter {100 * few:.1f} %, upper quarter {100 * many:.1f} %{_of(fate.name)}."


def _of(outcome: str) -> str:
    return " inactive" if outcome == "inactive" else " of a half's duration"


def _collinear(columns: np.ndarray) -> bool:
    """Whether the last column is (nearly) a mixture of the others: its own share of its variance is below 5 %."""
    if columns.shape[1] < 2:
        return False
    rest, *_ = np.linalg.lstsq(columns[:, :-1], columns[:, -1])
    left = columns[:, -1] - columns[:, :-1] @ rest
    return float(left @ left) < 0.05 * float(columns[:, -1] @ columns[:, -1])


def _listed(words: Sequence[str], last: str = "or") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
