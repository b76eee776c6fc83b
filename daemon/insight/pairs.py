"""Two groups in one quantity: effect, interval, the replicate it rests on, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from daemon.insight.estimates import Estimate
from daemon.insight.random_effects import (
    POWER,
    Groups,
    cell_sd_for_nothing,
    cells_needed,
    detectable,
    difference,
    power_of,
)

REFERENCE = {"rate": math.log(1.15), "spread": math.log(1.25), "inactive": 0.05, "retention": 0.05}
"""Shifts whose power is told: what batches of a factory are compared for."""
WORDS = {
    "rate": "typical rate",
    "spread": "spread of the rates",
    "inactive": "inactive fraction",
    "retention": "retention",
}
RATIOS = ("rate", "spread")
"""Compared as logarithms, told as relative differences; the others are differences of fractions."""


@dataclass(frozen=True)
class Pair:
    """Group `b` against `a` in one quantity. Effects are relative differences (rate, spread) or differences of
    fractions."""

    quantity: str
    a: str
    b: str
    basis: str
    """`cells`: the cell is the replicate. `given`: one cell each, spread between cells as given. `particles`: one cell
    each; of the groups nothing is known. `none`."""
    effect: float
    lo: float
    hi: float
    """1 - alpha interval."""
    p: float
    p_holm: float
    """Over all pairs and quantities of the page (Holm 1979)."""
    free: float | None
    """Degrees of freedom; None where they do not limit."""
    verdict: str
    """`differ`, `not shown to differ`, `cells differ`, `cells not shown to differ`, or `unknown`."""
    detectable: float
    """Smallest true effect seen with power 0.9 by data like these."""
    reference: float
    power_at_reference: float
    """Chance that data like these show the reference effect."""
    cell_sd: float
    """Standard deviation between equal cells: found, or given. Of the logarithm (rate, spread) or of fractions."""
    cell_sd_for_nothing: float
    """`particles` only: cells of one group that differ by more than this (one standard deviation) make the effect
    nothing."""
    cells_needed: int | None
    """Cells a group that would show the reference effect with power 0.9, cells differing as found; None where
    unknown."""
    sentence: str

    @property
    def differs(self) -> bool:
        """Of the groups, or of two cells that stand for nothing but themselves."""
        return self.verdict in ("differ", "cells differ")


@dataclass(frozen=True)
class Comparing:
    """Two groups in one quantity."""

    quantity: str
    a: str
    b: str
    cells_a: Sequence[Estimate]
    cells_b: Sequence[Estimate]
    alpha: float

    def pair(self, means: Groups, a: int, b: int, given: float | None, dead: list[tuple[int, int]]) -> Pair:
        """Judge by what there is: cells, a given spread between cells, or particles alone."""
        known = [[each for each in cells if math.isfinite(each.value)] for cells in (self.cells_a, self.cells_b)]
        if not all(known):
            lacking = " and ".join(name for name, each in zip((self.a, self.b), known, strict=True) if not each)
            return self._unknown(f"{WORDS[self.quantity].capitalize()}: not known for {lacking}{self._why()}.")
        if means.free:
            found = difference(means.means[b], means.means[a])
            return self._judged("cells", found, found.p, means.cell_sd)
        first, second = known[0][0], known[1][0]
        found = difference(second, first)
        if given is not None:
            wide = replace(found, sigma=math.hypot(found.sigma, math.sqrt(2) * given))
            return self._judged("given", wide, wide.p, given)
        return self._judged("particles", found, _fisher(dead) if dead else found.p, math.nan)

    def _judged(self, basis: str, found: Estimate, p: float, cell_sd: float) -> Pair:
        lo, hi = found.interval(1 - self.alpha)
        who = "cells " if basis == "particles" else ""
        verdict = f"{who}differ" if p <= self.alpha else f"{who}not shown to differ"
        reference, least = REFERENCE[self.quantity], detectable(found.sigma, found.free, self.alpha)
        particle_sigma = float(np.mean([each.sigma for each in (*self.cells_a, *self.cells_b) if each.sigma > 0]))
        needed = cells_needed(reference, particle_sigma, cell_sd, self.alpha) if math.isfinite(cell_sd) else None
        nothing = cell_sd_for_nothing(found, self.alpha) if basis == "particles" else math.nan
        pair = Pair(
            self.quantity, self.a, self.b, basis, self._shown(found.value), self._shown(lo), self._shown(hi), p,
            math.nan, found.free if math.isfinite(found.free) else None, verdict, self._shown(least),
            self._shown(reference),
            power_of(reference, found.sigma, found.free, self.alpha), cell_sd, nothing, needed, "",
        )  # fmt: skip
        return replace(pair, sentence=sentence(pair, self.alpha))

    def _unknown(self, why: str) -> Pair:
        nan = math.nan
        reference = self._shown(REFERENCE[self.quantity])
        return Pair(
            self.quantity, self.a, self.b, "none", nan, nan, nan, nan, nan, None, "unknown", nan, reference, nan, nan,
            nan, None, why,
        )  # fmt: skip

    def _why(self) -> str:
        return {
            "inactive": " (no half has ended that tells which particles are)",
            "retention": " (no second half of one kind and rate that the runs share)",
        }.get(self.quantity, " (too few particles with a rate in halves of a kind and rate that the runs share)")

    def _shown(self, value: float) -> float:
        return math.expm1(min(value, 700.0)) if self.quantity in RATIOS else value


def _fisher(dead: list[tuple[int, int]]) -> float:
    from scipy import stats

    table = [[count, total - count] for count, total in dead]
    return float(stats.fisher_exact(table).pvalue)


def sentence(pair: Pair, alpha: float) -> str:
    """A pair in words: what differs, how sure, by what replicate, and what could have been seen."""
    effect = f"{told(pair, pair.effect)} ({_bare(pair.lo)} to {_bare(pair.hi)}, p = {pair.p:.2g})"
    what = WORDS[pair.quantity].capitalize()
    if pair.verdict.endswith("not shown to differ"):
        said = f"{what}: {pair.b} is not shown to differ from {pair.a}: {effect}."
    else:
        said = f"{what}: {pair.b} differs from {pair.a} by {effect}."
    if pair.basis == "particles":
        said += " One cell each: this is said of these two cells, not of the groups."
        if pair.cell_sd_for_nothing > 0:
            limit = pair.cell_sd_for_nothing
            said += (
                f" It is nothing as soon as equal cells differ by more than {100 * limit:.2g}"
                f"{' %' if pair.quantity in RATIOS else ' percentage points'} (one standard deviation)."
            )
    if pair.basis == "given":
        said += (
            f" One cell each, taking it that equal cells differ by {100 * pair.cell_sd:.2g} % (one standard deviation)."
        )
    if pair.verdict.endswith("not shown to differ") and math.isfinite(pair.detectable):
        said += f" Differences from {told(pair, pair.detectable)} on would be seen nine times in ten, at {alpha:g}."
        if pair.basis == "cells" and pair.cells_needed is not None and pair.power_at_reference < POWER:
            said += f" To see {told(pair, pair.reference)} so, {pair.cells_needed} cells a group are needed."
    return said


def told(pair: Pair, value: float) -> str:
    """A value of the pair's quantity with its unit."""
    if not math.isfinite(value):
        return "–"
    return f"{_bare(value)} {'%' if pair.quantity in RATIOS else 'percentage points'}"


def _bare(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return "over 10 000" if value > 100 else f"{100 * value:+.3g}"


def with_holm(pairs: list[Pair]) -> list[Pair]:
    """With p-values that hold for all of them together (Holm 1979)."""
    from statsmodels.stats.multitest import multipletests

    known = [k for k, pair in enumerate(pairs) if math.isfinite(pair.p)]
    if not known:
        return pairs
    adjusted = dict(zip(known, multipletests([pairs[k].p for k in known], method="holm")[1], strict=True))
    return [replace(pair, p_holm=float(adjusted.get(k, math.nan))) for k, pair in enumerate(pairs)]
