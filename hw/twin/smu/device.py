"""The unit on the bus: USBTMC with USB488 in front of its SCPI."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import Any

from hw.twin.smu.instrument import Instrument, SmuOptions
from hw.twin.smu.language import INTERRUPTED, UNTERMINATED
from hw.twin.usb import descriptors
from hw.twin.usb.device import Gone, Setup, Stall, UsbModel

VENDOR_ID = 0x05E6
OUT, IN, INTERRUPT = 0x01, 0x82, 0x83
HEADER = struct.Struct("<BBBxIBB2x")
MESSAGE_OUT, REQUEST_IN, TRIGGER = 1, 2, 128
ABORT_OUT, CHECK_ABORT_OUT, ABORT_IN, CHECK_ABORT_IN, CLEAR, CHECK_CLEAR, CAPABILITIES = range(1, 8)
PULSE, STATUS_BYTE, REMOTE, LOCAL, LOCKOUT = 64, 128, 160, 161, 162
SUCCESS, NOT_IN_PROGRESS = 0x01, 0x81
MOST_MESSAGE_BYTES = 1 << 20
FAULTS = ("mute", "slow", "gone", "stall", "stuck_on", "garbage", "error", "reversed", "panel_off", "over_voltage")


@dataclass
class Asked:
    """A request for an answer that is not given yet."""

    tag: int
    most_bytes: int
    term_char: int | None


class Smu(UsbModel):
    """Faults: `mute` (answers to the next `count` queries never come), `slow` (`delay_s`), `gone`, `stall` (next
    message), `garbage` (next answer), `error` (`code`, `text` into the queue), `stuck_on` (the relay does not open),
    `reversed` (leads of the cell), `panel_off` (somebody presses the output's key),
    `over_voltage` (its protection trips, as with an open sense lead).
    """

    Settings = SmuOptions

    def __init__(self, settings: SmuOptions) -> None:
        super().__init__()
        self._settings = settings
        self.instrument = Instrument(settings)
        self._slow_s = 0.0
        self._faults: dict[str, int] = {}
        self.reset()

    def device_descriptor(self) -> bytes:
        return descriptors.device(VENDOR_ID, int(self._settings.model, 16))

    def configuration(self) -> bytes:
        return descriptors.configuration(
            descriptors.interface(
                0,
                (0xFE, 0x03, 0x01),
                descriptors.endpoint(OUT, packet=512),
                descriptors.endpoint(IN, packet=512),
                descriptors.endpoint(INTERRUPT, packet=64, kind=3, interval=8),
            )
        )

    def strings(self) -> dict[int, str]:
        return {1: "Keithley Instruments", 2: f"Model {self._settings.model} (emulated)", 3: self._settings.serial}

    def reset(self) -> None:
        """Of the link only: the instrument has its own mains."""
        self._message = b""
        self._answer: bytes | None = None
        self._ready_s = 0.0
        self._asked: Asked | None = None
        self._aborted_in = self._withholds = False
        self._interrupts: list[bytes] = []
        self._gone = False

    # -- messages ------------------------------------------------------------

    def bulk_out(self, endpoint: int, data: bytes) -> None:
        if self._gone:
            raise Gone
        if endpoint != OUT or len(data) < HEADER.size or self._take("stall"):
            raise Stall
        self._aborted_in = False  # the short packet that ended it is flushed, as hosts differ in reading it
        kind, tag, inverse, size, attributes, term_char = HEADER.unpack_from(data)
        if not tag or tag ^ inverse != 0xFF:
            raise Stall
        if kind == REQUEST_IN:
            self._asked = Asked(tag, size, term_char if attributes & 2 else None)
        elif kind == MESSAGE_OUT:
            self._message += data[HEADER.size : HEADER.size + size]
            if len(self._message) > MOST_MESSAGE_BYTES:
                self._message = b""
                raise Stall
            if attributes & 1:
                message, self._message = self._message, b""
                self._execute(message)
        elif kind != TRIGGER:
            raise Stall

    def _execute(self, message: bytes) -> None:
        self.counts["messages"] += 1
        if self._answer is not None:
            self._answer = None
            self.instrument.errors.add(INTERRUPTED)
        self.instrument.run(self._now_s())
        answer = self.instrument.execute(message.decode("ascii", "replace").rstrip("\n\r"))
        if answer is None:
            return
        if self._take("mute"):
            self.counts["answers withheld"] += 1
            self._withholds = True
            return
        self._answer = b"\xff#\x00garbage\n" if self._take("garbage") else answer.encode() + b"\n"
        self._ready_s = self._now_s() + self._slow_s

    def bulk_in(self, endpoint: int, length: int, now_s: float) -> bytes | memoryview | None:
        if self._gone:
            raise Gone
        self.instrument.run(now_s)
        if endpoint == INTERRUPT:
            return self._interrupts.pop(0) if self._interrupts else None
        if self._aborted_in:
            self._aborted_in = False
            return b""
        asked = self._asked
        if asked is None:
            return None
        if self._answer is None:
            if not self._withholds:
                self.instrument.errors.add(UNTERMINATED)
                self._asked = None
            return None
        if now_s < self._ready_s:
            return None
        return self._part(asked, length)

    def _part(self, asked: Asked, length: int) -> bytes:
        assert self._answer is not None
        size = min(len(self._answer), asked.most_bytes, max(length - HEADER.size - 3, 0))
        if asked.term_char is not None and (found := self._answer.find(asked.term_char, 0, size)) >= 0:
            size = found + 1
        part, rest = self._answer[:size], self._answer[size:]
        self._answer, self._asked = rest or None, None
        header = HEADER.pack(2, asked.tag, asked.tag ^ 0xFF, size, 0 if rest else 1, 0)
        return header + part + bytes(-size % 4)

    def next_s(self, now_s: float) -> float | None:
        """The instrument goes on by itself, whether a host asks or not."""
        due_s = self.instrument.triggers.next_s
        times = [] if due_s is None else [self.instrument.cell.host_s(due_s)]
        if self._answer is not None and self._ready_s > now_s:
            times.append(self._ready_s)
        return min(times, default=None)

    # -- requests ------------------------------------------------------------

    def control(self, setup: Setup, data: bytes) -> bytes:
        self.counts[f"request {setup.request}"] += 1
        if setup.request_type == 0xA2:
            return self._abort(setup)
        if setup.request_type != 0xA1:
            raise Stall
        if setup.request == CLEAR:
            self._message, self._answer, self._asked = b"", None, None
            self._withholds = False
            return bytes([SUCCESS])
        if setup.request == CHECK_CLEAR:
            return bytes([SUCCESS, 0])
        if setup.request == CAPABILITIES:
            return struct.pack("<BxHBB6xHBB8x", SUCCESS, 0x0100, 0, 1, 0x0100, 0x07, 0x08)
        if setup.request == STATUS_BYTE:
            status = 4 * bool(len(self.instrument.errors)) | 16 * (self._answer is not None)
            self._interrupts.append(bytes([0x80 | setup.value & 0x7F, status]))
            return bytes([SUCCESS, setup.value & 0x7F, 0])
        if setup.request in (PULSE, REMOTE, LOCAL, LOCKOUT):
            return bytes([SUCCESS])
        raise Stall

    def _abort(self, setup: Setup) -> bytes:
        if setup.request == ABORT_OUT:
            self._message = b""
            return bytes([SUCCESS, setup.value & 0xFF])
        if setup.request == CHECK_ABORT_OUT:
            return bytes([SUCCESS]) + bytes(7)
        if setup.request == ABORT_IN:
            if self._asked is None or self._asked.tag != setup.value & 0xFF:
                return bytes([NOT_IN_PROGRESS, setup.value & 0xFF])
            self._asked, self._answer, self._aborted_in = None, None, True
            self._withholds = False
            return bytes([SUCCESS, setup.value & 0xFF])
        if setup.request == CHECK_ABORT_IN:
            return bytes([SUCCESS]) + bytes(7)
        raise Stall

    # -- tests' side ------------------------------------------------------------

    def inject(self, fault: str, **parameters: Any) -> None:
        if fault not in FAULTS:
            super().inject(fault, **parameters)
        if fault == "slow":
            self._slow_s = float(parameters["delay_s"])
        elif fault == "gone":
            self._gone = True
        elif fault == "stuck_on":
            self.instrument.stuck_on = True
        elif fault in ("panel_off", "over_voltage"):
            self.instrument.run(self._now_s())
            self.instrument.protection_tripped = fault == "over_voltage"
            self.instrument.output(False)
        elif fault == "reversed":
            self.instrument.reversed = True
        elif fault == "error":
            self.instrument.errors.add((int(parameters["code"]), str(parameters["text"])))
        else:
            self._faults[fault] = self._faults.get(fault, 0) + int(parameters.get("count", 1))

    def _take(self, fault: str) -> bool:
        armed = self._faults.get(fault, 0)
        if armed:
            self._faults[fault] = armed - 1
        return armed > 0

    def state(self) -> dict[str, Any]:
        instrument = self.instrument
        instrument.run(self._now_s())
        electrode = instrument.cell.electrode
        return super().state() | {
            "output": instrument.on,
            "off_state": instrument.off_state["VOLTage"],
            "flowing": instrument.cell.flowing,
            "voltage_v": electrode.voltage_v,
            "current_ma": electrode.current_ma,
            "trigger": instrument.triggers.state,
            "errors": len(instrument.errors),
            "soc": electrode.soc,
        }

    def close(self) -> None:
        self.instrument.close()

    @staticmethod
    def _now_s() -> float:
        return time.monotonic()
