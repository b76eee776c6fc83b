"""Linux's usbfs for programs under umockdev's preload library, spoken straight to it.

The library sends each ioctl on a device's file down a Unix socket and does what the answers say: three native `long`s,
command and two arguments; reading and writing the program's memory are commands of their own. Nothing else of umockdev
takes part, so a frame is copied once into the socket and once out of it
(`docs/decisions/0026-usbfs-by-the-preload-library.md`).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable

from hw.twin.usb.device import Setup, UsbModel
from hw.twin.usb.port import IN, Buffer, Port, Transfer
from hw.twin.usb.testbed import Place, Testbed

PRELOAD = "libumockdev-preload.so.0"
WORD = struct.Struct("@3L")
REQUEST_IOCTL, REQUEST_READ, REQUEST_WRITE = 1, 7, 8
DONE, RUN, READ_MEMORY, WRITE_MEMORY = 3, 4, 5, 6

URB = struct.Struct("@BBiIPii")
"""struct usbdevfs_urb up to actual_length: type, endpoint, status, flags, buffer, buffer_length, actual_length."""
URB_ANSWER_AT = 4
"""From the status on it is written back."""
TYPE_ISO, TYPE_CONTROL = 0, 2
CAPABILITIES = 0x01 | 0x04 | 0x08 | 0x10
"""Zero packets, transfers of any length, scatter-gather, fetching after the device went: as xHCI has it."""
PATIENCE_S = 10.0
"""How long a program may take to hand over memory before it counts as stopped."""
SO_SNDBUFFORCE = 32
SOCKET_BYTES = 4 << 20
"""Room for a frame, so that its sending does not wait for the program to be scheduled; needs privilege."""


def reason_against() -> str | None:
    """Why there can be no emulated bus here; None when there can."""
    if not sys.platform.startswith("linux"):
        return "emulated USB devices need Linux"
    environment = os.environ | {"LD_PRELOAD": PRELOAD}
    told = subprocess.run(["/bin/true"], env=environment, capture_output=True, text=True, check=False)
    if PRELOAD in told.stderr:
        return f"{PRELOAD} cannot be loaded: on Debian, as root, apt-get install umockdev"
    return None


class UsbfsDevice:
    """An emulated device in its port, with all files that programs have open on it."""

    def __init__(
        self, testbed: Testbed, place: Place, model: UsbModel, drivers: dict[int, str], memory: Memory
    ) -> None:
        self.place, self.model, self.memory = place, model, memory
        self.drivers = dict(drivers)
        """Interface -> kernel driver that is bound to it."""
        self.dropped_drivers: dict[int, str] = {}
        self.port = Port(model, self._finished)
        self.files: list[UsbfsFile] = []
        self._testbed = testbed
        self.listener = testbed.listen(place)
        self._node = testbed.add(place, model)
        self._there = True

    def accept(self) -> UsbfsFile:
        """A program opened the device."""
        connection, _ = self.listener.accept()
        file = UsbfsFile(self, connection)
        self.files.append(file)
        return file

    def _finished(self, transfer: Transfer) -> None:
        transfer.owner.finished(transfer)

    def show_ready(self) -> None:
        """Wake those who poll when there is something to fetch, or let them sleep."""
        self._node.set_ready(any(file.done for file in self.files))

    def unplug(self) -> None:
        """Gone from /sys and /dev; files that are open learn of it by ENODEV. Idempotent."""
        if self._there:
            self._there = False
            self.port.unplug()
            self.listener.close()
            self._testbed.remove(self.place)
            self.show_ready()

    def forget(self, file: UsbfsFile) -> None:
        """A program closed the device's file."""
        self.files.remove(file)
        self.port.leave(file)
        self.show_ready()

    def close(self) -> None:
        """Unplug and close all files; programs that use one after that are ended by the preload library."""
        self.unplug()
        for file in list(self.files):
            file.close()
        self._node.close()


class Memory:
    """The kernel's limit on memory of all transfers in flight, `usbfs_memory_mb`; 0: none."""

    def __init__(self) -> None:
        self.limit_mb = 0
        self.used_bytes = 0

    def take(self, size: int) -> bool:
        """Whether there is room, then taken."""
        if self.limit_mb and self.used_bytes + size > self.limit_mb << 20:
            return False
        self.used_bytes += size
        return True

    def give(self, size: int) -> None:
        """A transfer was fetched."""
        self.used_bytes -= size


