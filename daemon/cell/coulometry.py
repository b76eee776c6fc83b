"""Charge by trapezoids over the measured current, on the potentiostat's own clock."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

SECONDS_PER_HOUR = 3600.0
KEPT_CYCLES = 1000


@dataclass
class CycleCharge:
    """Charge that went each way within one cycle; both positive."""

    cycle: int
    charge_mah: float = 0.0
    discharge_mah: float = 0.0


class Coulometer:
    """Counts charge in mAh from (time, current) pairs, positive current charging.

    A repeated stamp replaces the current and adds nothing. Time that runs backwards adds nothing; when it then goes on
    from there, the clock was set back and counting goes on from there too. A gap longer than `max_gap_s` is bridged
    by the trapezoid like any other interval, and counted in `gaps` and `gap_s`. Values that are not finite are left
    out and counted in `rejected`.
    """

    def __init__(self, max_gap_s: float = math.inf) -> None:
        self._max_gap_s = max_gap_s
        self._last: tuple[float, float] | None = None
        self._behind: tuple[float, float] | None = None
        self.charged_mah = 0.0
        """Charge that went in, never negative."""
        self.discharged_mah = 0.0
        """Charge that came out, never negative."""
        self.cycles: deque[CycleCharge] = deque(maxlen=KEPT_CYCLES)
        """The latest cycles, oldest first; only for samples added with a cycle."""
        self.gaps = self.reversals = self.duplicates = self.rejected = 0
        self.gap_s = 0.0

    @property
    def net_mah(self) -> float:
        """What went in less what came out."""
        return self.charged_mah - self.discharged_mah

    @property
    def largest_mah(self) -> float:
        """The larger of what went in and what came out."""
        return max(self.charged_mah, self.discharged_mah)

    def add(self, t_s: float, current_ma: float, cycle: int = -1) -> None:
        """Count up to this sample; `cycle` (from 0) says whose charge it is, -1 nobody's."""
        if not (math.isfinite(t_s) and math.isfinite(current_ma)):
            self.rejected += 1
            return
        start = self._start_of_interval(t_s, current_ma)
        if start is not None:
            self._count(start, t_s, current_ma, cycle)

    def interrupt(self) -> None:
        """What passes until the next sample does not count."""
        self._last = self._behind = None

    def _start_of_interval(self, t_s: float, current_ma: float) -> tuple[float, float] | None:
        """Where the interval that ends now began; None when this sample ends none."""
        last, behind = self._last, self._behind
        if last is not None and t_s < last[0]:
            if behind is None or t_s <= behind[0]:
                self.reversals += 1
                self._behind = (t_s, current_ma)
                return None
            last = behind
        self._last, self._behind = (t_s, current_ma), None
        if last is not None and t_s == last[0]:
            self.duplicates += 1
            return None
        return last

    def _count(self, start: tuple[float, float], t_s: float, current_ma: float, cycle: int) -> None:
        dt_s = t_s - start[0]
        if dt_s > self._max_gap_s:
            self.gaps += 1
            self.gap_s += dt_s
        positive, negative = _trapezoid(start[1], current_ma, dt_s)
        self.charged_mah += positive
        self.discharged_mah += negative
        if cycle >= 0:
            book = self._book(cycle)
            book.charge_mah += positive
            book.discharge_mah += negative

    def _book(self, cycle: int) -> CycleCharge:
        if not self.cycles or self.cycles[-1].cycle != cycle:
            self.cycles.append(CycleCharge(cycle))
        return self.cycles[-1]


def _trapezoid(first_ma: float, second_ma: float, dt_s: float) -> tuple[float, float]:
    """(charge in, charge out) in mAh of a current that changes linearly; split where it passes zero."""
    hours = dt_s / SECONDS_PER_HOUR
    if first_ma * second_ma >= 0:
        area = 0.5 * (first_ma + second_ma) * hours
        return max(area, 0.0), max(-area, 0.0)
    turn = first_ma / (first_ma - second_ma)
    first = 0.5 * first_ma * turn * hours
    second = 0.5 * second_ma * (1 - turn) * hours
    return max(first, second), max(-first, -second)
