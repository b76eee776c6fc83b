"""Batches against each other: how often equal ones are called different, and what shift is seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from daemon.insight.batches import compare
from daemon.insight.cells import location, log_spread
from daemon.insight.estimates import Estimate
from daemon.insight.random_effects import difference, grouped
from daemon.insight.run_data import RunData
from tests.accuracy.effort import Effort
from tests.bench.figures import Figure, at_least
from tests.daemon.insight.runs import plain_cell

TITLE = "Batches"
INTRO = """\
Cells of 300 particles (30, 100, 300 or 1000 where they are unequal) whose rates are lognormal with a standard
deviation of 0.4 around the cell's own typical rate; cells of one batch differ by what is named (one standard
deviation). The level is 1 %; the goal allows two standard deviations of the count. Plain pipeline: the particles of
a batch pooled, by Mann and Whitney's test (inactive ones by Fisher's). A mixed model's Wald test takes the spread
between the cells for known."""
ALPHA = 0.01
SIGMA, PARTICLES = 0.4, 300
PAIRS_A_SEED = 500
UNEQUAL = (30, 100, 300, 1000)
RATE, SPREAD = math.log(1.15), math.log(1.25)

Batch = list[np.ndarray]
"""Logarithms of the rates of each cell's particles."""
Of = Callable[[np.ndarray], Estimate]


