"""Building and reading USB descriptors (USB 2.0, chapter 9.6; USB 3.2, chapter 9.6.7 for companions)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

Triple = tuple[int, int, int]
"""Class, subclass, protocol."""

DEVICE, CONFIGURATION, STRING, INTERFACE, ENDPOINT, ASSOCIATION, COMPANION = 1, 2, 3, 4, 5, 11, 0x30
BOS, DEVICE_CAPABILITY = 15, 16
BULK, INTERRUPT = 2, 3
SUPERSPEED = 0x0300
ENGLISH = 0x0409


def device(
    vendor_id: int,
    product_id: int,
    *,
    triple: Triple = (0, 0, 0),
    usb: int = 0x0200,
    release: int = 0x0100,
    strings: Triple = (1, 2, 3),
) -> bytes:
    """18 bytes. `strings`: indices of manufacturer, product, serial number. `usb`: version, binary-coded decimal."""
    packet = 9 if usb >= SUPERSPEED else 64  # endpoint 0: an exponent since USB 3
    return struct.pack("<BBHBBBBHHHBBBB", 18, DEVICE, usb, *triple, packet, vendor_id, product_id, release, *strings, 1)


def configuration(*parts: bytes, max_power_ma: int = 100, usb: int = 0x0200) -> bytes:
    """The whole of configuration 1, bus powered: its own 9 bytes, then `parts`."""
    body = b"".join(parts)
    interfaces = len({part[2] for part in walk(body) if part[1] == INTERFACE})
    unit_ma = 8 if usb >= SUPERSPEED else 2
    header = struct.pack("<BBHBBBBB", 9, CONFIGURATION, 9 + len(body), interfaces, 1, 0, 0x80, max_power_ma // unit_ma)
    return header + body


def interface(number: int, triple: Triple, *parts: bytes, alternate: int = 0, string: int = 0) -> bytes:
    """An interface with its class-specific descriptors and its endpoints."""
    body = b"".join(parts)
    endpoints = sum(part[1] == ENDPOINT for part in walk(body))
    return struct.pack("<BBBBBBBBB", 9, INTERFACE, number, alternate, endpoints, *triple, string) + body


def association(first: int, count: int, triple: Triple) -> bytes:
    """That `count` interfaces from `first` are one function."""
    return struct.pack("<BBBBBBBB", 8, ASSOCIATION, first, count, *triple, 0)


def endpoint(
    address: int, *, kind: int = BULK, packet: int = 512, interval: int = 0, burst: int | None = None
) -> bytes:
    """An endpoint; with the companion of a SuperSpeed device that bursts `burst` + 1 packets."""
    own = struct.pack("<BBBBHB", 7, ENDPOINT, address, kind, packet, interval)
    return own if burst is None else own + struct.pack("<BBBBH", 6, COMPANION, burst, 0, 0)


def string(text: str) -> bytes:
    """A string descriptor; longer texts than 126 UTF-16 units are cut, as the length is one byte."""
    data = text.encode("utf-16-le")[:252]
    return bytes([2 + len(data), STRING]) + data


def languages() -> bytes:
    """String descriptor 0: English."""
    return struct.pack("<BBH", 4, STRING, ENGLISH)


def capabilities() -> bytes:
    """The binary object store of a SuperSpeed device: no link power management, all speeds from full on."""
    usb2 = struct.pack("<BBBI", 7, DEVICE_CAPABILITY, 2, 0)
    superspeed = struct.pack("<BBBBHBBH", 10, DEVICE_CAPABILITY, 3, 0, 0x0E, 1, 0, 0)
    return struct.pack("<BBHB", 5, BOS, 5 + len(usb2 + superspeed), 2) + usb2 + superspeed


def walk(data: bytes) -> Iterator[bytes]:
    """Single descriptors one after another."""
    at = 0
    while at < len(data):
        yield data[at : at + data[at]]
        at += data[at]


def endpoint_interfaces(whole: bytes) -> dict[int, int]:
    """Endpoint address -> number of its interface, of a whole configuration."""
    found: dict[int, int] = {}
    number = 0
    for part in walk(whole):
        if part[1] == INTERFACE:
            number = part[2]
        elif part[1] == ENDPOINT:
            found[part[2]] = number
    return found


def endpoint_packets(whole: bytes) -> dict[int, int]:
    """Endpoint address -> largest packet in bytes."""
    return {part[2]: int.from_bytes(part[4:6], "little") for part in walk(whole) if part[1] == ENDPOINT}
