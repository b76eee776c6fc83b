"""What the cell did in each half, and which halves of several runs can be compared: same kind, same rate, same age."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.cell.samples import CellRow
from daemon.insight.run_data import RunData
from daemon.photometry.cycles import SAME_RATE
from daemon.photometry.halves import CellTrack, Half
from daemon.tables import HALVES

WHOLE_SHARE = 0.5
"""A half that passed less than this share of the most in a half of its kind was cut short: it has no rate to
compare."""
MAX_HALVES = 10
"""Halves of one kind and rate whose rates are taken together; later ones are of an aged cell."""


@dataclass(frozen=True)
class HalfFacts:
    """One half as the cell's record has it; NaN where there is no record, or no capacity."""

    cycle: int
    half: str
    current_ma: float
    c_rate: float
    passed_mah: float


@dataclass(frozen=True)
class Condition:
    """Halves of one kind and rate that all runs named have: `cycles` by the run's number, equally many each."""

    half: str
    rate: float
    """C-rate, or mA; NaN where no run has a record."""
    by_c_rate: bool
    cycles: dict[int, list[int]]

    @property
    def words(self) -> str:
        """``charge at 0.5C``."""
        if math.isnan(self.rate):
            return f"{self.half}, current unknown"
        return f"{self.half} at {self.rate:.3g}{'C' if self.by_c_rate else ' mA'}"


def halves(run: RunData) -> list[HalfFacts]:
    """Every half of the cycles table, in order, cut as the run's science cut them."""
    capacity_mah = _capacity_mah(run.metadata)
    told = {(half.cycle, half.name): half for half in _closed(run, capacity_mah)}
    found = []
    for cycle, name in sorted(set(zip(run.cycles["cycle"].astype(int).tolist(), run.cycles["half"], strict=True))):
        half = told.get((cycle, name))
        current = half.mean_current_ma if half is not None else math.nan
        passed = abs(half.passed_mah) if half is not None else math.nan
        found.append(HalfFacts(cycle, str(name), current, current / (capacity_mah or math.nan), passed))
    return found


def conditions(runs: Sequence[list[HalfFacts]]) -> list[Condition]:
    """What at least two runs share. By C-rate where every run's capacity is known, else by current; by kind alone where
    no run has a record."""
    recorded = [any(math.isfinite(half.current_ma) for half in run) for run in runs]
    by_c_rate = all(
        any(math.isfinite(h.c_rate) for h in run) for run, known in zip(runs, recorded, strict=True) if known
    )
    found = []
    for kind in HALVES:
        mine = [_whole([half for half in run if half.half == kind]) for run in runs]
        if not any(recorded):
            found.append(_condition(kind, math.nan, False, [[half.cycle for half in run] for run in mine]))
            continue
        rate = [[(h.c_rate if by_c_rate else h.current_ma, h.cycle) for h in run] for run in mine]
        for level in _levels([value for run in rate for value, _ in run]):
            same = [[cycle for value, cycle in run if abs(value - level) <= SAME_RATE * level] for run in rate]
            found.append(_condition(kind, level, by_c_rate, same))
    return [each for each in found if len(each.cycles) > 1]


def without_record(runs: Sequence[list[HalfFacts]]) -> list[int]:
    """Numbers of the runs that have halves and no cell's record to tell their current."""
    return [k for k, run in enumerate(runs) if run and not any(math.isfinite(half.current_ma) for half in run)]


def _condition(kind: str, rate: float, by_c_rate: bool, cycles: list[list[int]]) -> Condition:
    have = {k: sorted(each) for k, each in enumerate(cycles) if each}
    common = min((len(each) for each in have.values()), default=0)
    return Condition(kind, rate, by_c_rate, {k: each[:common] for k, each in have.items()})


def _levels(values: list[float]) -> list[float]:
    """Rates that differ by more than one tenth, each the first of its kind; slower ones first."""
    levels: list[float] = []
    for value in sorted(v for v in values if math.isfinite(v) and v > 0):
        if not levels or value > levels[-1] * (1 + SAME_RATE):
            levels.append(value)
    # the middle of what is together, so that a level does not lean towards its slowest member
    return [float(np.median([v for v in values if low <= v <= low * (1 + SAME_RATE)])) for low in levels]


def _whole(halves_of_kind: list[HalfFacts]) -> list[HalfFacts]:
    most = max((half.passed_mah for half in halves_of_kind if math.isfinite(half.passed_mah)), default=math.nan)
    return [half for half in halves_of_kind if not half.passed_mah < WHOLE_SHARE * most]


def _closed(run: RunData, capacity_mah: float | None) -> list[Half]:
    """The record cut by the code that cut it for the science."""
    track, found = CellTrack(capacity_mah), []
    record = run.echem
    names = ("t_s", "voltage_v", "current_ma", "charge_mah")
    samples = zip(*(record[name].tolist() for name in names), record["step_kind"], strict=True)
    for t_s, voltage_v, current_ma, charge_mah, kind in samples:
        track.add([CellRow(t_s, math.nan, voltage_v, current_ma, 0, 0, kind, charge_mah)])
        while track.closed:
            found.append(track.closed.popleft())
    track.finish()
    return [*found, *track.closed]


def _capacity_mah(metadata: dict[str, Any]) -> float | None:
    value = metadata.get("capacity_mah")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else None
