"""usbredir: emulated devices in QEMU's `usb-redir` ports, for the kernel of a guest.

QEMU is the guest's end of the protocol, this the end that has the device. `Redirection` is the protocol without a
socket, `Cable` a device in a port, served by a thread. Source: usbredir's `usbredirproto.h`, protocol 0.7.
"""

from __future__ import annotations

import errno
import selectors
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

from hw.twin.usb import descriptors
from hw.twin.usb.device import Setup, UsbModel
from hw.twin.usb.port import IN, Buffer, Port, Transfer


class Kind(IntEnum):
    """Types of packets."""

    HELLO = 0
    DEVICE_CONNECT = 1
    DEVICE_DISCONNECT = 2
    RESET = 3
    INTERFACE_INFO = 4
    EP_INFO = 5
    SET_CONFIGURATION = 6
    GET_CONFIGURATION = 7
    CONFIGURATION_STATUS = 8
    SET_ALT_SETTING = 9
    GET_ALT_SETTING = 10
    ALT_SETTING_STATUS = 11
    START_INTERRUPT = 15
    STOP_INTERRUPT = 16
    INTERRUPT_STATUS = 17
    CANCEL = 21
    CONTROL = 100
    BULK = 101
    INTERRUPT = 103


RELEASE, PACKET_SIZES, WIDE_IDS, LONG_BULK = (1 << bit for bit in (1, 4, 5, 6))
CAPABILITIES = RELEASE | PACKET_SIZES | WIDE_IDS | LONG_BULK
"""Release in the connect packet, packet sizes of endpoints, 64-bit ids, bulk transfers beyond 64 KiB."""
SUCCESS, CANCELLED, INVALID, IO_ERROR, STALLED, BABBLE = 0, 1, 2, 3, 4, 6
STATUS = {0: SUCCESS, errno.ENOENT: CANCELLED, errno.EINVAL: INVALID, errno.EPIPE: STALLED, errno.EOVERFLOW: BABBLE}
SPEEDS = {12: 1, 480: 2, 5000: 3}
TABLE = 32
"""Entries of interface and endpoint tables; endpoints inward from 16 on."""
NO_ENDPOINT = 255
HEADER, WIDE_HEADER = struct.Struct("<III"), struct.Struct("<IIQ")
HELLO = struct.Struct("<64sI")
CONTROL_HEADER = struct.Struct("<BBBBHHH")
BULK_HEADER = struct.Struct("<BBHI")
BULK_HIGH = struct.Struct("<H")
INTERRUPT_HEADER = struct.Struct("<BBH")
MOST_BYTES = 64 << 20
"""Of a packet: longer ones are no packets."""
RECEIVED_BYTES = 1 << 20
PATIENCE_S = 60.0
"""How long QEMU may take to read; an emulated processor is slow."""
LOOK_S = 0.5


class ProtocolError(Exception):
    """What came is no usbredir, or nothing that a device on such a port can be asked."""


