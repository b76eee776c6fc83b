"""GenCP: reading and writing a camera's registers over its pair of control endpoints.

Little-endian packets of a 12-byte header and a payload; one request is outstanding at a time. Status and command codes:
EMVA GenCP 1.1 and AIA USB3 Vision 1.0, section 4.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter
from collections.abc import Callable

from hw.usb.bus import Endpoint
from hw.usb.device import UsbDevice
from hw.usb.errors import UsbError, UsbReason

MAGIC = 0x43563355  # "U3VC"
HEADER = struct.Struct("<IHHHH")
ACK_WANTED, RESEND = 0x4000, 0x8000
READ, WRITE, PENDING = 0x0800, 0x0802, 0x0805
OK, BUSY, RESEND_UNSUPPORTED = 0x0000, 0x8007, 0xA001
STATUS = {
    0x8001: "not implemented", 0x8002: "invalid parameter", 0x8003: "invalid address", 0x8004: "write-protected",
    0x8005: "bad alignment", 0x8006: "access denied", 0x8007: "busy", 0x800B: "message timeout",
    0x800E: "invalid header", 0x800F: "wrong configuration", 0x8FFF: "generic error",
    0xA001: "resend not supported", 0xA002: "stream endpoint halted", 0xA003: "payload size not aligned",
    0xA004: "stream registers inconsistent", 0xA005: "event endpoint halted",
}  # fmt: skip
FIRST_TRANSFER_BYTES = 128  # every camera takes these before its own limits are known
FIRST_RESPONSE_S = 0.5
MARGIN_S = 0.1  # for the bus and a busy host, beyond what the camera says it needs
MOST_READ_BYTES = 0xFFFC  # the count is a u16, and kept a multiple of 4
LONGEST_PENDING_S = 30.0  # a camera that asks for more time than this does not come back
BUSY_TRIES, BUSY_WAIT_S = 20, 0.05
DRAIN_S = 0.01


class RegisterError(UsbError):
    """The camera answered a request with an error; `status` is its code."""

    def __init__(self, detail: str, status: int) -> None:
        super().__init__(UsbReason.PROTOCOL, detail)
        self.status = status


class GenCp:
    """A camera's register space. Any thread's; requests wait for each other. Every method raises `UsbError`.

    `counts` tells what happened beside plain answers: ``pending``, ``stray``, ``resent``, ``cleared``, ``busy``.
    """

    def __init__(
        self, device: UsbDevice, out: Endpoint, inward: Endpoint, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._device, self._out, self._in, self._clock = device, out, inward, clock
        self._lock = threading.RLock()
        self._id = 0
        self._most_command = self._most_ack = FIRST_TRANSFER_BYTES
        self._response_s = FIRST_RESPONSE_S
        self.counts: Counter[str] = Counter()

    def limit(self, command_bytes: int, ack_bytes: int, response_s: float) -> None:
        """What the camera's own registers say of its transfers and of the longest it takes to answer."""
        least = HEADER.size + 8 + 4
        self._most_command, self._most_ack = max(command_bytes, least), max(ack_bytes, least)
        self._response_s = response_s

    def flush(self) -> None:
        """Drop what a predecessor left unread, and begin both endpoints anew."""
        with self._lock:
            self._drain()
            for endpoint in (self._out, self._in):
                self._device.clear_halt(endpoint.address)

    def read(self, address: int, count: int) -> bytes:
        """`count` bytes from `address`, in as many requests as the camera's limits need."""
        most = min(self._most_ack - HEADER.size, MOST_READ_BYTES) & ~3
        parts = []
        for done in range(0, count, most):
            size = min(most, count - done)
            data = self._request(READ, struct.pack("<QHH", address + done, 0, size))
            if len(data) != size:
                raise UsbError(UsbReason.PROTOCOL, f"{len(data)} of {size} bytes came from register {address:#x}")
            parts.append(data)
        return b"".join(parts)

    def write(self, address: int, data: bytes) -> None:
        """Write `data` to `address`."""
        most = (self._most_command - HEADER.size - 8) & ~3
        for done in range(0, len(data), most):
            self._request(WRITE, struct.pack("<Q", address + done) + data[done : done + most])

    def read_u32(self, address: int) -> int:
        """An unsigned register of 4 bytes."""
        return int.from_bytes(self.read(address, 4), "little")

    def read_u64(self, address: int) -> int:
        """An unsigned register of 8 bytes."""
        return int.from_bytes(self.read(address, 8), "little")

    def write_u32(self, address: int, value: int) -> None:
        """Write a register of 4 bytes."""
        self.write(address, value.to_bytes(4, "little"))

    # -- one request ------------------------------------------------------------

    def _request(self, command: int, payload: bytes) -> bytes:
        """Ask, again while the camera is busy. Raises `RegisterError` for its other refusals."""
        for _ in range(BUSY_TRIES):
            status, data = self._ask(command, payload)
            if status != BUSY:
                break
            self.counts["busy"] += 1
            time.sleep(BUSY_WAIT_S)
        if status != OK:
            address = int.from_bytes(payload[:8], "little")
            what = "reading" if command == READ else "writing"
            told = STATUS.get(status, "unknown status")
            raise RegisterError(f"{what} register {address:#x}: {told} ({status:#06x})", status)
        return data

    def _ask(self, command: int, payload: bytes) -> tuple[int, bytes]:
        """Send, await the answer; once more with the same id, then with both endpoints cleared, then give up."""
        with self._lock:
            self._next_id()
            try:
                return self._exchange(command, payload, ACK_WANTED)
            except UsbError as error:
                self._forgive(error)
            self.counts["resent"] += 1
            try:
                status, data = self._exchange(command, payload, ACK_WANTED | RESEND)
                if status != RESEND_UNSUPPORTED:
                    return status, data
            except UsbError as error:
                self._forgive(error)
            self.counts["cleared"] += 1
            self.flush()
            self._next_id()
            return self._exchange(command, payload, ACK_WANTED)

    def _forgive(self, error: UsbError) -> None:
        """A stall is cleared, silence and failed transfers are asked over; anything else ends the request."""
        if error.reason is UsbReason.STALLED:
            for endpoint in (self._out, self._in):
                self._device.clear_halt(endpoint.address)
        elif error.reason not in (UsbReason.TIMEOUT, UsbReason.BABBLE, UsbReason.FAULT):
            raise error

    def _next_id(self) -> None:
        self._id = self._id % 0xFFFF + 1  # never 0

    def _exchange(self, command: int, payload: bytes, flags: int) -> tuple[int, bytes]:
        packet = HEADER.pack(MAGIC, flags, command, len(payload), self._id) + payload
        self._device.bulk_out(self._out.address, packet, self._response_s + MARGIN_S)
        began_s = self._clock()
        deadline_s = began_s + self._response_s + MARGIN_S
        while True:
            data = self._device.bulk_in(self._in.address, self._room(), max(deadline_s - self._clock(), 1e-3))
            answer = self._parsed(data)
            if answer is None or answer[2] != self._id or answer[1] not in (command | 1, PENDING):
                self.counts["stray"] += 1  # of an earlier request, or of another host's
                if self._clock() > deadline_s:
                    raise UsbError(UsbReason.TIMEOUT, f"{self._device.found.name} answers other requests than ours")
                continue
            status, kind, _, body = answer
            if kind != PENDING:
                return status, body
            self.counts["pending"] += 1
            wait_s = int.from_bytes(body[2:4], "little") / 1000
            deadline_s = self._clock() + wait_s + MARGIN_S
            if deadline_s > began_s + LONGEST_PENDING_S:
                raise UsbError(UsbReason.PROTOCOL, f"{self._device.found.name} keeps asking for more time")

    def _room(self) -> int:
        """Whole packets: a longer answer would be babble, and cost the endpoint."""
        packet = max(self._in.max_packet_bytes, 1)
        return -(-self._most_ack // packet) * packet

    @staticmethod
    def _parsed(data: bytes) -> tuple[int, int, int, bytes] | None:
        """(status, command, id, payload); None for what is no whole answer."""
        if len(data) < HEADER.size:
            return None
        magic, status, command, length, request_id = HEADER.unpack_from(data)
        if magic != MAGIC or len(data) < HEADER.size + length:
            return None
        return status, command, request_id, data[HEADER.size : HEADER.size + length]

    def _drain(self) -> None:
        """Read what is there until nothing is."""
        for _ in range(64):
            try:
                self._device.bulk_in(self._in.address, self._room(), DRAIN_S)
            except UsbError as error:
                if error.reason is UsbReason.TIMEOUT:
                    return
                if error.reason not in (UsbReason.STALLED, UsbReason.BABBLE):
                    raise
                self._device.clear_halt(self._in.address)
            self.counts["stray"] += 1
