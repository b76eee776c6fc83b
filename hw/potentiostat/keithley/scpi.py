"""SCPI over USBTMC: commands whose errors are looked for at once, and answers that are checked."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator

from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.usb_errors import cell_error
from hw.usb.device import UsbDevice
from hw.usb.errors import UsbError, UsbReason
from hw.usb.usbtmc import UsbTmc

MOST_ERRORS = 32
"""Errors that are read from the unit's queue at a time; it holds fewer."""
RETRIES = 2
"""Of a query that was not answered: taken back, it may be asked again."""
LEAST_S = 0.1
"""A query is not asked again with less time than this."""
OVERFLOW = 9.9e36
"""The unit tells what it cannot measure as 9.9e37."""


class Scpi:
    """Talks to one unit. Methods raise `PotentiostatError`, within the time that `within` left them."""

    def __init__(self, device: UsbDevice, timeout_s: float) -> None:
        self._tmc = UsbTmc(device, UsbTmc.interface_of(device))
        self._name, self._timeout_s = device.found.name, timeout_s
        self._deadlines = threading.local()
        self.retries = 0
        """Queries that were not answered and asked again."""

    @contextlib.contextmanager
    def within(self, budget_s: float) -> Iterator[None]:
        """All that is said in here, by this thread, ends in this time; so does what it is part of."""
        before_s = getattr(self._deadlines, "end_s", math.inf)
        self._deadlines.end_s = min(before_s, time.monotonic() + budget_s)
        try:
            yield
        finally:
            self._deadlines.end_s = before_s

    def _left_s(self) -> float:
        return getattr(self._deadlines, "end_s", math.inf) - time.monotonic()

    def _patience_s(self) -> float:
        return max(min(self._timeout_s, self._left_s()), 0.001)

    def clear(self) -> None:
        """Forget what a predecessor left half said."""
        try:
            self._tmc.clear()
        except UsbError as error:
            raise cell_error(error) from error

    def send(self, message: str) -> None:
        """Send a message whose errors do not matter."""
        try:
            self._tmc.write(message.encode("ascii"), self._patience_s())
        except UsbError as error:
            raise cell_error(error) from error

    def tell(self, *messages: str) -> None:
        """Send messages; an error of any of them is REFUSED with the unit's own words.

        STALLED once the time is spent: whoever waited has given this call up, and it must change nothing any more.
        """
        for message in messages:
            if self._left_s() <= 0:
                raise PotentiostatError(CellReason.STALLED, f"{self._name} was too slow: '{message}' was not sent")
            self.send(message)
        if errors := self.errors():
            raise PotentiostatError(
                CellReason.REFUSED, f"{self._name} answered {'; '.join(errors)} to {' | '.join(messages)}"
            )

    def ask(self, query: str) -> str:
        """The answer to a query, without its end. One that is not answered is taken back and asked again."""
        for attempt in range(RETRIES + 1):
            try:
                answer = self._tmc.query(query.encode("ascii"), self._patience_s())
                return answer.decode("ascii").strip()
            except UnicodeDecodeError:
                fault = PotentiostatError(CellReason.STALLED, f"{self._name} answers '{query}' with garbage")
            except UsbError as error:
                fault = cell_error(error)
                if error.reason not in (UsbReason.TIMEOUT, UsbReason.PROTOCOL, UsbReason.STALLED):
                    raise fault from error
            if attempt == RETRIES or self._left_s() < LEAST_S:
                break
            self.retries += 1
            with contextlib.suppress(UsbError):
                self._tmc.clear()
        raise fault

    def numbers(self, query: str) -> list[float]:
        """The answer as numbers, NaN for what the unit could not measure. STALLED when it is none."""
        answer = self.ask(query)
        try:
            told = [float(part) for part in answer.split(",")]
        except ValueError:
            raise PotentiostatError(
                CellReason.STALLED, f"{self._name} answered '{answer[:60]}' to '{query}', which is no number"
            ) from None
        return [number if abs(number) < OVERFLOW else math.nan for number in told]

    def row(self, query: str, length: int) -> list[float]:
        """The answer as so many numbers. STALLED when it is not."""
        told = self.numbers(query)
        if len(told) != length:
            what = f"{self._name} answered {len(told)} numbers in place of {length} to '{query}'"
            raise PotentiostatError(CellReason.STALLED, what)
        return told

    def count(self, query: str) -> int:
        """The answer as a count. STALLED when it is none."""
        (told,) = self.row(query, 1)
        if not told >= 0:
            raise PotentiostatError(
                CellReason.STALLED, f"{self._name} answered '{told}' to '{query}', which is no count"
            )
        return int(told)

    def errors(self) -> list[str]:
        """What the unit's error queue holds, emptied by it. An answer that gets lost loses no knowledge of an error."""
        count = min(self.count("SYST:ERR:COUN?"), MOST_ERRORS)
        return [self.ask("SYST:ERR?") for _ in range(count)]

    def clear_queues(self) -> None:
        """Forget errors and status; what cannot be sent is no matter."""
        with contextlib.suppress(PotentiostatError):
            self.send("*CLS")

    def local(self) -> None:
        """Give the front panel back; never raises."""
        with contextlib.suppress(UsbError):
            self._tmc.remote(on=False)
