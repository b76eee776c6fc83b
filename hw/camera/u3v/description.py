"""The camera's description of itself: the GenICam XML that its manifest names, kept on disk once read."""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from hw.camera.u3v.gencp import GenCp
from hw.camera.u3v.registers import Bootstrap
from hw.usb.errors import UsbError, UsbReason

ENTRY = struct.Struct("<HBBIQQ20s")
ENTRY_BYTES, MOST_ENTRIES = 64, 256
DEVICE_XML, PLAIN, ZIP = 0, 0, 1
MOST_STORED_BYTES, MOST_XML_BYTES = 16 << 20, 64 << 20  # the largest known are a few MB


@dataclass(frozen=True)
class StoredFile:
    """One entry of the manifest."""

    version: tuple[int, int, int]
    kind: int
    storage: int
    address: int
    size: int
    sha1: bytes
    """Of the file as stored; empty when the camera gives none."""


def read_description(port: GenCp, bootstrap: Bootstrap, cache: Path | None) -> str:
    """The XML text, from `cache` when the very file was read before. Raises `UsbError`.

    A file without a hash is taken for the same by maker, model, version and size. A cache that cannot be used costs
    time only.
    """
    entry = chosen(read_manifest(port, bootstrap.manifest))
    place = cache / _cache_name(bootstrap, entry) if cache is not None else None
    stored = _kept(place, entry)
    if stored is None:
        stored = port.read(entry.address, entry.size)
        if entry.sha1 and hashlib.sha1(stored).digest() != entry.sha1:
            raise UsbError(UsbReason.PROTOCOL, "the camera's description differs from its checksum")
        _keep(place, stored)
    return unpacked(stored, entry.storage)


def read_manifest(port: GenCp, address: int) -> list[StoredFile]:
    """All entries. Raises `UsbError`."""
    count = port.read_u64(address)
    if not 0 < count <= MOST_ENTRIES:
        raise UsbError(UsbReason.PROTOCOL, f"the camera's manifest has {count} entries")
    found = []
    for k in range(count):
        data = port.read(address + 8 + k * ENTRY_BYTES, ENTRY_BYTES)
        sub_minor, minor, major, schema, place, size, sha1 = ENTRY.unpack_from(data)
        version = (major, minor, sub_minor)
        found.append(StoredFile(version, schema & 7, schema >> 10 & 0x3F, place, size, sha1 if any(sha1) else b""))
    return found


def chosen(entries: list[StoredFile]) -> StoredFile:
    """The newest description of the device. Raises `UsbError` where there is none that can be read."""
    usable = [one for one in entries if one.kind == DEVICE_XML and one.storage in (PLAIN, ZIP)]
    if not usable:
        raise UsbError(UsbReason.PROTOCOL, "the camera has no description that can be read")
    entry = max(usable, key=lambda one: one.version)
    if not 0 < entry.size <= MOST_STORED_BYTES:
        raise UsbError(UsbReason.PROTOCOL, f"the camera's description has {entry.size} bytes")
    return entry


def unpacked(stored: bytes, storage: int) -> str:
    """The XML text; entities are refused, as nothing needs them. Raises `UsbError`."""
    data = _unzipped(stored) if storage == ZIP else stored
    text = data.rstrip(b"\0").decode("utf-8-sig", "replace")
    if re.search(r"<!(DOCTYPE|ENTITY)", text):
        raise UsbError(UsbReason.PROTOCOL, "the camera's description defines entities")
    return text


def _unzipped(stored: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(stored)) as archive:
            names = [one for one in archive.infolist() if one.filename.lower().endswith(".xml")]
            if len(names) != 1 or names[0].file_size > MOST_XML_BYTES:
                raise UsbError(UsbReason.PROTOCOL, "the camera's description is no archive of one XML file")
            with archive.open(names[0]) as file:
                return file.read(MOST_XML_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError, struct.error) as error:
        raise UsbError(UsbReason.PROTOCOL, f"the camera's description cannot be unpacked: {error}") from error


def cache_directory() -> Path:
    """Where descriptions are kept: systemd's cache directory of the service, else the user's."""
    named = os.environ.get("CACHE_DIRECTORY", "").split(":")[0] or os.environ.get("XDG_CACHE_HOME", "")
    return Path(named or Path.home() / ".cache") / ("u3v" if os.environ.get("CACHE_DIRECTORY") else "photometryd/u3v")


def _cache_name(bootstrap: Bootstrap, entry: StoredFile) -> str:
    if entry.sha1:
        return entry.sha1.hex()
    parts = (bootstrap.manufacturer, bootstrap.model, bootstrap.device_version, str(entry.version), str(entry.size))
    return hashlib.sha1("\0".join(parts).encode()).hexdigest() + "-unhashed"


def _kept(place: Path | None, entry: StoredFile) -> bytes | None:
    """What was kept; None when there is nothing, or something else."""
    try:
        stored = place.read_bytes() if place is not None else b""
    except OSError:
        return None
    if len(stored) != entry.size:
        return None
    return stored if not entry.sha1 or hashlib.sha1(stored).digest() == entry.sha1 else None


def _keep(place: Path | None, stored: bytes) -> bool:
    """Whether it could be kept; whole or not at all."""
    if place is None:
        return False
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(stored)
        Path(name).replace(place)
    except OSError:  # read-only, full: it is read from the camera again next time
        return False
    return True
