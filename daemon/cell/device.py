"""The potentiostat behind three rules: calls are timed, failures are typed, nothing energises without a permit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from daemon.cell.executor import SetCurrent, SetVoltage
from daemon.errors import CellReason, InstrumentError, PotentiostatError
from daemon.recipe import CellLimits
from hw.potentiostat.contract import (
    CellMode,
    CellSample,
    DeviceLimits,
    HostLoss,
    Potentiostat,
    PotentiostatInfo,
    StepBounds,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

OPEN_DEADLINE_S = 90.0  # a USB reset takes 8 s; the simulated cell compiles its physics once, in up to 60 s
COMMAND_DEADLINE_S = 3.0  # a script is uploaded and started in about one
KEEP_ALIVE_S = 0.5  # the contract asks for once a second
OFF_ATTEMPTS = 3
OFF_PAUSE_S = 0.05  # between attempts: a busy command buffer has drained by then


class Permits:
    """Permission to energise the cell. `withdraw` takes effect at once and from any thread."""

    def __init__(self) -> None:
        self._valid = object()

    def issue(self) -> object:
        """A permit that holds until the next `withdraw`."""
        return self._valid

    def withdraw(self) -> None:
        """Every permit issued so far is void."""
        self._valid = object()

    def holds(self, permit: object) -> bool:
        """Whether `permit` has not been withdrawn."""
        return permit is self._valid


class PermitWithdrawn(Exception):
    """The cell was told to be off since the permit was issued."""


@dataclass(frozen=True)
class OpenCall:
    """A driver call that has not returned yet."""

    name: str
    deadline_s: float


class Device:
    """One opened potentiostat, used from one thread; `overdue`, `abandon` and the attributes may be read from any."""

    def __init__(self, factory: Callable[[], Potentiostat], permits: Permits) -> None:
        self._factory = factory
        self._permits = permits
        self._driver: Potentiostat | None = None
        self._open_call: OpenCall | None = None
        self._kept_alive_s = 0.0
        self.abandoned = False
        self.on = False
        """The cell is or may be energised."""
        self.in_doubt = False
        """The device was told to switch off and has not confirmed it."""
        self.has_limits = False
        """The device watches the limits too."""

    @classmethod
    def around(cls, driver: Potentiostat, permits: Permits) -> Device:
        """For a last attempt to switch off a driver whose own thread hangs in it."""
        device = cls(lambda: driver, permits)
        device._driver = driver
        device.on = True
        return device

    @property
    def driver(self) -> Potentiostat | None:
        """For another `Device` to use when this one hangs."""
        return self._driver

    def open(self) -> tuple[PotentiostatInfo, CellMode]:
        """Build and open the driver; its description and what it is doing to the cell. Raises `InstrumentError`."""
        self._driver = self._built()
        self.on = True  # until it says otherwise; also for whoever gets round a call that hangs
        try:
            info = self._call("open", OPEN_DEADLINE_S, self._driver.open)
        except InstrumentError:
            self.on = False  # there is nothing to switch off: what is not known of the cell was not known before
            raise
        mode = self._call("mode", COMMAND_DEADLINE_S, self._driver.mode)
        self.on = mode is not CellMode.OFF
        return info, mode

    def _built(self) -> Potentiostat:
        try:
            return self._factory()
        except InstrumentError:
            raise
        except Exception as error:
            detail = f"the potentiostat's driver cannot be built: {type(error).__name__}: {error}"
            raise PotentiostatError(CellReason.FAULT, detail) from error

    def set_limits(self, limits: CellLimits, info: PotentiostatInfo) -> None:
        """Hand over as much of the limits as lies in the device's range. Raises `PotentiostatError`."""
        wanted = DeviceLimits(
            min_voltage_v=max(limits.min_voltage_v, info.min_voltage_v),
            max_voltage_v=min(limits.max_voltage_v, info.max_voltage_v),
            max_current_ma=min(limits.max_current_ma, info.max_current_ma),
        )
        self.has_limits = bool(self._call("set_limits", COMMAND_DEADLINE_S, self._opened().set_limits, wanted))

    def energise(self, command: SetCurrent | SetVoltage, bounds: StepBounds, permit: object) -> None:
        """Carry out `command`, which the device may bound itself, too.

        Raises `PermitWithdrawn`, with the circuit as it was or energised: switch it off.
        """
        if not self._permits.holds(permit) or self.in_doubt:
            raise PermitWithdrawn
        self.on = True
        driver = self._opened()
        self._call("set_bounds", COMMAND_DEADLINE_S, driver.set_bounds, bounds)
        if isinstance(command, SetCurrent):
            self._call("set_current", COMMAND_DEADLINE_S, driver.set_current, command.current_ma)
        else:
            self._call("set_voltage", COMMAND_DEADLINE_S, driver.set_voltage, command.voltage_v, command.max_current_ma)
        if not self._permits.holds(permit):
            raise PermitWithdrawn

    def doubt(self) -> None:
        """Count as energised until the device says otherwise: somebody may have switched it on at its panel."""
        self.on = self.on or self._driver is not None

    def switch_off(self) -> bool:
        """Open the circuit, in a few attempts; whether it is known to be open."""
        for attempt in range(1, OFF_ATTEMPTS + 1):
            try:
                self._call("cell_off", COMMAND_DEADLINE_S, self._opened().cell_off)
            except PotentiostatError as error:
                log.warning("switching the cell off, attempt %d of %d: %s", attempt, OFF_ATTEMPTS, error)
                if error.reason is CellReason.READ_ONLY:
                    self.on = False  # nothing there can be on
                elif error.reason is CellReason.IN_DOUBT:
                    self.on = True  # the device knows better than what was told before
                if self.abandoned or not self.on:
                    break
                time.sleep(OFF_PAUSE_S)
            else:
                self.on = self.in_doubt = False
                return True
        self.in_doubt = self.on
        return not self.on

    def read(self, timeout_s: float, deadline_s: float) -> list[CellSample]:
        """New samples, waiting up to `timeout_s` for the first. Raises `PotentiostatError`."""
        return self._call("read", timeout_s + deadline_s, self._opened().read, timeout_s)

    def keep_alive(self, now_s: float) -> None:
        """Tell the device that somebody watches, when it is time.

        Never while it is in doubt whether the cell is off: then the device's own loss of host is the last resort.
        """
        if self.in_doubt or now_s - self._kept_alive_s < KEEP_ALIVE_S:
            return
        self._call("keep_alive", COMMAND_DEADLINE_S, self._opened().keep_alive)
        self._kept_alive_s = now_s

    def close(self) -> None:
        """Switch off and release; never raises."""
        if self._driver is None:
            return
        if self.on or self.in_doubt:
            self.switch_off()
        try:
            self._call("close", COMMAND_DEADLINE_S, self._driver.close)
        except PotentiostatError as error:
            log.warning("closing the potentiostat: %s", error)

    def last_words(self) -> None:
        """After `abandon`, in the thread that hung, once it is free again: off and close, whatever went before."""
        self.abandoned = False
        self.on = True
        self.close()

    def abandon(self) -> None:
        """Let no further call through: the thread that uses this device does not come back in time."""
        self.abandoned = True

    def overdue(self, now_s: float) -> str | None:
        """Name of the driver call that has not returned by its deadline, if there is one."""
        call = self._open_call
        return call.name if call is not None and now_s > call.deadline_s else None

    def _opened(self) -> Potentiostat:
        if self._driver is None:
            raise PotentiostatError(CellReason.NOT_FOUND, "the potentiostat is not open")
        return self._driver

    def _call(self, name: str, limit_s: float, function: Callable[..., T], *args: object) -> T:
        if self.abandoned:
            raise PotentiostatError(CellReason.HUNG, f"the potentiostat was given up before {name}")
        self._open_call = OpenCall(name, time.monotonic() + limit_s)
        try:
            return function(*args)
        except PotentiostatError:
            raise
        except Exception as error:
            log.exception("the driver failed in %s", name)
            detail = f"the potentiostat's driver failed in {name}: {type(error).__name__}: {error}"
            raise PotentiostatError(CellReason.FAULT, detail) from error
        finally:
            self._open_call = None


def can_be_driven(info: PotentiostatInfo) -> bool:
    """Whether there is a cell that could be energised: false for recordings and for no potentiostat at all."""
    return info.host_loss is not HostLoss.NOT_APPLICABLE
