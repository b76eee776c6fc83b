"""The camera's memory: bootstrap registers (ABRM, SBRM, SIRM), manifest, GenICam file and the camera's own registers.

Addresses of the camera's own stand here only; `camera.xml` names them in braces.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from xml.sax.saxutils import escape

OK, NOT_IMPLEMENTED, BAD_PARAMETER, BAD_ADDRESS, WRITE_PROTECTED = 0x0000, 0x8001, 0x8002, 0x8003, 0x8004
BAD_ALIGNMENT, ACCESS_DENIED, BAD_HEADER = 0x8005, 0x8006, 0x800E
NO_RESEND, STREAM_HALTED, NOT_ALIGNED, INCONSISTENT = 0xA001, 0xA002, 0xA003, 0xA004

ABRM, SBRM, SIRM, MANIFEST, FEATURES, FILE = 0x0, 0x1_0000, 0x2_0000, 0x3_0000, 0x4_0000, 0x10_0000
FILE_VERSION = (2, 1, 3)
OLD_FILE_VERSION = (1, 9, 0)
STRING_BYTES = 64


class Refused(Exception):
    """A read or write is refused with a GenCP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status:#06x}")
        self.status = status


@dataclass(frozen=True)
class Register:
    """A number in the camera's memory."""

    address: int
    length: int = 4
    access: str = "RW"
    order: str = "little"
    initial: int = 0


def _abrm() -> dict[str, Register]:
    table = {
        "GenCpVersion": (0x000, 4, "RO"),
        "Capability": (0x1C4, 8, "RO"),
        "ResponseTime": (0x1CC, 4, "RO"),
        "ManifestAddress": (0x1D0, 8, "RO"),
        "SbrmAddress": (0x1D8, 8, "RO"),
        "DeviceConfiguration": (0x1E0, 8, "RW"),
        "Timestamp": (0x1F0, 8, "RO"),
        "TimestampLatch": (0x1F8, 4, "WO"),
        "TimestampIncrement": (0x1FC, 8, "RO"),
        "AccessPrivilege": (0x204, 4, "RO"),
        "ProtocolEndianness": (0x208, 4, "RO"),
        "ImplementationEndianness": (0x20C, 4, "RO"),
    }
    return {name: Register(ABRM + at, length, access) for name, (at, length, access) in table.items()}


def _sbrm() -> dict[str, Register]:
    table = {
        "U3vVersion": (0x00, 4),
        "U3vCapability": (0x04, 8),
        "MaxCommand": (0x14, 4),
        "MaxAck": (0x18, 4),
        "StreamChannels": (0x1C, 4),
        "SirmAddress": (0x20, 8),
        "SirmLength": (0x28, 4),
        "CurrentSpeed": (0x40, 4),
    }
    return {name: Register(SBRM + at, length, "RO") for name, (at, length) in table.items()}


def _sirm() -> dict[str, Register]:
    read_only = {"SiInfo": (0x00, 4), "RequiredPayload": (0x08, 8), "RequiredLeader": (0x10, 4)}
    read_only["RequiredTrailer"] = (0x14, 4)
    table = {name: Register(SIRM + at, length, "RO") for name, (at, length) in read_only.items()}
    table["SiControl"] = Register(SIRM + 0x04)
    for name, at in zip(TRANSFER_SIZES, range(0x18, 0x30, 4), strict=True):
        table[name] = Register(SIRM + at)
    return table


TRANSFER_SIZES = ("MaxLeader", "TransferSize", "TransferCount", "FinalSize1", "FinalSize2", "MaxTrailer")
"""What a host sets before it enables the stream, in order of their addresses."""
TRIGGERS, LINES, CHUNKS = 2, 3, 6


def _features() -> dict[str, Register]:
    read_only = ("SensorWidth", "SensorHeight", "ChunkBytes", "Tick", "LineTime", "LineStatusAll", "LinkSpeed")
    write_only = ("AcquisitionStop", "UserSetLoad")
    plain = (
        "SensorWidth", "SensorHeight", "Width", "Height", "OffsetX", "OffsetY", "BinningHorizontal", "BinningVertical",
        "PixelFormat", "ChunkBytes", "AcquisitionStart", "AcquisitionStop", "AcquisitionMode", "AcquisitionFrameCount",
        "FrameRateEnable", "FrameRate", "ExposureTicks", "Tick", "LineTime", "TriggerSelector", "LineSelector",
        "LineStatusAll", "UserSetSelector", "UserSetLoad", "LinkThroughputLimit", "LinkThroughputLimitMode",
        "LinkSpeed", "ChunkModeActive", "ChunkSelector",
    )  # fmt: skip
    table = {
        name: Register(FEATURES + 4 * k, access="RO" if name in read_only else "WO" if name in write_only else "RW")
        for k, name in enumerate(plain)
    }
    table["ExposureControl"] = Register(FEATURES + 0x80, order="big")
    table["AnalogControl"] = Register(FEATURES + 0x84, order="big")
    table["Temperature"] = Register(FEATURES + 0x88, 2, "RO", "big")
    for k in range(TRIGGERS):
        at, end = FEATURES + 0xA0 + 16 * k, str(k or "")
        table |= {f"TriggerControl{end}": Register(at), f"TriggerDelay{end}": Register(at + 4)}
        table[f"TriggerSoftware{end}"] = Register(at + 8, access="WO")
    for k in range(LINES):
        table[f"LineControl{k or ''}"] = Register(FEATURES + 0xC0 + 4 * k)
    for k in range(CHUNKS):
        table[f"ChunkEnable{k or ''}"] = Register(FEATURES + 0xD0 + 4 * k)
    return table


