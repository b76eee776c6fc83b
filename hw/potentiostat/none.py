"""No potentiostat: a camera watches a cell that somebody else drives, or none."""

from __future__ import annotations

import time

from pydantic import BaseModel, ConfigDict

from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.contract import CellMode, CellSample, DeviceLimits, HostLoss, Potentiostat, PotentiostatInfo

NAP_S = 0.05  # how soon `close` ends a wait in `read`


class NoPotentiostat(Potentiostat):
    """Has no range, gives no samples and refuses to drive."""

    class Settings(BaseModel):
        """No options."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open = False

    def open(self) -> PotentiostatInfo:
        """Always succeeds."""
        self._open = True
        return PotentiostatInfo(
            model="none",
            serial="",
            max_current_ma=0.0,
            min_voltage_v=0.0,
            max_voltage_v=0.0,
            sample_rate_hz=0.0,
            host_loss=HostLoss.NOT_APPLICABLE,
            host_loss_after_s=None,
        )

    def mode(self) -> CellMode:
        """Off: nothing here drives a cell."""
        return CellMode.OFF

    def set_limits(self, limits: DeviceLimits) -> bool:
        """There is no device to hand them to."""
        return False

    def set_current(self, current_ma: float) -> None:
        """Refused."""
        raise self._refusal(f"a current of {current_ma:g} mA")

    def set_voltage(self, voltage_v: float, max_current_ma: float) -> None:
        """Refused."""
        raise self._refusal(f"a voltage of {voltage_v:g} V")

    def cell_off(self) -> None:
        """True already."""

    def read(self, timeout_s: float) -> list[CellSample]:
        """Waits for `timeout_s`, or until closed; never a sample."""
        deadline = time.monotonic() + timeout_s
        while self._open and (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(left_s, NAP_S))
        return []

    def keep_alive(self) -> None:
        """Nobody listens."""

    def close(self) -> None:
        """Idempotent."""
        self._open = False

    @staticmethod
    def _refusal(what: str) -> PotentiostatError:
        return PotentiostatError(CellReason.READ_ONLY, f"no potentiostat is configured: {what} is refused")
