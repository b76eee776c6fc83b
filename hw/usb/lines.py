"""Line transports of serial instruments: CDC-ACM and FTDI chips over pyusb, and the kernel's terminals.

Each has one thread that does nothing but read, so that a busy host does not hold the device up: a device whose output
finds no taker may wait with its cell on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
import termios
import threading
import time
import tty
from abc import ABC, abstractmethod
from collections import deque

from hw.usb.bus import FoundDevice
from hw.usb.device import UsbDevice
from hw.usb.errors import UsbError, UsbReason

MAX_LINES = 50_000  # over an hour of ten packets a second
MAX_LINE_BYTES = 4096
READ_BYTES = 4096
POLL_S = 0.2  # how soon a reader that waits in libusb notices that it is closed
WRITE_S = 1.0
CONTROL_S = 1.0
JOIN_S = 2.0
CDC_DATA, CDC_CONTROL = 0x0A, 0x02
SET_LINE_CODING, SET_CONTROL_LINE_STATE = 0x20, 0x22
DTR_RTS = 0x3
FTDI_RESET, FTDI_MODEM, FTDI_FLOW, FTDI_BAUD, FTDI_DATA, FTDI_LATENCY = 0, 1, 2, 3, 4, 9
FTDI_OUT = 0x40
FTDI_RTS_CTS = 0x0100
FTDI_LATENCY_MS = 2  # until a packet that is not full is sent; 16 by default
FTDI_STATUS_BYTES = 2
FTDI_CLOCK_HZ = 3_000_000
FTDI_EIGHTHS = (0, 3, 2, 4, 1, 5, 6, 7)
"""Code of a divisor's fraction, by eighths (FTDI AN232B-05)."""


class Line(bytes):
    """A line without its end, and when it came."""

    host_t_s: float
    """`time.monotonic()`."""

    def __new__(cls, data: bytes, host_t_s: float) -> Line:
        """`data` as it came at `host_t_s`."""
        line = super().__new__(cls, data)
        line.host_t_s = host_t_s
        return line