REGISTERS = _abrm() | _sbrm() | _sirm() | _features()
STRINGS = {"vendor": 0x004, "model": 0x044, "family": 0x084, "version": 0x0C4, "info": 0x104, "serial": 0x144}
USER_NAME, SOFTWARE_VERSION = 0x184, 0x210
SIZES = {ABRM: 0x250, SBRM: 0x80, SIRM: 0x30, FEATURES: 0x100}


class Memory:
    """Bytes by address, numbers by name. Reads and writes of the host are checked; those by name are the camera's own.

    `refresh` is called before the host reads; `written(name, value)` after it wrote a register, and may refuse.
    """

    def __init__(self, file: bytes, zipped: bool, refresh: Callable[[], None], written: Callable[[str], None]) -> None:
        stored = _zipped(file) if zipped else file
        self._areas = {base: bytearray(size) for base, size in SIZES.items()}
        self._areas[FILE] = bytearray(stored + bytes(-len(stored) % 4))
        self._areas[MANIFEST] = bytearray(_manifest(stored, zipped))
        self._refresh, self._written = refresh, written
        self._writable = [(USER_NAME, STRING_BYTES)]
        self._writable += [(one.address, one.length) for one in REGISTERS.values() if "W" in one.access]
        self._hidden = [(one.address, one.length) for one in REGISTERS.values() if one.access == "WO"]

    # -- the camera's own access ------------------------------------------------------------

    def __getitem__(self, name: str) -> int:
        register = REGISTERS[name]
        area, at = self._at(register.address, register.length)
        return int.from_bytes(area[at : at + register.length], register.order)  # type: ignore[arg-type]

    def __setitem__(self, name: str, value: int) -> None:
        register = REGISTERS[name]
        area, at = self._at(register.address, register.length)
        area[at : at + register.length] = value.to_bytes(register.length, register.order)  # type: ignore[arg-type]

    def set_text(self, address: int, text: str) -> None:
        """A string register."""
        area, at = self._at(address, STRING_BYTES)
        area[at : at + STRING_BYTES] = text.encode()[: STRING_BYTES - 1].ljust(STRING_BYTES, b"\0")

    def bits(self, name: str, shift: int, count: int) -> int:
        """`count` bits of a register from bit `shift`, 0 the least significant."""
        return self[name] >> shift & (1 << count) - 1

    # -- the host's access ------------------------------------------------------------

    def read(self, address: int, size: int) -> bytes:
        """Raises `Refused`."""
        area, at = self._at(address, size)
        if _overlap(address, size, self._hidden):
            raise Refused(ACCESS_DENIED)
        self._refresh()
        return bytes(area[at : at + size])

    def write(self, address: int, data: bytes) -> None:
        """Raises `Refused`; then nothing is changed."""
        area, at = self._at(address, len(data))
        if address % 4 or len(data) % 4 or not data:
            raise Refused(BAD_ALIGNMENT)
        covered = sum(_overlap(address, len(data), [one]) for one in self._writable)
        if covered != len(data):
            raise Refused(WRITE_PROTECTED)
        before = bytes(area)
        area[at : at + len(data)] = data
        try:
            for name, register in REGISTERS.items():
                if _overlap(address, len(data), [(register.address, register.length)]):
                    self._written(name)
        except Refused:
            area[:] = before
            raise

    def _at(self, address: int, size: int) -> tuple[bytearray, int]:
        for base, area in self._areas.items():
            if base <= address and address + size <= base + len(area):
                return area, address - base
        raise Refused(BAD_ADDRESS)


def _overlap(address: int, size: int, places: list[tuple[int, int]]) -> int:
    """Bytes that a range has in common with `places`."""
    return sum(max(0, min(address + size, at + length) - max(address, at)) for at, length in places)


def description(vendor: str, model: str) -> bytes:
    """The GenICam file, with names and addresses filled in."""
    text = (importlib.resources.files(__package__) / "camera.xml").read_text(encoding="utf-8")
    values = {name: f"{one.address:#x}" for name, one in REGISTERS.items()}
    for name, value in (values | {"VendorName": vendor, "ModelName": model}).items():
        text = text.replace(f"{{{name}}}", escape(value, {'"': "&quot;"}))
    return text.encode()


def _zipped(file: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("camera.xml"), file, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _manifest(stored: bytes, zipped: bool) -> bytes:
    """Two entries: an older version of the file comes last, and a host must prefer the first."""
    entries = b""
    for version in (FILE_VERSION, OLD_FILE_VERSION):
        major, minor, below = version
        kind = (1 << 10 if zipped else 0) | 1 << 16 | 1 << 24  # schema 1.1
        digest = hashlib.sha1(stored, usedforsecurity=False).digest()
        entries += struct.pack("<HBBIQQ20s20x", below, minor, major, kind, FILE, len(stored), digest)
    return struct.pack("<Q", 2) + entries
