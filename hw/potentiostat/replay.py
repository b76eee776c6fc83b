"""A potentiostat that plays the cell's record of a recording back. It drives nothing."""

from __future__ import annotations

import time
from typing import NoReturn

import numpy as np

from hw.camera.replay import ReplaySettings
from hw.errors import CellReason, PotentiostatError, RecordingError
from hw.potentiostat.contract import CellMode, CellSample, DeviceLimits, HostLoss, Potentiostat, PotentiostatInfo
from hw.recording import CellRecord, open_recording

_MOST_SAMPLES = 1000
"""Samples of one `read`: a long record played at full speed comes in portions."""


class ReplayPotentiostat(Potentiostat):
    """The potentiostat contract over a recording's cell record, on the clock of its frames.

    Takes the settings of `hw.camera.replay`. The pace counts from the first `read`; device times are the recording's,
    so that frames and samples match whatever the moment each driver was started.
    """

    Settings = ReplaySettings

    def __init__(self, settings: ReplaySettings) -> None:
        self._settings = settings
        self._cell: CellRecord | None = None
        self._period_s = 0.0
        self._next = 0
        self._rounds = 0
        self._started_s: float | None = None

    def open(self) -> PotentiostatInfo:
        """Read the record. Raises `PotentiostatError` when the recording has none."""
        path = self._settings.path
        try:
            with open_recording(path, self._settings.overrides) as recording:
                cell, info, capacity_mah = recording.cell, recording.info, recording.capacity_mah
                self._period_s = recording.period_s
        except RecordingError as error:
            raise PotentiostatError(error.reason, error.detail) from error
        if cell is not None and self._settings.loop:
            cell = _during(cell, self._period_s)
        if cell is None or len(cell.t_s) == 0:
            raise PotentiostatError(CellReason.NOT_FOUND, f"the recording '{path}' carries no record of the cell")
        self._cell, self._next, self._rounds, self._started_s = cell, 0, 0, None
        return PotentiostatInfo(
            model="recording",
            serial=path.name,
            max_current_ma=float(np.abs(cell.current_ma).max()),
            min_voltage_v=float(cell.voltage_v.min()),
            max_voltage_v=float(cell.voltage_v.max()),
            sample_rate_hz=_rate_hz(cell),
            host_loss=HostLoss.NOT_APPLICABLE,
            host_loss_after_s=None,
            capacity_mah=capacity_mah,
            clock_id=info.clock_id,
            clock_rate=self._settings.speed or 1.0,
        )

    def mode(self) -> CellMode:
        """Off: no circuit is closed by a replay."""
        return CellMode.OFF

    def set_limits(self, limits: DeviceLimits) -> bool:
        """False: there is no device that could enforce them."""
        return False

    def set_current(self, current_ma: float) -> None:
        """Raises `PotentiostatError` (READ_ONLY)."""
        self._refuse(f"set a current of {current_ma} mA")

    def set_voltage(self, voltage_v: float, max_current_ma: float) -> None:
        """Raises `PotentiostatError` (READ_ONLY)."""
        self._refuse(f"hold {voltage_v} V")

    def _refuse(self, what: str) -> NoReturn:
        raise PotentiostatError(CellReason.READ_ONLY, f"the replay of '{self._settings.path.name}' cannot {what}")

    def cell_off(self) -> None:
        """Nothing to switch: succeeds."""

    def keep_alive(self) -> None:
        """Nothing depends on the host."""

    def read(self, timeout_s: float) -> list[CellSample]:
        """Samples whose time has come. Raises `PotentiostatError` (ENDED) after the last."""
        cell = self._opened()
        now_s = time.monotonic()
        if self._started_s is None:
            self._started_s = now_s
        if self._next == len(cell.t_s):
            if not self._settings.loop:
                detail = f"the record of the cell in '{self._settings.path.name}' has ended"
                raise PotentiostatError(CellReason.ENDED, detail)
            self._next, self._rounds = 0, self._rounds + 1
        due_s = self._due_s(float(cell.t_s[self._next]))
        if due_s > now_s:
            time.sleep(min(due_s - now_s, timeout_s))
        return self._take(cell, self._last_due(cell))

    def _opened(self) -> CellRecord:
        if self._cell is None:
            raise PotentiostatError(CellReason.NOT_FOUND, f"the recording '{self._settings.path}' is not open")
        return self._cell

    def _due_s(self, t_s: float) -> float:
        """`time.monotonic()` at which the sample of `t_s` is to be delivered; at once when the speed is 0."""
        if self._settings.speed == 0 or self._started_s is None:
            return 0.0
        return self._started_s + (t_s + self._rounds * self._period_s) / self._settings.speed

    def _last_due(self, cell: CellRecord) -> int:
        """Index behind the last sample whose time has come."""
        most = min(self._next + _MOST_SAMPLES, len(cell.t_s))
        if self._settings.speed == 0 or self._started_s is None:
            return most
        t_s = (time.monotonic() - self._started_s) * self._settings.speed - self._rounds * self._period_s
        return min(int(np.searchsorted(cell.t_s, t_s, side="right")), most)

    def _take(self, cell: CellRecord, stop: int) -> list[CellSample]:
        offset_s, host_t_s = self._rounds * self._period_s, time.monotonic()
        samples = [
            CellSample(float(t_s) + offset_s, host_t_s, float(voltage_v), float(current_ma), _mode(float(current_ma)))
            for t_s, voltage_v, current_ma in zip(
                cell.t_s[self._next : stop],
                cell.voltage_v[self._next : stop],
                cell.current_ma[self._next : stop],
                strict=True,
            )
        ]
        self._next = max(stop, self._next)
        return samples

    def close(self) -> None:
        """Forget the record; idempotent."""
        self._cell = None


def _during(cell: CellRecord, period_s: float) -> CellRecord:
    """The samples within one round of the frames, so that times go on rising when it repeats."""
    part = (cell.t_s >= 0) & (cell.t_s < period_s)
    return CellRecord(cell.t_s[part], cell.voltage_v[part], cell.current_ma[part], cell.charge_mah[part])


def _rate_hz(cell: CellRecord) -> float:
    return 1.0 / float(np.median(np.diff(cell.t_s))) if len(cell.t_s) > 1 else 1.0


def _mode(current_ma: float) -> CellMode:
    """What the record shows: a current that flows was driven; whether by current or by voltage, it does not say."""
    return CellMode.GALVANOSTATIC if current_ma else CellMode.OFF