def pass_through(connection: socket.socket) -> bool:
    """A program asks about a file of /dev that is not emulated: let it ask the kernel. False when it closed it."""
    try:
        if not connection.recv(WORD.size, socket.MSG_WAITALL):
            return False
        connection.sendall(WORD.pack(RUN, 0, 0))
        _, result, error = WORD.unpack(connection.recv(WORD.size, socket.MSG_WAITALL))
        connection.sendall(WORD.pack(DONE, result, error))
    except (OSError, struct.error):
        return False
    return True


class UsbfsFile:
    """One open device file: its ioctls, one at a time."""

    def __init__(self, device: UsbfsDevice, connection: socket.socket) -> None:
        self.device = device
        self.connection = connection
        self.done: deque[Transfer] = deque()
        self._flying: dict[int, Transfer] = {}
        connection.settimeout(PATIENCE_S)
        try:
            connection.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BYTES)
        except PermissionError:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        self._ioctls: dict[int, Callable[[int], None]] = {
            4: self._set_interface,
            5: self._set_configuration,
            8: self._get_driver,
            10: self._submit,
            11: self._discard,
            12: self._reap,
            13: self._reap,
            15: self._claim,
            16: self._release,
            18: self._driver_ioctl,
            20: self._reset,
            21: self._clear_halt,
            26: self._capabilities,
            27: self._disconnect_claim,
            31: self._speed,
        }

    def serve(self) -> bool:
        """Answer the request that has come; False when the program closed the file or died."""
        try:
            command, number, argument = WORD.unpack(self._receive(WORD.size))
            if command != REQUEST_IOCTL:
                self._answer(-1, errno.EINVAL)
            elif self.device.port.gone and number & 0xFF not in (11, 12, 13, 16):
                self._answer(-1, errno.ENODEV)
            else:
                self._ioctls.get(number & 0xFF, self._unknown)(argument)
        except OSError:
            self.close()
            return False
        return True

    def finished(self, transfer: Transfer) -> None:
        """A transfer of this file ended."""
        self.done.append(transfer)

    def close(self) -> None:
        """The program is gone."""
        self.connection.close()
        for transfer in self._flying.values():
            self.device.memory.give(transfer.length)
        self._flying.clear()
        self.done.clear()
        if self in self.device.files:
            self.device.forget(self)

    # -- the wire ------------------------------------------------------------

    def _receive(self, size: int) -> bytes:
        data = self.connection.recv(size, socket.MSG_WAITALL)
        while len(data) < size:  # a socket with a deadline may give less
            more = self.connection.recv(size - len(data), socket.MSG_WAITALL)
            if not more:
                raise ConnectionResetError("the program closed the file")
            data += more
        return data

    def _memory(self, address: int, size: int) -> bytes:
        """The program's memory."""
        if size == 0:
            return b""
        self.connection.sendall(WORD.pack(READ_MEMORY, address, size))
        return self._receive(size)

    def _answer(self, result: int, error: int = 0, *writes: tuple[int, Buffer]) -> None:
        """Write to the program's memory, then let its ioctl return."""
        parts: list[Buffer] = []
        for address, data in writes:
            parts += [WORD.pack(WRITE_MEMORY, address, len(data)), data]
        parts.append(WORD.pack(DONE, result & (1 << 8 * struct.calcsize("L")) - 1, error))
        views = [memoryview(part) for part in parts]
        while views:
            sent = self.connection.sendmsg(views)
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if views:
                views[0] = views[0][sent:]

    def _result(self, error: int) -> None:
        self._answer(-1 if error else 0, error)

    # -- ioctls ------------------------------------------------------------

    def _unknown(self, argument: int) -> None:
        self._answer(-1, errno.ENOTTY)

    def _capabilities(self, argument: int) -> None:
        self._answer(0, 0, (argument, struct.pack("@I", CAPABILITIES)))

    def _speed(self, argument: int) -> None:
        self._answer(5 if self.device.model.speed_mbps >= 5000 else 3)

    def _submit(self, argument: int) -> None:
        raw = self._memory(argument, URB.size)
        kind, endpoint, _, _, buffer, length, _ = URB.unpack(raw)
        if kind == TYPE_ISO or length < 0:
            self._answer(-1, errno.EINVAL)
            return
        transfer = Transfer(self, argument, endpoint, length, extra=(raw, buffer))
        if kind == TYPE_CONTROL:
            transfer.setup = setup = Setup.unpack(self._memory(buffer, 8))
            transfer.length = setup.length
            if not setup.inward:
                transfer.data = self._memory(buffer + 8, setup.length)
        elif not endpoint & IN:
            transfer.data = self._memory(buffer, length)
        if not self.device.memory.take(transfer.length):
            self._answer(-1, errno.ENOMEM)
            return
        self._flying[argument] = transfer
        error = self.device.port.submit(transfer, time.monotonic())
        if error:
            del self._flying[argument]
            self.device.memory.give(transfer.length)
        self._result(error)

    def _discard(self, argument: int) -> None:
        self._result(0 if self.device.port.cancel(self, argument) else errno.EINVAL)

    def _reap(self, argument: int) -> None:
        """The next finished transfer, its data and its status; both kinds answer at once."""
        if not self.done:
            self._answer(-1, errno.ENODEV if self.device.port.gone else errno.EAGAIN)
            return
        transfer = self.done.popleft()
        self._flying.pop(transfer.token, None)
        self.device.memory.give(transfer.length)
        raw, buffer = transfer.extra
        kind, endpoint, _, flags, address, length, _ = URB.unpack(raw)
        urb = URB.pack(kind, endpoint, transfer.status, flags, address, length, transfer.actual)
        writes: list[tuple[int, Buffer]] = []
        if transfer.actual and (endpoint & IN or transfer.setup is not None) and len(transfer.answer):
            writes.append((buffer + 8 if transfer.setup is not None else buffer, transfer.answer))
        writes.append((transfer.token + URB_ANSWER_AT, urb[URB_ANSWER_AT:]))
        writes.append((argument, struct.pack("@P", transfer.token)))
        self._answer(0, 0, *writes)

    def _number(self, argument: int) -> int:
        return struct.unpack("@I", self._memory(argument, 4))[0]

    def _claim(self, argument: int) -> None:
        number = self._number(argument)
        self._result(errno.EBUSY if number in self.device.drivers else self.device.port.claim(self, number))

    def _release(self, argument: int) -> None:
        self._result(self.device.port.release(self, self._number(argument)))

    def _disconnect_claim(self, argument: int) -> None:
        """A kernel driver goes, unless it is usbfs of another program."""
        number = self._number(argument)
        error = self.device.port.claim(self, number)
        if not error:
            self._drop_driver(number)
        self._result(error)

    def _get_driver(self, argument: int) -> None:
        name = self.device.drivers.get(self._number(argument))
        if name is None:
            self._answer(-1, errno.ENODATA)
        else:
            self._answer(0, 0, (argument + 4, name.encode().ljust(256, b"\0")))

    def _driver_ioctl(self, argument: int) -> None:
        """USBDEVFS_DISCONNECT (22) and USBDEVFS_CONNECT (23) of an interface's kernel driver."""
        number, code = struct.unpack("@ii", self._memory(argument, 8))
        known = self.device.dropped_drivers
        if code & 0xFF == 22 and number in self.device.drivers:
            self._drop_driver(number)
            self._answer(0)
        elif code & 0xFF == 23 and number in known:
            self.device.drivers[number] = known.pop(number)
            self._answer(1)
        else:
            self._answer(-1, errno.ENODATA)

    def _drop_driver(self, number: int) -> None:
        if number in self.device.drivers:
            self.device.dropped_drivers[number] = self.device.drivers.pop(number)

    def _set_configuration(self, argument: int) -> None:
        if self._number(argument) not in (0, 1):
            self._answer(-1, errno.EINVAL)
            return
        self.device.port.set_configuration()
        self._answer(0)

    def _set_interface(self, argument: int) -> None:
        number, alternate = struct.unpack("@II", self._memory(argument, 8))
        error = self.device.port.claim(self, number)
        if not error:
            self.device.port.set_interface(number, alternate)
        self._result(error)

    def _clear_halt(self, argument: int) -> None:
        self.device.port.clear_halt(self._number(argument))
        self._answer(0)

    def _reset(self, argument: int) -> None:
        self.device.port.reset()
        self._answer(0)
