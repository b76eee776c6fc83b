"""A host of USB3 Vision as plain as can be, over pyusb: what the emulated camera's tests ask it with.

Shares no code with the camera driver, nor with the camera.
"""

from __future__ import annotations

import array
import io
import struct
import zipfile
from dataclasses import dataclass

import usb.core
import usb.util
from genicam.genapi import AbstractPort, EAccessMode, NodeMap

OUT, IN, STREAM = 0x01, 0x81, 0x82
WAIT_MS = 5000
READ, WRITE = 0x0800, 0x0802
SIZES = (0x18, 0x1C, 0x20, 0x24, 0x28, 0x2C)


class Status(Exception):
    """The camera's answer is not 0."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status:#06x}")
        self.status = status


@dataclass
class Received:
    leader: bytes
    parts: list[bytes]
    trailer: bytes

    @property
    def payload(self) -> bytes:
        return b"".join(self.parts)

    @property
    def block_id(self) -> int:
        assert self.leader[:4] == b"U3VL" and self.trailer[:4] == b"U3VT"
        assert self.leader[8:16] == self.trailer[8:16]
        return struct.unpack_from("<Q", self.leader, 8)[0]

    @property
    def timestamp_ns(self) -> int:
        return struct.unpack_from("<Q", self.leader, 20)[0]

    @property
    def geometry(self) -> tuple[int, ...]:
        """Format, width, height, offsets."""
        return struct.unpack_from("<5I", self.leader, 28)

    @property
    def status(self) -> int:
        return struct.unpack_from("<H", self.trailer, 16)[0]

    @property
    def valid_bytes(self) -> int:
        return struct.unpack_from("<Q", self.trailer, 20)[0]


class Host:
    """One opened camera."""

    def __init__(self) -> None:
        self.device = usb.core.find(idVendor=0x1209, idProduct=2)
        assert self.device is not None
        for number in (0, 1):
            usb.util.claim_interface(self.device, number)
        self._request = 0
        sbrm = self.number(0x1D8, 8)
        self.most = self.number(sbrm + 0x18, 4) - 12
        self.sirm = self.number(sbrm + 0x20, 8)
        self.current_speed = self.number(sbrm + 0x40, 4)

    def close(self) -> None:
        usb.util.dispose_resources(self.device)

    # -- control ------------------------------------------------------------

    def exchange(self, command: int, payload: bytes, *, flags: int = 0x4000, magic: int = 0x43563355) -> bytes:
        """One command; raises `Status`. Acknowledges of other requests are passed over."""
        self._request = self._request % 0xFFFF + 1
        self.device.write(OUT, struct.pack("<IHHHH", magic, flags, command, len(payload), self._request) + payload)
        while True:
            answer = bytes(self.device.read(IN, 65536, WAIT_MS))
            magic_back, status, acked, size, request = struct.unpack_from("<IHHHH", answer)
            assert magic_back == 0x43563355 and size == len(answer) - 12
            if request == self._request and acked != 0x0805:
                break
        assert acked == command | 1
        if status:
            raise Status(status)
        return answer[12:]

    def read(self, address: int, size: int) -> bytes:
        data = b""
        while len(data) < size:
            count = min(size - len(data), getattr(self, "most", 64))
            data += self.exchange(READ, struct.pack("<QHH", address + len(data), 0, count))
        return data

    def write(self, address: int, data: bytes) -> None:
        assert self.exchange(WRITE, struct.pack("<Q", address) + data) == struct.pack("<HH", 0, len(data))

    def number(self, address: int, size: int = 4) -> int:
        return int.from_bytes(self.read(address, size), "little")

    def set(self, address: int, value: int) -> None:
        self.write(address, struct.pack("<I", value))

    # -- GenICam ------------------------------------------------------------

    def manifest(self) -> list[tuple[tuple[int, int, int], bool, int, int, bytes]]:
        """(version, whether zipped, address, size, SHA-1) of each file."""
        table = self.number(0x1D0, 8)
        found = []
        for k in range(self.number(table, 8)):
            below, minor, major, kind, address, size, digest = struct.unpack(
                "<HBBIQQ20s", self.read(table + 8 + 64 * k, 44)
            )
            found.append(((major, minor, below), kind >> 10 & 0x3F == 1, address, size, digest))
        return found

    def file(self) -> tuple[bytes, bytes]:
        """The newest file as stored, and unzipped."""
        _, is_zip, address, size, _ = max(self.manifest())
        stored = self.read(address, size)
        if not is_zip:
            return stored, stored
        archive = zipfile.ZipFile(io.BytesIO(stored))
        return stored, archive.read(archive.namelist()[0])

    def nodes(self) -> NodeMap:
        """The reference implementation's node map over the camera's memory."""
        nodes = NodeMap()
        nodes.load_xml_from_string(self.file()[1].decode())
        self._port = _Port(self)  # the map keeps no reference
        nodes.connect(self._port, "Device")
        return nodes

    # -- stream ------------------------------------------------------------

    def set_sizes(self, transfer: int = 1 << 20) -> list[int]:
        """Sizes of payload transfers as the camera's alignment has them, set in the camera."""
        align = 1 << (self.number(self.sirm) >> 24)
        payload = self.number(self.sirm + 8, 8)

        def up(size: int) -> int:
            return -(-size // align) * align

        size = min(up(payload), transfer)
        count, rest = divmod(payload, size)
        values = (up(52), size, count, up(rest), 0, up(36))
        for at, value in zip(SIZES, values, strict=True):
            self.set(self.sirm + at, value)
        return [size] * count + ([up(rest)] if rest else [])

    def enable(self, transfer: int = 1 << 20) -> None:
        self._sizes = self.set_sizes(transfer)
        self._align = self.number(self.sirm + 0x18)
        self.set(self.sirm + 4, 1)

    def transfer(self, size: int = 65536, wait_ms: int = WAIT_MS) -> bytes:
        buffer = array.array("B", bytes(size))
        return buffer[: self.device.read(STREAM, buffer, wait_ms)].tobytes()

    def frame(self, wait_ms: int = WAIT_MS) -> Received:
        """The next whole frame."""
        leader = self.transfer(self._align, wait_ms)
        parts = [self.transfer(size, wait_ms) for size in self._sizes]
        return Received(leader, parts, self.transfer(self._align, wait_ms))


class _Port(AbstractPort):
    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    def read(self, address: int, size: int) -> bytes:
        return self._host.read(address, size)

    def write(self, address: int, data: bytes) -> None:
        self._host.write(address, bytes(data))

    def get_access_mode(self) -> EAccessMode:
        return EAccessMode.RW

    def open(self) -> None: ...

    def close(self) -> None: ...

    def is_open(self) -> bool:
        return True
