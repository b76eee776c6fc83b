"""Readings of the unit's buffer as samples on one clock."""

from __future__ import annotations

import math

from hw.potentiostat.contract import CellMode, CellSample

LEAST_STEP_S = 1e-6


class Readings:
    """Waits for whoever reads. The unit's relative times begin anew whenever its buffer is cleared; these do not."""

    def __init__(self) -> None:
        self.fetched = 0
        """Entries of the buffer that were taken."""
        self._waiting: list[CellSample] = []
        self._zero_s = self._last_host_s = math.nan
        self._last_s = 0.0

    def cleared(self) -> None:
        """The buffer was emptied."""
        self.fetched, self._zero_s = 0, math.nan

    def add(self, voltage_v: float, current_ma: float, relative_s: float, host_s: float, mode: CellMode) -> None:
        """Take an entry in order; `host_s` is when the host believes it was taken (`time.monotonic()`)."""
        passed_s = host_s - self._last_host_s if math.isfinite(self._last_host_s) else 0.0
        if math.isnan(self._zero_s):
            self._zero_s = self._last_s + max(passed_s, LEAST_STEP_S) - relative_s
        self._last_s = max(self._zero_s + relative_s, self._last_s + LEAST_STEP_S)
        self._last_host_s = host_s if passed_s >= 0 else self._last_host_s
        self._waiting.append(CellSample(self._last_s, self._last_host_s, voltage_v, current_ma, mode))
        self.fetched += 1

    def take(self) -> list[CellSample]:
        """What came since the last call."""
        samples, self._waiting = self._waiting, []
        return samples

    def __len__(self) -> int:
        return len(self._waiting)
