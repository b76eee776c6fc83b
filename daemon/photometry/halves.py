"""The cell's record cut into halves: charge and discharge, by the sign of the current with hysteresis."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from daemon.cell.samples import CellRow

MAX_SAMPLES = 4096
"""Samples kept a half; when full, every second one goes."""
MAX_RESTS = 1024
MAX_CLOSED = 64
"""Finished halves that may wait for the camera's frames to catch up; the oldest goes first."""
IDLE_SHARE = 0.005
"""Without a capacity: currents below this share of the largest seen are rest."""
IDLE_C_RATE = 1 / 500
CONFIRM_CAPACITY = 0.002
"""Share of the capacity that must flow the other way before a new half begins."""
CONFIRM_SHARE = 0.01
"""Without a capacity: share of the present half's charge instead."""
HOLD_V, HOLD_SHARE, HOLD_CURRENT_SPREAD = 0.003, 0.5, 0.2
"""A voltage is held when half of the samples lie this close to the median while the current moves by a fifth."""
BACKWARD_S = 1.0
"""A sample may lie this much before its predecessor (the clock relation was refined) and still counts, at its time."""


@dataclass
class Rest:
    """A stretch without current."""

    start_t_s: float
    end_t_s: float


@dataclass
class Half:
    """One charge (+1) or discharge (-1) with the rests after its current; sign 0 is the lead-in before any current."""

    index: int
    """Counts from 0; -1 for the lead-in."""
    sign: int
    start_t_s: float
    end_t_s: float = math.nan
    """NaN while it lasts."""
    drive_end_t_s: float = math.nan
    """Last sample with current."""
    drive_s: float = 0.0
    """Time with current."""
    start_mah: float = 0.0
    turn_mah: float = 0.0
    """Net charge at its farthest."""
    rests: list[Rest] = field(default_factory=list)
    samples: list[tuple[float, float, float, float]] = field(default_factory=list)
    """(t_s, voltage_v, current_ma, charge_mah), thinned to `MAX_SAMPLES`."""
    _stride: int = 1
    _skipped: int = 0

    @property
    def cycle(self) -> int:
        """Two halves make a cycle, counted from 0."""
        return self.index // 2

    @property
    def name(self) -> str:
        """`charge` or `discharge`; empty for the lead-in."""
        return {1: "charge", -1: "discharge"}.get(self.sign, "")

    @property
    def end_mah(self) -> float:
        """Net charge at its last sample."""
        return self.samples[-1][3] if self.samples else self.start_mah

    @property
    def passed_mah(self) -> float:
        """Net charge passed, positive on charge."""
        return self.end_mah - self.start_mah

    @property
    def mean_current_ma(self) -> float:
        """Magnitude of the mean current while it flowed; NaN when none did."""
        return abs(self.passed_mah) / (self.drive_s / 3600.0) if self.drive_s > 0 else math.nan

    @property
    def hold_v(self) -> float:
        """The voltage held over most of the time with current while that fell or rose; NaN under constant current."""
        driven = np.array([sample[1:3] for sample in self.samples if self.start_t_s <= sample[0] <= self.drive_end_t_s])
        if len(driven) < 4:
            return math.nan
        volts, current = driven[1:].T
        held = np.abs(volts - np.median(volts)) <= HOLD_V
        low, middle, high = np.quantile(np.abs(current[held]), [0.1, 0.5, 0.9]) if held.any() else (0.0, 1.0, 0.0)
        moved = high - low > HOLD_CURRENT_SPREAD * middle
        return float(np.median(volts)) if held.mean() >= HOLD_SHARE and moved else math.nan

    def add(self, sample: tuple[float, float, float, float]) -> None:
        """Append a sample; the newest is always kept."""
        if self.samples and self._skipped:
            self.samples[-1] = sample
        else:
            self.samples.append(sample)
        self._skipped = (self._skipped + 1) % self._stride
        if len(self.samples) >= MAX_SAMPLES:
            self.samples = [*self.samples[:-1:2], self.samples[-1]]
            self._stride *= 2

    def interpolate(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Voltage, current and charge at `t_s`; NaN outside the record."""
        if not self.samples:
            return np.full(t_s.shape, np.nan), np.full(t_s.shape, np.nan), np.full(t_s.shape, np.nan)
        time, *columns = np.array(self.samples).T
        volts, current, charge = (np.interp(t_s, time, column, np.nan, np.nan) for column in columns)
        return volts, current, charge


class CellTrack:
    """Cuts the record as it arrives. Results depend on the rows only, not on how they were grouped."""

    def __init__(self, capacity_mah: float | None) -> None:
        self._capacity_mah = capacity_mah
        self.current = Half(-1, 0, -math.inf)
        self.closed: deque[Half] = deque(maxlen=MAX_CLOSED)
        self.rejected = 0
        """Rows left out: not finite, or back in time."""
        self._largest_ma = 0.0
        self._charge_mah = 0.0
        self._last: CellRow | None = None
        self._last_t_s = -math.inf
        self._was_driven = False
        self._candidate: list[tuple[tuple[float, float, float, float], int, float]] = []

    @property
    def has_record(self) -> bool:
        """Whether any sample has come."""
        return self._last is not None

    @property
    def has_halves(self) -> bool:
        """Whether any current has flown."""
        return self.current.index >= 0

    @property
    def settled_t_s(self) -> float:
        """Up to here it is certain which half an instant belongs to."""
        return self._candidate[0][0][0] if self._candidate else self._last_t_s

    def add(self, rows: Iterable[CellRow]) -> None:
        """Take samples in order."""
        for row in rows:
            self._add(row)

    def finish(self) -> None:
        """End the record: what is open ends at its last sample."""
        self._release_candidate(self.current)
        if self.current.index >= 0:
            self._close(self._last_t_s)

    def _add(self, row: CellRow) -> None:
        finite = all(map(math.isfinite, (row.t_s, row.voltage_v, row.current_ma)))
        if not finite or row.t_s < self._last_t_s - BACKWARD_S:
            self.rejected += 1
            return
        t_s = max(row.t_s, self._last_t_s)
        elapsed_s = t_s - self._last_t_s if self._last else 0.0
        self._charge_mah += self._charge_step(row, elapsed_s)
        self._largest_ma = max(self._largest_ma, abs(row.current_ma))
        self._last, self._last_t_s = row, t_s
        sample = (t_s, row.voltage_v, row.current_ma, self._charge_mah)
        self._place(sample, self._sign(row), elapsed_s)

    def _charge_step(self, row: CellRow, elapsed_s: float) -> float:
        """The record's own coulometry, or the trapezoid where that is missing or was set back by a new experiment."""
        last = self._last
        if last is None:
            return 0.0
        trapezoid = (last.current_ma + row.current_ma) / 2.0 * elapsed_s / 3600.0
        step = row.charge_mah - last.charge_mah
        bound = 1.5 * max(abs(last.current_ma), abs(row.current_ma)) * elapsed_s / 3600.0 + 1e-9
        return step if math.isfinite(step) and abs(step) <= bound else trapezoid

    def _sign(self, row: CellRow) -> int:
        if row.step_kind in ("rest", "off"):
            return 0
        idle_ma = self._capacity_mah * IDLE_C_RATE if self._capacity_mah else self._largest_ma * IDLE_SHARE
        return 0 if abs(row.current_ma) <= idle_ma else int(math.copysign(1, row.current_ma))

    def _place(self, sample: tuple[float, float, float, float], sign: int, elapsed_s: float) -> None:
        if sign not in (0, self.current.sign):
            self._candidate.append((sample, sign, elapsed_s))
            if self._confirmed():
                self._turn()
        else:
            self._release_candidate(self.current)
            self._append(self.current, sample, sign, elapsed_s)
        if len(self._candidate) >= MAX_SAMPLES:
            self._turn()

    def _confirmed(self) -> bool:
        """At least two samples, and enough charge back from the half's farthest point (short pulses add up)."""
        half = self.current
        if len(self._candidate) < 2:
            return False
        if half.index < 0:
            return True
        by_half = CONFIRM_SHARE * abs(half.turn_mah - half.start_mah)
        needed = CONFIRM_CAPACITY * self._capacity_mah if self._capacity_mah else by_half
        return abs(self._charge_mah - half.turn_mah) >= needed

    def _turn(self) -> None:
        t_s, _, _, charge_mah = self._candidate[0][0]
        self._close(t_s)
        sign = self._candidate[-1][1]
        self.current = Half(self.current.index + 1, sign, t_s, start_mah=charge_mah, turn_mah=charge_mah)
        self._release_candidate(self.current)

    def _close(self, end_t_s: float) -> None:
        half = self.current
        half.end_t_s = end_t_s
        if half.rests and math.isnan(half.rests[-1].end_t_s):
            half.rests[-1].end_t_s = end_t_s
        self.closed.append(half)

    def _release_candidate(self, half: Half) -> None:
        waiting, self._candidate = self._candidate, []
        for sample, sign, elapsed_s in waiting:
            self._append(half, sample, sign, elapsed_s)

    def _append(self, half: Half, sample: tuple[float, float, float, float], sign: int, elapsed_s: float) -> None:
        half.add(sample)
        if half.sign * (sample[3] - half.turn_mah) > 0:
            half.turn_mah = sample[3]
        resting = bool(half.rests) and math.isnan(half.rests[-1].end_t_s)
        if sign:
            half.drive_end_t_s = sample[0]
            if not resting and len(half.samples) > 1:
                half.drive_s += elapsed_s
            if resting:
                half.rests[-1].end_t_s = sample[0]
        elif not resting and len(half.rests) < MAX_RESTS:
            half.rests.append(Rest(sample[0], math.nan))
