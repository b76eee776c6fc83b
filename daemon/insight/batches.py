"""Batches, cells and protocols against each other: typical rate, its spread, inactive particles, retention.

The cell is the replicate: particles of one cell share its electrolyte, pressure and mixing. With one cell a group the
cells are compared over their particles, and it is said that this tells nothing of the groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from daemon.insight import cells as cell_numbers
from daemon.insight.cells import Cell
from daemon.insight.estimates import Estimate
from daemon.insight.pairs import RATIOS, WORDS, Comparing, Pair, with_holm
from daemon.insight.protocol import Condition, conditions, without_record
from daemon.insight.random_effects import Groups, grouped
from daemon.insight.run_data import RunData

ALPHA = 0.01


@dataclass(frozen=True)
class CellNumbers:
    """One cell's estimates, natural scale: `rate` relative to the mean of all cells, `spread` of the logarithm of the
    rate."""

    group: str
    cell: str
    path: str
    particles: int
    values: dict[str, float]
    sigmas: dict[str, float]
    """Standard errors over the particles; of the logarithm for `rate` and `spread`."""
    dead: int | None
    known: int | None
    counts: dict[str, int]
    """Particles each number is of."""


@dataclass(frozen=True)
class Comparison:
    """All that was compared."""

    groups: dict[str, list[str]]
    alpha: float
    conditions: tuple[Condition, ...]
    cells: tuple[CellNumbers, ...]
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]
    sources: tuple[Cell, ...] = field(repr=False)
    means: dict[str, Groups] = field(repr=False)

    def verdict(self) -> list[str]:
        """The page's first words: what differs, then every pair."""
        differ = [f"{WORDS[each.quantity]} ({each.b} against {each.a})" for each in self.pairs if each.differs]
        first = f"Different: {', '.join(differ)}." if differ else "No difference is shown."
        return list(dict.fromkeys([first, *(pair.sentence for pair in self.pairs)]))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, what is not known None."""
        names = [cell.name for cell in self.sources]
        shared = [
            {"half": each.half, "rate": each.rate, "unit": "C" if each.by_c_rate else "mA",
             "cycles": {names[k]: cycles for k, cycles in each.cycles.items()}}
            for each in self.conditions
        ]  # fmt: skip
        means = {
            quantity: {
                name: _told(quantity, mean, self.alpha) for name, mean in zip(self.groups, found.means, strict=True)
            }
            for quantity, found in self.means.items()
        }
        protocols = {cell.name: [asdict(half) for half in cell.halves] for cell in self.sources}
        document = {
            "alpha": self.alpha, "verdict": self.verdict(), "warnings": list(self.warnings), "groups": self.groups,
            "conditions": shared, "cells": [asdict(each) for each in self.cells], "group_means": means,
            "pairs": [asdict(each) for each in self.pairs], "protocols": protocols,
        }  # fmt: skip
        return plain(document)


def compare(
    groups: Mapping[str, Sequence[RunData]], alpha: float = ALPHA, rate_cell_sd: float | None = None
) -> Comparison:
    """Compare at least two groups, each of at least one run. `rate_cell_sd`: relative standard deviation of the typical
    rate between equal cells, as known from elsewhere; used where no group has two cells."""
    sources = _cells(groups)
    shared = conditions([cell.halves for cell in sources])
    numbers = _numbers(sources, shared)
    by_group = {
        quantity: [[found[k] for k, cell in enumerate(sources) if cell.group == group] for group in groups]
        for quantity, found in numbers.items()
    }
    means = {quantity: grouped(found) for quantity, found in by_group.items()}
    pairs: list[Pair] = []
    clustered: list[str] = []
    for quantity, mean in means.items():
        found, widened = by_group[quantity], list[str]()
        if not mean.free:
            found, widened = _widened(quantity, found, sources, shared)
        clustered += [f"{WORDS[quantity]} of {name}" for name in widened]
        given = rate_cell_sd if quantity == "rate" else None
        for a, b in combinations(range(len(found)), 2):
            names = list(groups)[a], list(groups)[b]
            dead = [_dead(sources, name) for name in names] if quantity == "inactive" else []
            pairs.append(Comparing(quantity, *names, found[a], found[b], alpha).pair(mean, a, b, given, dead))
    warnings = _warnings(sources, shared, groups)
    if clustered:
        warnings.append(f"Neighbouring particles agree, so that they count for fewer: {', '.join(clustered)}.")
    return Comparison(
        {name: [str(run.path) for run in runs] for name, runs in groups.items()}, alpha, tuple(shared),
        tuple(_cell(cell, k, numbers) for k, cell in enumerate(sources)), tuple(with_holm(pairs)),
        tuple(warnings), tuple(sources), means,
    )  # fmt: skip


def _cells(groups: Mapping[str, Sequence[RunData]]) -> list[Cell]:
    """Named by their files; by the whole path where two files have one name."""
    stems = [run.path.stem for runs in groups.values() for run in runs]
    return [
        Cell.of(group, run.path.stem if stems.count(run.path.stem) == 1 else str(run.path), run)
        for group, runs in groups.items()
        for run in runs
    ]


def log_rates(sources: Sequence[Cell], shared: Sequence[Condition]) -> list[list[np.ndarray]]:
    """[condition][cell] (P,) logarithms of the rate."""
    return [[cell_numbers.log_rates(cell, k, each) for k, cell in enumerate(sources)] for each in shared]


def relative_rates(sources: Sequence[Cell], shared: Sequence[Condition]) -> list[np.ndarray]:
    """[cell] (P,) logarithms of the rate over the mean of the cells, all conditions together."""
    logs = log_rates(sources, shared)
    return cell_numbers.combined(logs) if logs else [np.full(len(cell.run.particle_id), np.nan) for cell in sources]


def retentions(sources: Sequence[Cell], shared: Sequence[Condition]) -> list[np.ndarray]:
    """[cell] (P,) retention in the last half that the cells share."""
    return [cell_numbers.retained(cell, k, shared) for k, cell in enumerate(sources)]


def _numbers(sources: Sequence[Cell], shared: Sequence[Condition]) -> dict[str, list[Estimate]]:
    """Every quantity's estimate, a cell each."""
    rates = relative_rates(sources, shared)
    return {
        "rate": [cell_numbers.location(each) for each in rates],
        "spread": [cell_numbers.log_spread(each) for each in rates],
        "inactive": _inactive(sources),
        "retention": [cell_numbers.location(each) for each in retentions(sources, shared)],
    }


