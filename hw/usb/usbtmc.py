"""USBTMC and its USB488 subclass: messages to and from a bench instrument over bulk endpoints.

After the USB Test and Measurement Class specification 1.0 as three open implementations agree on it. One message or
query at a time: the caller's to see to, as with the device itself.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator

from hw.usb.bus import Interface
from hw.usb.device import UsbDevice
from hw.usb.errors import UsbError, UsbReason

TRIPLES = ((0xFE, 0x03, 0x01), (0xFE, 0x03, 0x00))
"""Class triples of an interface: USB488, and plain."""
HEADER = struct.Struct("<BBBxIBB2x")
"""MsgID, bTag, its inverse, TransferSize, attributes, TermChar."""
MESSAGE_OUT, REQUEST_IN, MESSAGE_IN = 1, 2, 2
END_OF_MESSAGE = 0x01
ABORT_OUT, CHECK_ABORT_OUT, ABORT_IN, CHECK_ABORT_IN, CLEAR, CHECK_CLEAR = range(1, 7)
REMOTE = 160
TO_ENDPOINT, TO_INTERFACE = 0xA2, 0xA1
SUCCESS, PENDING = 0x01, 0x02
CHUNK_BYTES = 64 * 1024
MOST_BYTES = 16 << 20
"""A longer answer is none."""
CONTROL_S = 0.5
DRAIN_S = 0.05
DRAINS = 1000
POLL_S = 0.01


class UsbTmc:
    """The message interface of a claimed device. Methods raise `UsbError`; a time-out leaves it ready for the next."""

    def __init__(self, device: UsbDevice, interface: Interface) -> None:
        self._device, self._interface = device, interface
        self._out, self._in = interface.endpoint(inward=False), interface.endpoint(inward=True)
        self._tag = 0
        self.oddities = 0
        """Answers whose MsgID was not the one due; some instruments do so and mean well."""

    @staticmethod
    def interface_of(device: UsbDevice) -> Interface:
        """The device's message interface. Raises `UsbError` (PROTOCOL) when it has none."""
        found = {one.triple: one for one in device.found.interfaces if one.triple in TRIPLES}
        for triple in TRIPLES:
            if triple in found:
                return found[triple]
        raise UsbError(UsbReason.PROTOCOL, f"{device.found.name} has no interface for messages (USBTMC)")

    # -- messages ------------------------------------------------------------

    def write(self, message: bytes, timeout_s: float) -> None:
        """Send one message."""
        deadline_s = time.monotonic() + timeout_s
        pieces = [message[k : k + CHUNK_BYTES] for k in range(0, len(message), CHUNK_BYTES)] or [b""]
        for place, piece in enumerate(pieces):
            last = place == len(pieces) - 1
            header = self._header(MESSAGE_OUT, len(piece), END_OF_MESSAGE if last else 0)
            padded = header + piece + bytes(-len(piece) % 4)
            with self._mended(self._out.address, self._tag):
                self._device.bulk_out(self._out.address, padded, _left(deadline_s))

    def read(self, timeout_s: float) -> bytes:
        """The answer to the last query, whole. TIMEOUT when it did not come in time."""
        deadline_s = time.monotonic() + timeout_s
        message = b""
        while True:
            part, ended = self._part(deadline_s)
            message += part
            if ended:
                return message
            if len(message) > MOST_BYTES or time.monotonic() > deadline_s:
                self.clear()
                raise UsbError(UsbReason.PROTOCOL, f"{self._name} does not end its answer")

    def query(self, message: bytes, timeout_s: float) -> bytes:
        """Send one message and read its answer."""
        self.write(message, timeout_s)
        return self.read(timeout_s)

    # -- requests ------------------------------------------------------------

    def remote(self, *, on: bool) -> None:
        """Lock the front panel against settings, or give it back."""
        self._request(TO_INTERFACE, REMOTE, int(on), 1)

    def clear(self) -> None:
        """Throw away whatever the instrument has taken in or has to say (INITIATE_CLEAR)."""
        self._request(TO_INTERFACE, CLEAR, 0, 1)
        deadline_s = time.monotonic() + CONTROL_S
        while (told := self._request(TO_INTERFACE, CHECK_CLEAR, 0, 2, also=PENDING))[0] == PENDING:
            if told[-1] & 1:  # it has something to say first
                self._drain()
            self._wait(deadline_s, "clearing")
        self._device.clear_halt(self._out.address)

    # -- inside ------------------------------------------------------------

    def _part(self, deadline_s: float) -> tuple[bytes, bool]:
        """One transfer of an answer, and whether the answer ends with it."""
        request = self._header(REQUEST_IN, CHUNK_BYTES, 0)
        tag = self._tag
        with self._mended(self._out.address, tag):
            self._device.bulk_out(self._out.address, request, _left(deadline_s))
        # whole packets and one more, so that a short one always ends the transfer
        room = ((CHUNK_BYTES + HEADER.size) // self._in.max_packet_bytes + 1) * self._in.max_packet_bytes
        with self._mended(self._in.address, tag):
            data = self._device.bulk_in(self._in.address, room, _left(deadline_s))
        if len(data) < HEADER.size:
            raise UsbError(UsbReason.PROTOCOL, f"{self._name} answered {len(data)} bytes without a header")
        number, told, inverse, size, attributes, _ = HEADER.unpack_from(data)
        if told != tag or inverse != tag ^ 0xFF:
            with contextlib.suppress(UsbError):
                self._abort_in(tag)
            raise UsbError(UsbReason.PROTOCOL, f"{self._name} answered request {told} in place of {tag}")
        self.oddities += number != MESSAGE_IN
        body = data[HEADER.size : HEADER.size + size]
        if len(body) < size:
            raise UsbError(UsbReason.PROTOCOL, f"{self._name} sent {len(body)} of {size} bytes")
        return body, bool(attributes & END_OF_MESSAGE)

    def _header(self, number: int, size: int, attributes: int) -> bytes:
        tag = self._next_tag()
        return HEADER.pack(number, tag, tag ^ 0xFF, size, attributes, 0)

    def _next_tag(self) -> int:
        self._tag = self._tag % 255 + 1
        return self._tag

    @contextlib.contextmanager
    def _mended(self, endpoint: int, tag: int) -> Iterator[None]:
        """A transfer after whose failure the endpoint is fit for the next: taken back, or its stall cleared."""
        try:
            yield
        except UsbError as error:
            with contextlib.suppress(UsbError):  # the first error tells more
                if error.reason is UsbReason.STALLED:
                    self._device.clear_halt(endpoint)
                elif error.reason is UsbReason.TIMEOUT:
                    (self._abort_out if endpoint == self._out.address else self._abort_in)(tag)
            raise

    def _abort_out(self, tag: int) -> None:
        told = self._request(TO_ENDPOINT, ABORT_OUT, tag, 2, endpoint=self._out.address, fail=False)
        if told and told[0] == SUCCESS:
            self._until_done(CHECK_ABORT_OUT, self._out.address)
        self._device.clear_halt(self._out.address)

    def _abort_in(self, tag: int) -> None:
        """Take back the request for an answer; what comes of it is thrown away."""
        told = self._request(TO_ENDPOINT, ABORT_IN, tag, 2, endpoint=self._in.address, fail=False)
        if told and told[0] == SUCCESS:
            self._drain()
            self._until_done(CHECK_ABORT_IN, self._in.address)

    def _until_done(self, request: int, endpoint: int) -> None:
        deadline_s = time.monotonic() + CONTROL_S
        while (told := self._request(TO_ENDPOINT, request, 0, 8, endpoint=endpoint, also=PENDING))[0] == PENDING:
            if endpoint == self._in.address and len(told) > 1 and told[1] & 1:
                self._drain()
            self._wait(deadline_s, "taking a request back")

    def _drain(self) -> None:
        """Read until a short packet, or nothing for a moment."""
        packet = self._in.max_packet_bytes
        for _ in range(DRAINS):
            try:
                if len(self._device.bulk_in(self._in.address, packet, DRAIN_S)) < packet:
                    return
            except UsbError as error:
                if error.reason is UsbReason.TIMEOUT:
                    return
                raise
        raise UsbError(UsbReason.PROTOCOL, f"{self._name} does not stop sending")

    def _request(
        self,
        kind: int,
        request: int,
        value: int,
        length: int,
        *,
        endpoint: int | None = None,
        also: int | None = None,
        fail: bool = True,
    ) -> bytes:
        """A class request's answer; a status other than success (or `also`) is PROTOCOL, unless not to `fail`."""
        index = self._interface.number if endpoint is None else endpoint
        told = self._device.control(kind, request, value, index, length, CONTROL_S)
        if fail and (not told or told[0] not in (SUCCESS, also)):
            status = f"{told[0]:02x}" if told else "nothing"
            raise UsbError(UsbReason.PROTOCOL, f"{self._name} answered request {request} with status {status}")
        return told

    def _wait(self, deadline_s: float, what: str) -> None:
        if time.monotonic() > deadline_s:
            raise UsbError(UsbReason.TIMEOUT, f"{self._name}: {what} did not end in {CONTROL_S:g} s")
        time.sleep(POLL_S)

    @property
    def _name(self) -> str:
        return self._device.found.name


def _left(deadline_s: float) -> float:
    return max(deadline_s - time.monotonic(), 0.001)
