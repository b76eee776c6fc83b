"""What every potentiostat driver is and does.

Sign convention: positive current charges the cell (Battery Data Format). Drivers are synchronous and used by one
thread only: they construct cheaply, touch the world in `open`, and `close` is idempotent and leaves the cell off.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum


class CellMode(StrEnum):
    """What the potentiostat does to the cell."""

    OFF = "off"
    """Open circuit: no current can flow."""
    GALVANOSTATIC = "galvanostatic"
    POTENTIOSTATIC = "potentiostatic"


class HostLoss(StrEnum):
    """What happens to the cell when the host disappears, stated by each driver and shown in the status."""

    CELL_OFF = "cell-off"
    """The device switches the cell off by itself after `host_loss_after_s`."""
    CONTINUE_TO_END = "continue-to-end"
    """The device finishes its bounded script, then switches the cell off."""
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True)
class PotentiostatInfo:
    """What an opened potentiostat says of itself."""

    model: str
    serial: str
    max_current_ma: float
    min_voltage_v: float
    max_voltage_v: float
    sample_rate_hz: float
    """Samples a second of the device's own clock."""
    host_loss: HostLoss
    host_loss_after_s: float | None
    capacity_mah: float | None = None
    """Nominal capacity of the cell, when the source knows it."""
    clock_id: str = ""
    clock_rate: float = 1.0
    """Device seconds that pass in one host second; 1 for every real instrument, more for an accelerated twin."""
    host_loss_bound_s: float | None = None
    """CONTINUE_TO_END: the cell is off after this at the latest, where the plan names no bound of its own."""


@dataclass(frozen=True)
class CellSample:
    """One reading. `current_ma` > 0 charges the cell."""

    device_t_s: float
    host_t_s: float
    voltage_v: float
    current_ma: float
    mode: CellMode
    stopped_by: str = ""
    """What made the device itself open the circuit right after this reading; empty: nothing did."""


@dataclass(frozen=True)
class StepBounds:
    """What the next command may come to at most, and where it ends; None: the plan does not say."""

    longest_s: float | None = None
    """Of the device's time, from the command on."""
    most_mah: float | None = None
    """Charge that passes either way from the command on."""
    end_voltage_v: float | None = None
    """Where a current is no longer driven."""
    end_current_ma: float | None = None
    """Size of the current to which a held voltage's falls."""


@dataclass(frozen=True)
class DeviceLimits:
    """Limits the device itself enforces where its protocol allows: it switches the cell off when one is passed."""

    min_voltage_v: float
    max_voltage_v: float
    max_current_ma: float


class Potentiostat(ABC):
    """A device that drives and reads one cell."""

    @abstractmethod
    def open(self) -> PotentiostatInfo:
        """Claim the device and describe it; does not change the cell. Raises `PotentiostatError`."""

    @abstractmethod
    def mode(self) -> CellMode:
        """What the device is doing to the cell now (asked after `open`: a cell may be found on)."""

    @abstractmethod
    def set_limits(self, limits: DeviceLimits) -> bool:
        """Hand the limits to the device; False when it has none and the host must watch alone."""

    def set_bounds(self, bounds: StepBounds) -> bool:
        """What the plan knows of the next `set_current` or `set_voltage`; False when the device has no use for it.

        The host goes on ending steps by itself: a device that has bounds of its own takes them as a backstop.
        """
        return False

    @abstractmethod
    def set_current(self, current_ma: float) -> None:
        """Drive a constant current. Raises `PotentiostatError` (REFUSED) outside the device's range."""

    @abstractmethod
    def set_voltage(self, voltage_v: float, max_current_ma: float) -> None:
        """Hold a voltage with the current bounded by the device. Raises `PotentiostatError`."""

    @abstractmethod
    def cell_off(self) -> None:
        """Open the circuit; returns when the device confirmed it. Raises `PotentiostatError` when it did not."""

    @abstractmethod
    def read(self, timeout_s: float) -> list[CellSample]:
        """Samples since the last call, oldest first; waits up to `timeout_s` for the first. Empty when none came."""

    @abstractmethod
    def keep_alive(self) -> None:
        """Tell the device that its host lives (feeds `host_loss`); cheap, called at least once a second."""

    @abstractmethod
    def close(self) -> None:
        """Cell off, then release the device; idempotent, never raises."""