def _widened(
    quantity: str, found: list[list[Estimate]], sources: Sequence[Cell], shared: Sequence[Condition]
) -> tuple[list[list[Estimate]], list[str]]:
    """Locations of single cells, less sure where neighbours agree; and of which cells that is so."""
    of = {"rate": relative_rates, "retention": retentions}.get(quantity)
    if of is None:
        return found, []
    factors = [cell_numbers.clustering(cell, each) for cell, each in zip(sources, of(sources, shared), strict=True)]
    at = iter(factors)
    wide = [[replace(each, sigma=each.sigma * next(at)) for each in group] for group in found]
    return wide, [cell.name for cell, factor in zip(sources, factors, strict=True) if factor > 1]


def _inactive(sources: Sequence[Cell]) -> list[Estimate]:
    """Fractions with the binomial standard error of the common fraction: a cell's own would weigh cells by their
    luck."""
    counts = [cell_numbers.inactive(cell) for cell in sources]
    known = [each for each in counts if each is not None]
    common = (sum(dead for dead, _ in known) + 1) / (sum(total for _, total in known) + 2)
    return [
        Estimate(each[0] / each[1], math.sqrt(common * (1 - common) / each[1]), math.inf, each[1])
        if each is not None else cell_numbers.UNKNOWN
        for each in counts
    ]  # fmt: skip


def _dead(sources: Sequence[Cell], group: str) -> tuple[int, int]:
    counts = [cell_numbers.inactive(cell) for cell in sources if cell.group == group]
    return sum(each[0] for each in counts if each), sum(each[1] for each in counts if each)


def _cell(cell: Cell, k: int, numbers: dict[str, list[Estimate]]) -> CellNumbers:
    counts = cell_numbers.inactive(cell)
    values = {name: math.exp(found[k].value) if name in RATIOS else found[k].value for name, found in numbers.items()}
    return CellNumbers(
        cell.group, cell.name, str(cell.run.path), len(cell.run.particle_id), values,
        {name: found[k].sigma for name, found in numbers.items()}, counts[0] if counts else None,
        counts[1] if counts else None, {name: found[k].count for name, found in numbers.items()},
    )  # fmt: skip


def _told(quantity: str, mean: Estimate, alpha: float) -> dict[str, float | int]:
    lo, hi = mean.interval(1 - alpha) if mean.sigma > 0 and mean.free > 0 else (math.nan, math.nan)
    value, lo, hi = (math.exp(min(v, 700)) if quantity in RATIOS else v for v in (mean.value, lo, hi))
    return {"value": value, "lo": lo, "hi": hi, "cells": mean.count}


def _warnings(
    sources: Sequence[Cell], shared: Sequence[Condition], groups: Mapping[str, Sequence[RunData]]
) -> list[str]:
    """What keeps the comparison from being one of like with like."""
    found = []
    if len(sources) == len(groups):
        found.append(
            "Every group is one cell, one field of view: one replicate each. Differences are those of two cells."
            " Whether batches differ takes two cells or more a group."
        )
    names = [cell.name for cell in sources]
    bare = [names[k] for k in without_record([cell.halves for cell in sources])]
    if bare and len(bare) < len(sources):
        found.append(f"Without a cell's record, so left out of rates and retention: {', '.join(bare)}.")
    elif bare:
        found.append(
            "No run has a cell's record: that the C-rates are equal is not known, and rates are compared all the same."
        )
    empty = [cell.name for cell in sources if not cell.halves]
    if empty:
        found.append(f"No half has ended, so no rates and no retention: {', '.join(empty)}.")
    if not shared and not empty and len(bare) in (0, len(sources)):
        found.append(
            "No half of one has the kind and current (within 10 %) of a half of another: rates are not compared."
        )
    for each in shared:
        absent = [
            name for k, name in enumerate(names) if k not in each.cycles and sources[k].halves and name not in bare
        ]
        if absent:
            found.append(f"Different protocols: no {each.words} in {', '.join(absent)}.")
    for key, what in (("electrode", "electrodes"), ("pixel_size_nm", "pixel sizes")):
        if len({cell.run.metadata.get(key) for cell in sources}) > 1:
            found.append(f"The runs have different {what}.")
    return found


def plain(value: Any) -> Any:
    """Numbers that are not finite as None, all the way down, for JSON."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