class Lines(ABC):
    """One opened link. All methods but `close` raise `UsbError`; any thread may call any of them."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque()
        self._changed = threading.Condition()
        self._error: UsbError | None = None
        self._partial = bytearray()
        self._thread: threading.Thread | None = None
        self._closing = False
        self.dropped = 0
        """Lines lost because nobody fetched them, or because they were too long."""

    def open(self) -> None:
        """Claim the device and begin to read."""
        self._closing, self._error = False, None
        self._open()
        self._thread = threading.Thread(target=self._run, name="lines-reader", daemon=True)
        self._thread.start()

    def read_line(self, timeout_s: float) -> Line | None:
        """The next line; None when there is none within `timeout_s`. What came before a failure comes before it."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._lines) or self._error is not None or self._closing, timeout_s)
            if self._lines:
                return self._lines.popleft()
            if self._error is not None:
                raise self._error
        return None

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send all of `data`."""

    def close(self) -> None:
        """Stop reading and release the device; idempotent, never raises."""
        self._closing = True
        with self._changed:
            self._changed.notify_all()
        self._wake()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(JOIN_S)
        self._close()

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _read(self) -> bytes:
        """What came, waiting a bounded time; empty when nothing did."""

    @abstractmethod
    def _close(self) -> None: ...

    def _wake(self) -> None:  # noqa: B027 - what returns by itself needs none
        """Have `_read` return soon."""

    def _run(self) -> None:
        try:
            while not self._closing:
                self._take(self._read(), time.monotonic())
        except UsbError as error:
            with self._changed:
                self._error = None if self._closing else error
                self._changed.notify_all()

    def _take(self, data: bytes, now_s: float) -> None:
        if not data:
            return
        self._partial += data
        *lines, rest = bytes(self._partial).split(b"\n")
        self._partial = bytearray(rest)
        with self._changed:
            for line in lines:
                if len(self._lines) == MAX_LINES:
                    self._lines.popleft()
                    self.dropped += 1
                self._lines.append(Line(line.rstrip(b"\r"), now_s))
            if len(self._partial) > MAX_LINE_BYTES:
                self._partial.clear()
                self.dropped += 1
            self._changed.notify_all()


class TtyLines(Lines):
    """A terminal of the kernel: raw, for this process alone."""

    def __init__(self, path: str, baud: int) -> None:
        super().__init__()
        self._path, self._baud = path, baud
        self._file = self._wake_in = self._wake_out = -1

    def _open(self) -> None:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # TIOCEXCL does not hold root off
            fcntl.ioctl(self._file, termios.TIOCEXCL)
            tty.setraw(self._file)
            self._set_speed()
            termios.tcflush(self._file, termios.TCIOFLUSH)  # what came for whoever had it before
        except (OSError, termios.error) as error:
            self._release()
            raise _tty_error(error, self._path, "cannot open") from error
        self._wake_in, self._wake_out = os.pipe()

    def _set_speed(self) -> None:
        speed = getattr(termios, f"B{self._baud}", None)
        if speed is None:
            raise OSError(errno.EINVAL, f"{self._baud} baud is no speed of a terminal")
        attributes = termios.tcgetattr(self._file)
        attributes[2] |= termios.CRTSCTS  # no effect where there are no such wires
        attributes[4] = attributes[5] = speed
        termios.tcsetattr(self._file, termios.TCSANOW, attributes)

    def write(self, data: bytes) -> None:
        """Waits up to a second for room."""
        deadline_s = time.monotonic() + WRITE_S
        while data:
            try:
                data = data[os.write(self._file, data) :]
            except BlockingIOError:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise UsbError(UsbReason.TIMEOUT, f"{self._path} takes nothing") from None
                select.select([], [self._file], [], left_s)
            except OSError as error:
                raise _tty_error(error, self._path, "writing") from error

    def _read(self) -> bytes:
        try:
            select.select([self._file, self._wake_in], [], [])
            data = b"" if self._closing else os.read(self._file, READ_BYTES)
        except BlockingIOError:
            return b""
        except (OSError, ValueError) as error:
            raise _tty_error(error, self._path, "reading") from error
        if not data and not self._closing:
            raise UsbError(UsbReason.UNPLUGGED, f"{self._path} was hung up")
        return data

    def _wake(self) -> None:
        if self._wake_out >= 0:
            os.write(self._wake_out, b"x")

    def _close(self) -> None:
        self._release()

    def _release(self) -> None:
        for file in (self._file, self._wake_in, self._wake_out):
            if file >= 0:
                with contextlib.suppress(OSError):
                    os.close(file)
        self._file = self._wake_in = self._wake_out = -1


def _tty_error(error: Exception, path: str, what: str) -> UsbError:
    number = getattr(error, "errno", None) or (error.args[0] if error.args else None)
    reason = {
        errno.ENOENT: UsbReason.NOT_FOUND,
        errno.EACCES: UsbReason.DENIED,
        errno.EPERM: UsbReason.DENIED,
        errno.EBUSY: UsbReason.BUSY,
        errno.EWOULDBLOCK: UsbReason.BUSY,
        errno.EIO: UsbReason.UNPLUGGED,
        errno.ENXIO: UsbReason.UNPLUGGED,
        errno.ENODEV: UsbReason.UNPLUGGED,
        errno.EBADF: UsbReason.UNPLUGGED,
    }.get(number, UsbReason.FAULT)  # type: ignore[arg-type]
    return UsbError(reason, f"{what} {path}: {error}")


class UsbLines(Lines):
    """What CDC-ACM and FTDI have in common: bulk endpoints of one claimed device."""

    def __init__(self, found: FoundDevice, baud: int) -> None:
        super().__init__()
        self._found, self._baud = found, baud
        self._device: UsbDevice | None = None
        self._in = self._out = 0
        self._packet_bytes = 64

    def write(self, data: bytes) -> None:
        """Waits up to a second."""
        self._opened().bulk_out(self._out, data, WRITE_S)

    def _opened(self) -> UsbDevice:
        if self._device is None:
            raise UsbError(UsbReason.UNPLUGGED, f"{self._found.name} is closed")
        return self._device

    def _read(self) -> bytes:
        try:
            return self._opened().bulk_in(self._in, READ_BYTES, POLL_S)
        except UsbError as error:
            if error.reason is not UsbReason.TIMEOUT:
                raise
            return b""

    def _close(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            device.close()


class CdcLines(UsbLines):
    """A CDC-ACM device: line coding and DTR on the control interface, bytes on the data interface."""

    def _open(self) -> None:
        data = next((one for one in self._found.interfaces if one.triple[0] == CDC_DATA and one.endpoints), None)
        control = next((one for one in self._found.interfaces if one.triple[:2] == (CDC_CONTROL, 2)), None)
        if data is None or control is None:
            raise UsbError(UsbReason.PROTOCOL, f"{self._found.name} is no serial device of class CDC-ACM")
        self._in = data.endpoint(inward=True).address
        self._out = data.endpoint(inward=False).address
        self._device = device = UsbDevice.open(self._found, sorted({control.number, data.number}))
        coding = struct.pack("<IBBB", self._baud, 0, 0, 8)
        try:
            device.control(0x21, SET_LINE_CODING, 0, control.number, coding, CONTROL_S)
            device.control(0x21, SET_CONTROL_LINE_STATE, DTR_RTS, control.number, b"", CONTROL_S)
        except UsbError:
            self._close()
            raise


class FtdiLines(UsbLines):
    """An FTDI chip: vendor requests set it up, and two status bytes begin every packet that comes in."""

    def _open(self) -> None:
        one = next((one for one in self._found.interfaces if one.triple[0] == 0xFF and one.endpoints), None)
        if one is None:
            raise UsbError(UsbReason.PROTOCOL, f"{self._found.name} is no FTDI chip")
        inward = one.endpoint(inward=True)
        self._in, self._packet_bytes = inward.address, inward.max_packet_bytes
        self._out = one.endpoint(inward=False).address
        self._device = device = UsbDevice.open(self._found, [one.number])
        value, index = ftdi_divisor(self._baud)
        requests = (
            (FTDI_RESET, 0, 0), (FTDI_BAUD, value, index), (FTDI_DATA, 8, 0), (FTDI_FLOW, 0, FTDI_RTS_CTS),
            (FTDI_MODEM, 0x0303, 0), (FTDI_LATENCY, FTDI_LATENCY_MS, 0),
        )  # fmt: skip
        try:
            for request, request_value, request_index in requests:
                device.control(FTDI_OUT, request, request_value, request_index, b"", CONTROL_S)
        except UsbError:
            self._close()
            raise

    def _read(self) -> bytes:
        return without_status(super()._read(), self._packet_bytes)


def ftdi_divisor(baud: int) -> tuple[int, int]:
    """(value, index) of FTDI's request for a baud rate: the divisor of 3 MHz in eighths, its fraction coded."""
    eighths = max(8, round(8 * FTDI_CLOCK_HZ / baud))
    code = FTDI_EIGHTHS[eighths % 8]
    divisor = eighths // 8 | code << 14
    if eighths == 8:
        divisor = 0  # of 3 Mbaud itself
    return divisor & 0xFFFF, divisor >> 16


def without_status(data: bytes, packet_bytes: int) -> bytes:
    """A transfer of an FTDI chip without the two status bytes of each of its packets."""
    if len(data) <= packet_bytes:
        return data[FTDI_STATUS_BYTES:]
    packets = (data[at : at + packet_bytes] for at in range(0, len(data), packet_bytes))
    return b"".join(packet[FTDI_STATUS_BYTES:] for packet in packets)
