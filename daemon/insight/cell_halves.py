"""The cell's record cut into the halves that the `cycles` table counts, and what each passed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daemon.cell.samples import CellRow
from daemon.insight.run_data import Columns, RunData
from daemon.photometry.halves import CellTrack, Half

MAX_ROWS = 200_000  # a few seconds of cutting; beyond, evenly thinned, which moves a half's ends by a sample
MIN_SHARE = 0.05  # of the largest half: shorter ones are scraps of a step that was broken off


@dataclass(frozen=True)
class CellHalf:
    """One half with its samples, (N,) each."""

    cycle: int
    half: str
    """`charge` or `discharge`."""
    start_t_s: float
    end_t_s: float
    """With the rests after its current."""
    drive_end_t_s: float
    mean_current_ma: float
    passed_mah: float
    """Magnitude."""
    t_s: np.ndarray
    voltage_v: np.ndarray
    current_ma: np.ndarray
    charge_mah: np.ndarray
    """Net since the record began, positive on charge."""
    whole: bool
    """False when the record ends while its current flows: it may be cut."""

    @property
    def driven(self) -> np.ndarray:
        """(N,) bool: the samples before the rests that end it."""
        return self.t_s <= self.drive_end_t_s


def cell_halves(run: RunData) -> list[CellHalf]:
    """In order of time; empty without a record or without current."""
    record = thinned(run.echem, MAX_ROWS)
    if not len(record["t_s"]):
        return []
    capacity = run.metadata.get("capacity_mah")
    track, found = CellTrack(float(capacity) if capacity else None), []
    for row in _rows(record):
        track.add((row,))
        found += [track.closed.popleft() for _ in range(len(track.closed))]
    whole = len(found)
    track.finish()
    found += track.closed
    return [
        _half(half, n < whole or half.end_t_s > half.drive_end_t_s)
        for n, half in enumerate(found)
        if half.sign and len(half.samples) > 1
    ]


def thinned(columns: Columns, rows: int) -> Columns:
    """At most about `rows` rows, evenly chosen."""
    stride = max(1, -(-len(next(iter(columns.values()))) // rows))
    return {name: values[::stride] for name, values in columns.items()}


def capacity_mah(run: RunData, halves: list[CellHalf]) -> tuple[float, str]:
    """What 1C refers to, and where that comes from; NaN when there is neither a capacity nor a whole half."""
    given = run.metadata.get("capacity_mah")
    if given:
        return float(given), "the capacity given for the run"
    passed = [half.passed_mah for half in halves if half.whole]
    return (max(passed), "the largest charge of a half") if passed else (np.nan, "unknown")


def substantial(halves: list[CellHalf]) -> list[CellHalf]:
    """Without the scraps: halves that passed at least a twentieth of the largest."""
    most = max((half.passed_mah for half in halves), default=0.0)
    return [half for half in halves if half.passed_mah >= MIN_SHARE * most > 0]


def _rows(record: Columns) -> list[CellRow]:
    names = ("t_s", "voltage_v", "current_ma", "charge_mah")
    values = zip(*(record[name].tolist() for name in names), record["step_kind"].tolist(), strict=True)
    return [CellRow(t, float("nan"), v, i, 0, 0, kind or "charge", q) for t, v, i, q, kind in values]


def _half(half: Half, whole: bool) -> CellHalf:
    t_s, voltage_v, current_ma, charge_mah = np.array(half.samples).T
    return CellHalf(
        half.cycle, half.name, half.start_t_s, half.end_t_s, half.drive_end_t_s, half.mean_current_ma,
        abs(half.passed_mah), t_s, voltage_v, current_ma, charge_mah, whole,
    )  # fmt: skip
