"""SCPI over USBTMC: commands whose errors are looked for at once, and answers that are checked."""

from __future__ import annotations

import contextlib

from hw.errors import CellReason, PotentiostatError
from hw.usb.device import UsbDevice
from hw.usb.errors import UsbError, UsbReason
from hw.usb.usbtmc import UsbTmc

MOST_ERRORS = 32
"""Errors that are read from the unit's queue at a time; it holds fewer."""
RETRIES = 2
"""Of a query that timed out: taken back, it may be asked again."""

_REASONS = {
    UsbReason.NOT_FOUND: CellReason.NOT_FOUND,
    UsbReason.UNPLUGGED: CellReason.UNPLUGGED,
    UsbReason.TIMEOUT: CellReason.STALLED,
    UsbReason.STALLED: CellReason.STALLED,
}


def cell_error(error: UsbError) -> PotentiostatError:
    """The same as an error of a potentiostat; what is said of the bus alone keeps its own reason."""
    reason = _REASONS.get(error.reason)  # type: ignore[call-overload]
    return PotentiostatError(error.reason if reason is None else reason, error.detail)


class Scpi:
    """Talks to one unit. Methods raise `PotentiostatError`."""

    def __init__(self, device: UsbDevice, timeout_s: float) -> None:
        self._tmc = UsbTmc(device, UsbTmc.interface_of(device))
        self._name, self._timeout_s = device.found.name, timeout_s
        self.retries = 0
        """Queries that timed out and were asked again."""

    def clear(self) -> None:
        """Forget what a predecessor left half said."""
        try:
            self._tmc.clear()
        except UsbError as error:
            raise cell_error(error) from error

    def tell(self, *commands: str) -> None:
        """Send commands; an error of any of them is REFUSED with the unit's own words."""
        try:
            for command in commands:
                self._tmc.write(command.encode("ascii"), self._timeout_s)
        except UsbError as error:
            raise cell_error(error) from error
        if errors := self.errors():
            raise PotentiostatError(
                CellReason.REFUSED, f"{self._name} answered {'; '.join(errors)} to {' | '.join(commands)}"
            )

    def ask(self, query: str) -> str:
        """The answer to a query, without its end. A query that times out is taken back and asked again."""
        for attempt in range(RETRIES + 1):
            try:
                answer = self._tmc.query(query.encode("ascii"), self._timeout_s)
                return answer.decode("ascii").strip()
            except UnicodeDecodeError:
                fault = PotentiostatError(CellReason.STALLED, f"{self._name} answers '{query}' with garbage")
            except UsbError as error:
                fault = cell_error(error)
                if error.reason not in (UsbReason.TIMEOUT, UsbReason.PROTOCOL):
                    raise fault from error
            if attempt < RETRIES:
                self.retries += 1
                with contextlib.suppress(UsbError):
                    self._tmc.clear()
        raise fault

    def numbers(self, query: str) -> list[float]:
        """The answer as numbers. STALLED when it is none."""
        answer = self.ask(query)
        try:
            return [float(part) for part in answer.split(",")]
        except ValueError:
            raise PotentiostatError(
                CellReason.STALLED, f"{self._name} answered '{answer[:60]}' to '{query}', which is no number"
            ) from None

    def errors(self) -> list[str]:
        """What the unit's error queue holds, emptied by it."""
        found = []
        for _ in range(MOST_ERRORS):
            answer = self.ask("SYST:ERR?")
            if answer.startswith(("0,", "+0,")):
                break
            found.append(answer)
        return found

    def local(self) -> None:
        """Give the front panel back; never raises."""
        with contextlib.suppress(UsbError):
            self._tmc.remote(on=False)
