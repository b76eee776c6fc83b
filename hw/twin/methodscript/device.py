"""The firmware of an emulated MethodSCRIPT device: bytes in, bytes out, scripts run in its own time."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hw.twin.methodscript.cell import DeviceOptions, TwinCell
from hw.twin.methodscript.interpreter import Interpreter
from hw.twin.methodscript.parse import ScriptError, parse
from hw.twin.usb.device import Gone


@dataclass(frozen=True)
class Kind:
    """What one model is and can do."""

    firmware: str
    window_v: float
    max_current_ma: float
    galvanostat: bool
    product: str


KINDS = {
    "es4_hr": Kind("es4_hr1307#Jul 21 2025 15:00:38", 6.0, 200.0, True, "EmStat4 HR"),
    "mes4hr": Kind("mes4hr1307#Jul 21 2025 15:00:38", 6.0, 200.0, True, "MultiEmStat4 HR"),
    "es4_lr": Kind("es4_lr1307#Jul 21 2025 15:00:38", 3.0, 30.0, True, "EmStat4 LR"),
    "nexus1": Kind("nexus11002#Feb 03 2025 09:12:00", 10.0, 1000.0, True, "Nexus"),
    "espico": Kind("espico1400#Nov 13 2024 11:24:53", 2.0, 3.0, False, "ESPicoDev"),
    "senswb": Kind("senswb1400#Nov 13 2024 11:24:53", 2.0, 3.0, False, "SensitBT"),
    "espbl": Kind("espbl_0100#Jan 01 2024 00:00:00", 0.0, 0.0, False, "EmStat4 boot loader"),
}
BITS = (24, 28, 30, 31, 63, 64, 65, 66, 71, 72, 92)
GALVANOSTAT_BITS = (67, 68, 70)
FOUND_SCRIPT = """var e
var i
set_pgstat_mode 6
set_i 0
cell_on
meas_loop_cp e i 300u 100m 3600
pck_start
pck_add e
pck_add i
pck_end
endloop
cell_off
"""
"""What somebody else left running."""


class MethodScriptDevice:
    """Used from one thread. `feed` takes the host's bytes, `take` gives the device's, `advance` lets time pass."""

    def __init__(self, options: DeviceOptions) -> None:
        self.options = options
        self.kind = KINDS[options.model]
        self.cell = TwinCell(options, self.kind.max_current_ma)
        self.counts: Counter[str] = Counter()
        self.scripts: deque[str] = deque(maxlen=100)
        """Those that were run, the newest last."""
        self._power_on()

    def _power_on(self) -> None:
        self._input, self._output = bytearray(), bytearray()
        self._collecting: list[str] | None = None
        self._runs_at_once = False
        self._loaded = ""
        self._interpreter: Interpreter | None = None
        self._run: Iterator[float | str] | None = None
        self._wake_s = 0.0
        self._waiting_line: str | None = None
        self._room = self.options.output_bytes
        self._garbage = 0
        self._stalled = self._deaf = False
        self._held_until_s = 0.0
        self._slow_s, self._next_take_s = 0.0, 0.0

    @property
    def running(self) -> bool:
        """Whether a script runs."""
        return self._run is not None

    # -- bytes ------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """The host sent something."""
        if self._stalled:
            return
        self._input += data
        while b"\n" in self._input:
            line, _, rest = bytes(self._input).partition(b"\n")
            self._input = bytearray(rest)
            self._line(line.decode("ascii", "replace"))

    def take(self, length: int, now_s: float) -> bytes:
        """At most `length` bytes of what the device has to say by now."""
        if self._stalled or now_s < self._held_until_s or now_s < self._next_take_s:
            return b""
        if self._slow_s:
            length = min(length, self._output.find(b"\n") + 1 or length)
            self._next_take_s = now_s + self._slow_s
        data = bytes(self._output[:length])
        del self._output[: len(data)]
        return data

    def discard(self) -> None:
        """Nobody listens: what the device says is lost."""
        self._output.clear()

    # -- time ------------------------------------------------------------

    def advance(self, now_s: float) -> None:
        """Bring script and cell to `now_s` (`time.monotonic()`)."""
        due_s = self.cell.due_s(now_s)
        while self._run is not None and self._flushed() and self._wake_s <= due_s:
            self.cell.advance(self._wake_s)
            item = next(self._run, None)
            if item is None:
                self._run = self._interpreter = None
            elif isinstance(item, str):
                self._waiting_line = item
            else:
                self._wake_s = max(item, self.cell.t_s)
        self.cell.advance(due_s)
        self.cell.publish(now_s)

    def next_s(self) -> float | None:
        """`time.monotonic()` at which its script goes on."""
        return None if self._run is None else self.cell.host_s(self._wake_s)

    def _flushed(self) -> bool:
        """Whether the script may go on: a line that finds no room holds it up, with the cell as it is."""
        if self._waiting_line is None:
            return True
        line = self._waiting_line.encode() + b"\n"
        if len(self._output) + len(line) > self._room:
            self.counts["held up"] += 1
            return False
        self.counts["packets"] += line.startswith(b"P")
        self.counts["last words"] += b";ja" in line
        if self._garbage:
            self._garbage -= 1
            line = b"P\xff\x00da7F8" + line[4:]
        self._output += line
        self._waiting_line = None
        return True

    # -- the protocol ------------------------------------------------------------

    def _line(self, line: str) -> None:
        if self._collecting is not None:
            if line:
                self._collecting.append(line)
            else:
                text, self._collecting = "\n".join(self._collecting), None
                self._load(text)
        elif line in ("e", "l"):
            self._say(line)
            if self.running:
                self._say("!0006\n")
                return
            self._collecting, self._runs_at_once = [], line == "e"
        elif line == "r":
            self._say("r\n" if self._loaded else "r!000C\n")
            if self._loaded:
                self._start(self._loaded)
        elif line in ("Z", "Y", "h", "H"):
            self._control(line)
        elif not line:
            if not self.running:
                self._say("\n")
        else:
            self._answer(line)

    def _answer(self, line: str) -> None:
        bits = BITS + (GALVANOSTAT_BITS if self.kind.galvanostat else ())
        answers: dict[str, Callable[[], str]] = {
            "t": lambda: f"{self.kind.firmware}\nR*",
            "v": lambda: "0105",
            "i": lambda: self.options.serial,
            "CM": lambda: f"{sum(1 << bit for bit in bits):032X}",
            "CC": lambda: f"{sum(1 << bit for bit in (96, 97, 98, 99)):032X}",
        }
        if line[0] in "SG" and len(line) >= 3:
            self._say("S\n" if line[0] == "S" else "G00\n")
        elif line not in answers:
            self._say(f"{line[0]}!0003\n")
        elif self.running:
            self._say(f"{line[0]}!0006\n")
        else:
            self._say(f"{line[0]}{answers[line]()}\n")

    def _control(self, line: str) -> None:
        if self._deaf:  # this one got lost
            self._deaf = False
            return
        if self._interpreter is None:
            self._say(f"{line}!0006\n")
            return
        self._say(f"{line}\n")
        if line == "Z":
            self._interpreter.abort = True
        elif line == "Y":
            self._interpreter.end_loop = True
        else:
            self._interpreter.halted = line == "h"

    def _load(self, text: str) -> None:
        if len(text) > self.options.script_bytes:
            self._say("!4005: Line 1, Col 1\n")
            return
        try:
            parse(text)
        except ScriptError as error:
            self.counts["refused scripts"] += 1
            self._say(f"!{error}\n")
            return
        self._loaded = text
        self._say("\n")
        if self._runs_at_once:
            self._start(text)

    def _start(self, text: str) -> None:
        self.scripts.append(text)
        self.counts["scripts"] += 1
        kind = self.kind
        self._interpreter = Interpreter(parse(text), self.cell, galvanostat=kind.galvanostat, window_v=kind.window_v)
        self._run, self._wake_s, self._waiting_line = self._interpreter.run(), self.cell.t_s, None

    def _say(self, text: str) -> None:
        self._output += text.encode()

    # -- faults ------------------------------------------------------------

    def inject(self, fault: str, **parameters: Any) -> None:
        """Arm a fault by name. Raises `ValueError` for one that the device has not, `Gone` for `unplug`."""
        known: dict[str, Callable[..., None]] = {
            "runtime_error": self._fail,
            "stall": lambda: setattr(self, "_stalled", True),
            "unplug": self._unplug,
            "garbage": lambda lines=3: setattr(self, "_garbage", lines),
            "back_pressure": self._hold,
            "slow": lambda delay_s=0.05: setattr(self, "_slow_s", delay_s),
            "deaf": lambda: setattr(self, "_deaf", True),
            "stray": lambda line="": self._say(f"{line}\n"),
            "dirty": lambda script=FOUND_SCRIPT: self._start(script),
            "off_ignored": lambda: setattr(self.cell, "stuck_on", True),
            "none": self._mend,
        }
        if fault not in known:
            raise ValueError(f"{type(self).__name__} has no fault '{fault}'")
        self.counts[f"fault {fault}"] += 1
        known[fault](**parameters)

    def _fail(self, code: str = "0032") -> None:
        if self._interpreter is not None:
            self._interpreter.fault = code

    def _hold(self, seconds: float = 1.0, room: int = 256) -> None:
        self._held_until_s, self._room = time.monotonic() + seconds, room

    def _unplug(self) -> None:
        self.reset()
        raise Gone

    def _mend(self) -> None:
        self._stalled = self._deaf = self.cell.stuck_on = False
        self._garbage, self._slow_s, self._held_until_s, self._room = 0, 0.0, 0.0, self.options.output_bytes

    def reset(self) -> None:
        """Power lost: the script is gone, the relay opens."""
        self._power_on()
        self.cell.stuck_on = False
        self.cell.switch(on=False)

    def state(self) -> dict[str, Any]:
        """What tests may look at; JSON."""
        return {
            "counts": dict(self.counts),
            "running": self.running,
            "cell_on": self.cell.on,
            "t_s": self.cell.t_s,
            "voltage_v": self.cell.electrode.voltage_v,
            "current_ma": self.cell.electrode.current_ma,
            "script": self.scripts[-1] if self.scripts else "",
        }

    def close(self) -> None:
        """Remove the world file; idempotent."""
        self.cell.close()
