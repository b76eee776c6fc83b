"""The conversation with one device: what runs on it, what it said, and how it is stopped. Every wait has a deadline.

IDLE -> LOADING -> RUNNING -> ABORTING -> IDLE -> LOADING -> SAFE: in SAFE a script reads the open circuit, which the
device does with its cell off only. Any failure while a script runs leads to ABORTING.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.methodscript.codes import sentence
from hw.potentiostat.methodscript.packets import End, Fault, Garbage, Mark, Message, Packet, parse_line
from hw.potentiostat.methodscript.scripts import off_script, probe_script
from hw.potentiostat.usb_errors import cell_error
from hw.usb.errors import UsbError
from hw.usb.lines import Line, Lines

log = logging.getLogger(__name__)

ANSWER_S = 0.8  # a short command; the whole of an order has three seconds
LOAD_S = 0.8
ABORT_S = 0.8  # beyond one interval
AFTER_ERROR_S = 0.1  # the device finishes its line
DRAIN_S = 0.05
MOST_MESSAGES = 50_000
_CODE = re.compile(r"!([0-9A-Fa-f]{4})")
NOT_NOW = "0006"
"""Error of a device that is told something while a script runs."""


class State(StrEnum):
    """What the session knows of the device."""

    IDLE = "idle"
    LOADING = "loading"
    RUNNING = "running"
    ABORTING = "aborting"
    SAFE = "safe"
    """The cell is confirmed off and watched."""


@dataclass(frozen=True)
class Heard:
    """A message, and when it came."""

    message: Message
    host_t_s: float


class Session:
    """Used by one thread at a time. Raises `PotentiostatError`."""

    def __init__(self, lines: Lines, interval_s: float) -> None:
        self._lines = lines
        self._interval_s = interval_s
        self._heard: deque[Heard] = deque(maxlen=MOST_MESSAGES)
        self.state = State.IDLE
        self.garbage = 0
        """Lines that could not be read."""

    # -- lines ------------------------------------------------------------

    def _write(self, text: str) -> None:
        try:
            self._lines.write(text.encode("ascii"))
        except UsbError as error:
            raise cell_error(error) from error

    def _line(self, timeout_s: float) -> Line | None:
        try:
            return self._lines.read_line(max(timeout_s, 0.0))
        except UsbError as error:
            raise cell_error(error) from error

    def _lines_until(self, deadline_s: float) -> Iterator[Line]:
        while (line := self._line(deadline_s - time.monotonic())) is not None:
            yield line

    def ask(self, command: str, last: str = "") -> str:
        """The answer to a short command; it goes on over several lines until one ends with `last`."""
        self._write(f"{command}\n")
        answer = ""
        for line in self._lines_until(time.monotonic() + ANSWER_S):
            text = line.decode("ascii", "replace")
            if not answer and not text.startswith(command[0]):
                continue  # the end of something earlier
            answer = f"{answer}\n{text}" if answer else text
            if code := _CODE.search(text):
                raise PotentiostatError(CellReason.DEVICE_ERROR, f"'{command}' met {sentence(code[1])}")
            if text.endswith(last):
                return answer[1:]
        raise PotentiostatError(CellReason.STALLED, f"the potentiostat did not answer to '{command}'")

    # -- finding out ------------------------------------------------------------

    def listen(self, duration_s: float) -> list[Packet] | None:
        """Data packages of a script that runs already, which are kept for `next` too; None when none seems to run."""
        running = False
        for line in self._lines_until(time.monotonic() + duration_s):
            heard = self._keep(line)
            if heard is not None:
                running = not isinstance(heard.message, End | Fault)
        if not running:
            self.forget()
            return None
        self.state = State.RUNNING
        self._heard = deque((one for one in self._heard if isinstance(one.message, Packet)), MOST_MESSAGES)
        return [one.message for one in self._heard if isinstance(one.message, Packet)]

    def synchronise(self) -> bool:
        """End whatever the device is in the middle of; whether a script ran that said nothing."""
        self._write("?\n\n")  # a script half sent by one who was killed must not run: it fails at this line
        deadline_s = time.monotonic() + DRAIN_S
        for _ in self._lines_until(deadline_s):
            pass
        self.state = State.RUNNING
        ran = self.abort(strange=True)
        self.forget()
        return ran

    def cell_is_on(self) -> bool:
        """Whether the device refuses an open-circuit reading because its cell is on. Only where no script runs."""
        try:
            self.start(probe_script())
            self._await_end(LOAD_S)
        except ScriptFailed as failure:
            if failure.error == "0014":
                return True
            log.info("the open-circuit reading at the start met %s", sentence(failure.error, failure.place))
        finally:
            self.state = State.IDLE
            self._heard.clear()
        return False

    # -- scripts ------------------------------------------------------------

    def start(self, script: str) -> None:
        """Load and run. Returns once the device has taken it. Raises `ScriptFailed` when it has not."""
        self.state = State.LOADING
        self._write(f"e\n{script}\n")
        for line in self._lines_until(time.monotonic() + LOAD_S):
            text = line.decode("ascii", "replace")
            if text.startswith("e"):
                fault = parse_line(line)
                if isinstance(fault, Fault):
                    raise self.failed(fault)
                self.state = State.RUNNING
                return
        self.state = State.RUNNING  # it may run for all we know
        raise PotentiostatError(CellReason.STALLED, "the potentiostat did not take its script")

    def next(self, timeout_s: float) -> Heard | None:
        """The next message of the running script; None when there is none within the time."""
        deadline_s = time.monotonic() + timeout_s
        while not self._heard:
            line = self._line(deadline_s - time.monotonic())
            if line is None:
                return None
            self._keep(line)
        return self._heard.popleft()

    def await_loop(self, timeout_s: float) -> None:
        """Wait until the running script measures. Raises `ScriptFailed`, or STALLED."""
        deadline_s = time.monotonic() + timeout_s
        for line in self._lines_until(deadline_s):
            heard = self._keep(line)
            message = None if heard is None else heard.message
            if isinstance(message, Mark | Packet):
                return
            if isinstance(message, Fault):
                raise self.failed(message)
            if isinstance(message, End):
                raise PotentiostatError(CellReason.DEVICE_ERROR, "the potentiostat's script ended before it measured")
        raise PotentiostatError(CellReason.STALLED, "the potentiostat took its script and does not measure")

    def abort(self, *, strange: bool = False) -> bool:
        """End the running script, which then runs its own end; whether one ran. What it said is kept for `next`.

        `strange`: errors told before the answer are those of something sent earlier, by whomever.
        Raises `ScriptFailed` when the script failed meanwhile, STALLED when the device does not say that it ended.
        """
        if self.state is State.IDLE:
            return False
        self.state = State.ABORTING
        self._write("Z\n")
        answered = ran = False
        for line in self._lines_until(time.monotonic() + ABORT_S + self._interval_s):
            text = line.decode("ascii", "replace")
            if text.startswith("Z"):
                answered, ran = True, "!" not in text
                if not ran:
                    time.sleep(AFTER_ERROR_S)
                    break
                continue
            heard = self._keep(line)
            if heard is not None and isinstance(heard.message, Fault) and (answered or not strange):
                raise self.failed(heard.message)
            if heard is not None and isinstance(heard.message, End) and answered:
                break
        else:
            raise PotentiostatError(CellReason.STALLED, "the potentiostat does not say that its script ended")
        self.state = State.IDLE
        return ran

    def force_off(self) -> None:
        """Open the circuit by a script of its own, whatever went before. Raises when the device does not run it."""
        try:
            self._run_off_script()
        except ScriptFailed as failure:
            if failure.error != NOT_NOW:
                raise
            self.abort()  # what was to end it before was lost
            self._run_off_script()
        finally:
            self.forget()

    def _run_off_script(self) -> None:
        self.start(off_script())
        self._await_end(LOAD_S)

    def _await_end(self, timeout_s: float) -> None:
        for line in self._lines_until(time.monotonic() + timeout_s):
            heard = self._keep(line)
            message = None if heard is None else heard.message
            if isinstance(message, Fault):
                raise self.failed(message)
            if isinstance(message, End):
                self.state = State.IDLE
                return
        raise PotentiostatError(CellReason.STALLED, "the potentiostat's script does not end")

    def failed(self, fault: Fault) -> ScriptFailed:
        """The running script has failed: let the device finish its line, then it can be told something again.

        But a device that takes nothing now runs a script, and has to be told to end it.
        """
        for _ in self._lines_until(time.monotonic() + AFTER_ERROR_S):
            continue
        self.state = State.RUNNING if fault.code == NOT_NOW else State.IDLE
        return ScriptFailed(fault.code, fault.place)

    def waiting(self) -> Heard | None:
        """The next message that is here already."""
        return self._heard.popleft() if self._heard else None

    def forget(self) -> None:
        """What a script said that is over."""
        self._heard.clear()

    def confirmed(self) -> None:
        """An open-circuit reading has shown that the cell is off."""
        self.state = State.SAFE

    def ended(self) -> None:
        """The running script has said its last word."""
        self.state = State.IDLE

    def _keep(self, line: Line) -> Heard | None:
        message = parse_line(line)
        if isinstance(message, Garbage):
            self.garbage += 1
            if self.garbage in (1, 10, 100, 1000):
                log.warning("line %d of the potentiostat that cannot be read: %s", self.garbage, message.reason)
            return None
        heard = Heard(message, line.host_t_s)
        self._heard.append(heard)
        return heard


class ScriptFailed(PotentiostatError):
    """The device refused a script or stopped one with an error. After the latter the cell is as it was: perhaps on."""

    def __init__(self, code: str, place: str) -> None:
        super().__init__(CellReason.DEVICE_ERROR, f"the potentiostat stopped with {sentence(code, place)}")
        self.error, self.place = code, place