class Redirection:
    """The protocol: `receive` takes bytes as they come, `send` is called with the parts of each packet that leaves.

    Used by one thread; `pump` it when `due_s` says so.
    """

    def __init__(self, model: UsbModel, send: Callable[[list[Buffer]], None]) -> None:
        self.model = model
        self.port = Port(model, self._finished)
        self._out = send
        self._received = bytearray()
        self._shared = 0
        """Capabilities of both ends."""
        self._configuration = 0
        self._alternates: dict[int, int] = {}
        self._packets = descriptors.endpoint_packets(model.configuration())
        self._listening: dict[int, bool] = {}
        """Interrupt endpoints that the guest listens to, and whether a transfer waits there."""
        self._interrupts = 0
        self._acts: dict[int, Callable[[bytes, int, float], None]] = {
            Kind.HELLO: self._hello,
            Kind.RESET: lambda payload, number, now_s: self.port.reset(),
            Kind.SET_CONFIGURATION: self._set_configuration,
            Kind.GET_CONFIGURATION: lambda payload, number, now_s: self._tell_configuration(number, SUCCESS),
            Kind.SET_ALT_SETTING: self._set_alternate,
            Kind.GET_ALT_SETTING: lambda payload, number, now_s: self._tell_alternate(number, payload[0]),
            Kind.START_INTERRUPT: self._listen,
            Kind.STOP_INTERRUPT: self._listen_no_more,
            Kind.CANCEL: lambda payload, number, now_s: self._cancel(number),
            Kind.CONTROL: self._control,
            Kind.BULK: self._bulk,
            Kind.INTERRUPT: self._interrupt_out,
        }

    def begin(self) -> None:
        """Say hello; the device is announced when the other end has."""
        self._send(Kind.HELLO, HELLO.pack(b"photometryd", CAPABILITIES))

    def receive(self, data: bytes, now_s: float) -> None:
        """Take what came, whole packets or not. Raises `ProtocolError`."""
        self._received += data
        while True:
            header = self._header()
            if len(self._received) < header.size:
                break
            kind, size, number = header.unpack_from(self._received)
            if size > MOST_BYTES:
                raise ProtocolError(f"a packet of {size} bytes")
            if len(self._received) < header.size + size:
                break
            payload = bytes(memoryview(self._received)[header.size : header.size + size])
            del self._received[: header.size + size]
            self._act(kind, payload, number, now_s)
        self.pump(now_s)

    def _act(self, kind: int, payload: bytes, number: int, now_s: float) -> None:
        if kind not in self._acts:
            raise ProtocolError(f"packets of type {kind} are not emulated")
        try:
            self._acts[kind](payload, number, now_s)
        except (struct.error, IndexError) as error:
            raise ProtocolError(f"a packet {Kind(kind).name} of {len(payload)} bytes") from error

    def pump(self, now_s: float) -> None:
        """Let waiting transfers go on, and wait anew on interrupt endpoints."""
        self.port.pump(now_s)
        for endpoint in [one for one, waits in self._listening.items() if not waits]:
            self._listening[endpoint] = True
            length = self._packets[endpoint] & 0x7FF
            self.port.submit(Transfer(self, -endpoint, endpoint, length, extra=Kind.INTERRUPT), now_s)

    def due_s(self, now_s: float) -> float | None:
        """When `pump` is worth calling without anything having come."""
        return self.port.due_s(now_s) if all(self._listening.values()) else now_s

    def unplug(self) -> None:
        """Say that the device is gone; what waits is not answered, as of a device that was pulled. Idempotent."""
        if not self.port.gone:
            self.port.unplug()
        self._send(Kind.DEVICE_DISCONNECT, b"")

    # -- what the guest asks ----------------------------------------------------

    def _hello(self, payload: bytes, number: int, now_s: float) -> None:
        theirs = HELLO.unpack_from(payload)[1] if len(payload) >= HELLO.size else 0  # before 0.3 there were none
        self._shared = theirs & CAPABILITIES
        self._send(Kind.INTERFACE_INFO, self._interfaces())
        self._send(Kind.EP_INFO, self._endpoints())
        device = self.model.device_descriptor()
        about = bytes([SPEEDS[self.model.speed_mbps]]) + device[4:7] + device[8:12]
        self._send(Kind.DEVICE_CONNECT, about + (device[12:14] if self._shared & RELEASE else b""))

    def _interfaces(self) -> bytes:
        parts = [one for one in descriptors.walk(self.model.configuration()) if one[1] == descriptors.INTERFACE]
        parts = [one for one in parts if one[3] == 0]  # as after SET_CONFIGURATION
        columns = (bytes(part[at] for part in parts).ljust(TABLE, b"\0") for at in (2, 5, 6, 7))
        return struct.pack("<I", len(parts)) + b"".join(columns)

    def _endpoints(self) -> bytes:
        kinds, intervals, numbers = bytearray([NO_ENDPOINT] * TABLE), bytearray(TABLE), bytearray(TABLE)
        sizes = [0] * TABLE
        kinds[0] = kinds[TABLE // 2] = 0
        sizes[0] = sizes[TABLE // 2] = 512 if self.model.speed_mbps >= 5000 else 64
        configuration = self.model.configuration()
        interface_of = descriptors.endpoint_interfaces(configuration)
        for part in descriptors.walk(configuration):
            if part[1] == descriptors.ENDPOINT:
                at = part[2] & 0x0F | (part[2] & IN) >> 3
                kinds[at], intervals[at] = part[3] & 3, part[6]
                numbers[at], sizes[at] = interface_of[part[2]], self._packets[part[2]]
        packed = bytes(kinds + intervals + numbers)
        return packed + struct.pack(f"<{TABLE}H", *sizes) if self._shared & PACKET_SIZES else packed

    def _set_configuration(self, payload: bytes, number: int, now_s: float) -> None:
        status = SUCCESS if payload[0] in (0, 1) else INVALID
        if status == SUCCESS:
            self._configuration = payload[0]
            self._alternates.clear()
            self.port.set_configuration()
        self._tell_configuration(number, status)

    def _tell_configuration(self, number: int, status: int) -> None:
        self._send(Kind.CONFIGURATION_STATUS, bytes([status, self._configuration]), number)

    def _set_alternate(self, payload: bytes, number: int, now_s: float) -> None:
        interface, alternate = payload[0], payload[1]
        self._alternates[interface] = alternate
        self.port.set_interface(interface, alternate)
        self._tell_alternate(number, interface)

    def _tell_alternate(self, number: int, interface: int) -> None:
        told = bytes([SUCCESS, interface, self._alternates.get(interface, 0)])
        self._send(Kind.ALT_SETTING_STATUS, told, number)

    def _listen(self, payload: bytes, number: int, now_s: float) -> None:
        endpoint = payload[0]
        known = endpoint in self._packets and bool(endpoint & IN)
        if known:
            self._listening.setdefault(endpoint, False)
        self._send(Kind.INTERRUPT_STATUS, bytes([SUCCESS if known else INVALID, endpoint]), number)

    def _listen_no_more(self, payload: bytes, number: int, now_s: float) -> None:
        endpoint = payload[0]
        self._listening.pop(endpoint, None)
        self.port.cancel(self, -endpoint)
        self._send(Kind.INTERRUPT_STATUS, bytes([SUCCESS, endpoint]), number)

    def _cancel(self, number: int) -> None:
        self.port.cancel(self, number)  # one that has ended was answered already

    def _control(self, payload: bytes, number: int, now_s: float) -> None:
        endpoint, request, kind, _, value, index, length = CONTROL_HEADER.unpack_from(payload)
        setup = Setup(kind, request, value, index, length)
        data = b"" if setup.inward else payload[CONTROL_HEADER.size :]
        self._submit(Transfer(self, number, endpoint, length, data, setup, extra=Kind.CONTROL), now_s)

    def _bulk(self, payload: bytes, number: int, now_s: float) -> None:
        endpoint, _, length, _ = BULK_HEADER.unpack_from(payload)
        at = BULK_HEADER.size
        if self._shared & LONG_BULK:
            length |= BULK_HIGH.unpack_from(payload, at)[0] << 16
            at += BULK_HIGH.size
        data = b"" if endpoint & IN else payload[at:]
        self._submit(Transfer(self, number, endpoint, length, data, extra=Kind.BULK), now_s)

    def _interrupt_out(self, payload: bytes, number: int, now_s: float) -> None:
        endpoint, _, length = INTERRUPT_HEADER.unpack_from(payload)
        data = payload[INTERRUPT_HEADER.size :]
        self._submit(Transfer(self, number, endpoint, length, data, extra=Kind.INTERRUPT), now_s)

    def _submit(self, transfer: Transfer, now_s: float) -> None:
        refused = self.port.submit(transfer, now_s)
        if refused:
            transfer.status = -errno.EINVAL if refused == errno.ENOENT else -refused
            self._finished(transfer)

    # -- answers ------------------------------------------------------------

    def _finished(self, transfer: Transfer) -> None:
        gone = transfer.status in (-errno.ESHUTDOWN, -errno.ENODEV)
        if transfer.extra == Kind.INTERRUPT and transfer.endpoint & IN:
            self._interrupted(transfer)
        elif not gone:
            self._answer(transfer, STATUS.get(-transfer.status, IO_ERROR))

    def _answer(self, transfer: Transfer, status: int) -> None:
        endpoint, actual, setup = transfer.endpoint, transfer.actual, transfer.setup
        data = transfer.answer if endpoint & IN or setup is not None else b""
        if setup is not None:
            head = CONTROL_HEADER.pack(
                endpoint, setup.request, setup.request_type, status, setup.value, setup.index, actual
            )
        elif transfer.extra == Kind.BULK:
            head = BULK_HEADER.pack(endpoint, status, actual & 0xFFFF, 0)
            head += BULK_HIGH.pack(actual >> 16) if self._shared & LONG_BULK else b""
        else:
            head = INTERRUPT_HEADER.pack(endpoint, status, actual)
        self._send(transfer.extra, head, transfer.token, data)

    def _interrupted(self, transfer: Transfer) -> None:
        """Something came on an interrupt endpoint; `pump` waits there anew, as the guest does not ask for each."""
        endpoint = transfer.endpoint
        if endpoint not in self._listening:
            return
        self._listening[endpoint] = False
        if transfer.status == 0:
            head = INTERRUPT_HEADER.pack(endpoint, SUCCESS, transfer.actual)
            self._send(Kind.INTERRUPT, head, self._interrupts, transfer.answer)
            self._interrupts += 1
        elif transfer.status == -errno.EPIPE or self.port.gone:
            del self._listening[endpoint]
            if not self.port.gone:
                self._send(Kind.INTERRUPT_STATUS, bytes([STALLED, endpoint]))

    def _header(self) -> struct.Struct:
        return WIDE_HEADER if self._shared & WIDE_IDS else HEADER

    def _send(self, kind: Kind, head: bytes, number: int = 0, data: Buffer = b"") -> None:
        parts: list[Buffer] = [self._header().pack(kind, len(head) + len(data), number) + head]
        self._out([*parts, data] if len(data) else parts)


class Cable:
    """A device that can be plugged into a port of QEMU: a socket that it listens on. Its thread serves it."""

    def __init__(self, model: UsbModel, path: Path) -> None:
        self.model = model
        self._path = path
        self._lock = threading.Lock()
        """Models are used by one thread at a time."""
        self._redirection: Redirection | None = None
        self._socket: socket.socket | None = None
        self._bell: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def plugged(self) -> bool:
        """Whether the device is there: it may have gone by a fault."""
        return self._thread is not None and self._thread.is_alive()

    def plug(self) -> None:
        """Plug it in, powered up anew. Raises `OSError` when nobody listens, `ValueError` when it is plugged in."""
        if self.plugged:
            raise ValueError("it is plugged in already")
        self.unplug()
        self.model.reset()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE_S)
        try:
            self._socket.connect(str(self._path))
        except OSError:
            self._socket.close()
            raise
        self._bell, ringer = socket.socketpair()
        self._redirection = Redirection(self.model, self._send)
        self._thread = threading.Thread(target=self._serve, args=(ringer,), name=f"usbredir-{self._path.name}")
        self._thread.start()

    def unplug(self) -> None:
        """Pull it out. Idempotent."""
        if self._thread is not None and self._bell is not None:
            self._bell.close()
            self._thread.join()
            self._thread = None

    def inject(self, fault: str, **parameters: Any) -> None:
        """Arm a fault of the bus or of the model. Raises `ValueError` for one that there is not."""
        with self._lock:
            if self._redirection is not None and self._bell is not None and self.plugged:
                self._redirection.port.inject(fault, time.monotonic(), **parameters)
                self._bell.send(b"x")
            else:
                self.model.inject(fault, **parameters)

    def state(self) -> dict[str, Any]:
        """What the device says of itself, and whether it is plugged in."""
        with self._lock:
            return self.model.state() | {"plugged": self.plugged}

    def close(self) -> None:
        """Unplug, and let the model go. Idempotent."""
        self.unplug()
        self.model.close()

    def _serve(self, ringer: socket.socket) -> None:
        assert self._redirection is not None and self._socket is not None
        redirection, wire = self._redirection, self._socket
        with ringer, wire, selectors.DefaultSelector() as selector:
            for source in (wire, ringer):
                selector.register(source, selectors.EVENT_READ)
            try:
                redirection.begin()
                while self._turn(redirection, selector, ringer):
                    pass
                redirection.unplug()
            except OSError as error:
                if not redirection.port.gone:
                    print(f"the guest's end of {self._path.name} is gone: {error}", file=sys.stderr)
            except Exception as error:  # noqa: BLE001 - a fault of the model unplugs it, and is told
                traceback.print_exception(error, file=sys.stderr)
            redirection.port.unplug()

    def _turn(self, redirection: Redirection, selector: selectors.BaseSelector, ringer: socket.socket) -> bool:
        """Wait, and do what there is to do; False once the device is unplugged."""
        now_s = time.monotonic()
        with self._lock:
            due_s = redirection.due_s(now_s)
        ready = selector.select(LOOK_S if due_s is None else max(0.0, min(LOOK_S, due_s - now_s)))
        sources = [key.fileobj for key, _ in ready]
        if ringer in sources and not ringer.recv(64):
            return False
        with self._lock:
            if self._socket in sources and self._socket is not None:
                data = self._socket.recv(RECEIVED_BYTES)
                if not data:
                    raise ConnectionResetError("closed")
                redirection.receive(data, time.monotonic())
            else:
                redirection.pump(time.monotonic())
        return not redirection.port.gone

    def _send(self, parts: list[Buffer]) -> None:
        assert self._socket is not None
        views = [memoryview(part) for part in parts]
        while views:
            sent = self._socket.sendmsg(views)
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if views:
                views[0] = views[0][sent:]