def run(effort: Effort) -> list[Figure]:
    """False positives, then power, then the whole way from run files' tables."""
    few = len(effort.seeds) < 5
    pairs = len(effort.seeds) * (PAIRS_A_SEED // 2 if few else PAIRS_A_SEED)
    return [
        *_equal(effort.seeds[0], pairs),
        *_shifted(effort.seeds[1], pairs // 2),
        *_inactive(effort.seeds[0], pairs),
        *_whole_way(effort.seeds, 8 if few else 24),
    ]


def _equal(seed: int, pairs: int) -> list[Figure]:
    figures = []
    for a, b, cell_sd, unequal in (
        (1, 1, 0.0, False), (2, 2, 0.05, False), (3, 3, 0.0, False), (3, 3, 0.02, False), (3, 3, 0.05, False),
        (3, 3, 0.2, False), (2, 4, 0.05, False), (3, 3, 0.05, True), (5, 5, 0.05, True),
    ):  # fmt: skip
        rng = np.random.default_rng([seed, a, b, round(1000 * cell_sd), unequal])
        rate = spread = plain = wald = 0
        for _ in range(pairs):
            first, second = (_batch(rng, count, cell_sd, unequal) for count in (a, b))
            rate += _p(first, second, location) <= ALPHA
            spread += _p(first, second, log_spread) <= ALPHA
            wald += _wald(first, second) <= ALPHA
            plain += stats.mannwhitneyu(np.concatenate(first), np.concatenate(second)).pvalue <= ALPHA
        kind = f"{a} and {b} {'unequal ' if unequal else ''}cells differing by {100 * cell_sd:g} %"
        figures.append(_rarely(f"equal batches, {kind}: rate called different", rate, pairs, _percent(plain, pairs)))
        figures.append(_rarely("  spread called different", spread, pairs))
        if a + b > 2:
            figures.append(Figure("  rate called different by a mixed model's Wald test", _percent(wald, pairs), ""))
    return figures


def _shifted(seed: int, pairs: int) -> list[Figure]:
    """Power. The goal is for what a cell of 300 can show at all: cells that differ cost more of them."""
    figures = []
    for a, cell_sd, goal in ((1, 0.0, 0.9), (3, 0.0, None), (4, 0.02, 0.9), (5, 0.03, 0.9), (5, 0.05, None)):
        rng = np.random.default_rng([seed, a, round(1000 * cell_sd), 7])
        rate = spread = plain = 0
        for _ in range(pairs):
            first = _batch(rng, a, cell_sd)
            rate += _p(first, _batch(rng, a, cell_sd, shift=RATE), location) <= ALPHA
            wide = _batch(rng, a, cell_sd, spread=math.exp(SPREAD))
            spread += _p(first, wide, log_spread) <= ALPHA
            plain += stats.mannwhitneyu(np.concatenate(first), np.concatenate(wide) + RATE).pvalue <= ALPHA
        name = (
            f"power, {a} {'cells' if a > 1 else 'cell'} each, cells differing by {100 * cell_sd:g} %: rate 15 % higher"
        )
        found = at_least(name, rate / pairs, goal, digits=2) if goal else Figure(name, f"{rate / pairs:.2f}", "")
        figures += [found, Figure("  spread 25 % wider", f"{spread / pairs:.2f}", "")]
    return figures


def _inactive(seed: int, pairs: int) -> list[Figure]:
    """5 % inactive, 3 cells each, and cells that differ: the fraction beta distributed with a deviation of 2 points."""
    figures = []
    concentration = 0.05 * 0.95 / 0.02**2 - 1
    for spread in (False, True):
        rng = np.random.default_rng([seed, spread, 11])
        called = pooled = 0
        for _ in range(pairs):
            share = rng.beta(0.05 * concentration, 0.95 * concentration, (2, 3)) if spread else np.full((2, 3), 0.05)
            dead = rng.binomial(PARTICLES, share)
            common = (dead.sum() + 1) / (6 * PARTICLES + 2)
            sigma = math.sqrt(common * (1 - common) / PARTICLES)
            found = grouped([[Estimate(n / PARTICLES, sigma, math.inf, PARTICLES) for n in group] for group in dead])
            called += difference(found.means[1], found.means[0]).p <= ALPHA
            total = dead.sum(axis=1)
            pooled += stats.fisher_exact([[n, 3 * PARTICLES - n] for n in total]).pvalue <= ALPHA
        name = f"equal batches, 3 cells each, 5 % {'+- 2 points ' if spread else ''}inactive: called different"
        figures.append(_rarely(name, called, pairs, _percent(pooled, pairs)))
    return figures


def _whole_way(seeds: Sequence[int], pairs: int) -> list[Figure]:
    """From tables of runs with halves, currents and dead particles: three cells of 300 each, differing by 2 %."""
    equal = different = 0
    for seed in seeds:
        for k in range(pairs // 4):
            groups = {
                name: [_cell([seed, k, n, cell], shift) for cell in range(4)]
                for n, (name, shift) in enumerate((("a", 0.0), ("equal", 0.0), ("faster", RATE)))
            }
            rate = {(each.a, each.b): each.verdict for each in compare(groups).pairs if each.quantity == "rate"}
            equal += rate["a", "equal"] == "differ"
            different += rate["a", "faster"] == "differ"
    total = len(seeds) * (pairs // 4)
    return [
        Figure(
            "whole way from the tables, 4 cells each differing by 2 %: equal called different",
            f"{equal} of {total}",
            "",
        ),
        at_least("  rate 15 % higher seen", different / total, 0.8, digits=2),
    ]


def _cell(seed: list[int], shift: float) -> RunData:
    luck = 0.02 * np.random.default_rng([*seed, 1]).normal()
    name = "-".join(map(str, seed))
    return plain_cell(
        int(np.random.default_rng(seed).integers(2**31)), count=PARTICLES, cycles=2, shift=shift + luck, name=name
    )


def _batch(
    rng: np.random.Generator, cells: int, cell_sd: float, unequal: bool = False, shift: float = 0.0, spread: float = 1.0
) -> Batch:
    counts = rng.choice(UNEQUAL, cells) if unequal else [PARTICLES] * cells
    return [shift + cell_sd * rng.normal() + SIGMA * spread * rng.normal(size=count) for count in counts]


def _p(first: Batch, second: Batch, of: Of) -> float:
    """As `compare` judges: by cells where there are several, by particles with one each."""
    cells = [[of(cell) for cell in batch] for batch in (first, second)]
    found = grouped(cells)
    means = found.means if found.free else (cells[0][0], cells[1][0])
    return difference(means[1], means[0]).p


def _wald(first: Batch, second: Batch) -> float:
    """A mixed model's p for cells of one size: their means' own variance, taken for known."""
    means = [np.array([cell.mean() for cell in batch]) for batch in (first, second)]
    free = sum(map(len, means)) - 2
    if free < 1:
        return math.nan
    variance = sum(np.square(each - each.mean()).sum() for each in means) / free
    sigma = math.sqrt(variance * sum(1 / len(each) for each in means))
    return float(2 * stats.norm.sf(abs(means[1].mean() - means[0].mean()) / sigma))


def _percent(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} %"


def _rarely(name: str, count: int, of: int, plain: str = "") -> Figure:
    """A rate of false positives; the goal allows two standard deviations of the count."""
    limit = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / of)
    return Figure(
        name, f"{100 * count / of:.2f} %", f"<= 1 % ({100 * limit:.2f} % counted)", count / of <= limit, plain
    )
