"""What is on the bus. Looking opens no device, unless the kernel does not know its strings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import usb.core

from hw.usb.errors import UsbError, UsbReason, usb_error

SYSFS = Path("/sys/bus/usb/devices")
SPEEDS_MBPS = {1: 1.5, 2: 12.0, 3: 480.0, 4: 5000.0, 5: 10000.0}
"""libusb_speed -> Mbit/s."""


@dataclass(frozen=True)
class UsbId:
    """What identifies a device; everything given must agree. `interface` is (class, subclass, protocol)."""

    vendor_id: int | None = None
    product_id: int | None = None
    interface: tuple[int, int, int] | None = None
    product: str | None = None
    """A pattern with ``*`` for the product string."""
    serial: str | None = None


@dataclass(frozen=True)
class Endpoint:
    """One endpoint of an interface."""

    address: int
    attributes: int
    max_packet_bytes: int

    @property
    def inward(self) -> bool:
        """Whether data goes to the host."""
        return bool(self.address & 0x80)

    @property
    def bulk(self) -> bool:
        """Whether it is a bulk endpoint."""
        return self.attributes & 3 == 2


@dataclass(frozen=True)
class Interface:
    """One alternate setting of an interface; `extra` are the class-specific descriptors behind it."""

    number: int
    alternate: int
    triple: tuple[int, int, int]
    endpoints: tuple[Endpoint, ...]
    extra: bytes = b""

    def endpoint(self, *, inward: bool) -> Endpoint:
        """Its first bulk endpoint of that direction. Raises `UsbError` (PROTOCOL)."""
        for one in self.endpoints:
            if one.bulk and one.inward is inward:
                return one
        way = "in" if inward else "out"
        raise UsbError(UsbReason.PROTOCOL, f"interface {self.number} has no bulk endpoint {way}")


@dataclass(frozen=True)
class FoundDevice:
    """A device as its descriptors tell it; strings are empty where it has none or they may not be read."""

    bus: int
    address: int
    port: str
    """Where it is plugged in, as the kernel writes it: ``2-1.4``. It stays when the device comes back."""
    vendor_id: int
    product_id: int
    speed_mbps: float | None
    manufacturer: str
    product: str
    serial: str
    interfaces: tuple[Interface, ...]
    handle: Any = field(repr=False, compare=False)
    """pyusb's device."""

    @property
    def name(self) -> str:
        """For messages."""
        told = " ".join(part for part in (self.manufacturer, self.product, self.serial) if part)
        return told or f"{self.vendor_id:04x}:{self.product_id:04x}"

    def interface(self, triple: tuple[int, int, int]) -> Interface:
        """The first with that class triple. Raises `UsbError` (PROTOCOL)."""
        for one in self.interfaces:
            if one.triple == triple:
                return one
        wanted = "/".join(f"{part:02x}" for part in triple)
        raise UsbError(UsbReason.PROTOCOL, f"{self.name} has no interface {wanted}")


def find(match: UsbId | Iterable[UsbId], backend: Any = None) -> list[FoundDevice]:
    """Devices that agree with `match`, or with one of several; ordered by port. Raises `UsbError`.

    Strings come from the kernel where it knows them; else the device is opened for them, and one that may not be
    opened has none. `backend` is pyusb's, libusb by default.
    """
    wanted = [match] if isinstance(match, UsbId) else list(match)
    try:
        devices = list(usb.core.find(find_all=True, backend=backend))
    except usb.core.NoBackendError:
        raise UsbError(UsbReason.FAULT, "libusb is not installed (package libusb-1.0-0)") from None
    except usb.core.USBError as error:
        raise usb_error(error, "cannot list the bus", 0, 0) from error
    found = [one for device in devices for one in _looked_at(device, wanted)]
    return sorted(found, key=lambda one: (one.bus, one.port, one.address))


def _looked_at(device: Any, wanted: list[UsbId]) -> Iterator[FoundDevice]:
    likely = [one for one in wanted if _ids_agree(one, device)]
    if not likely:
        return
    interfaces = _interfaces(device)
    triples = {one.triple for one in interfaces}
    likely = [one for one in likely if one.interface is None or one.interface in triples]
    if not likely:
        return
    found = _described(device, interfaces)
    if any(_strings_agree(one, found) for one in likely):
        yield found


def _ids_agree(match: UsbId, device: Any) -> bool:
    return match.vendor_id in (None, device.idVendor) and match.product_id in (None, device.idProduct)


def _strings_agree(match: UsbId, found: FoundDevice) -> bool:
    named = match.product is None or fnmatchcase(found.product, match.product)
    return named and match.serial in (None, found.serial)


def _interfaces(device: Any) -> tuple[Interface, ...]:
    """Of all configurations; none when the descriptors cannot be read, as when it is pulled just now."""
    try:
        return tuple(_interface(one) for configuration in device for one in configuration)
    except (usb.core.USBError, NotImplementedError):
        return ()


def _interface(one: Any) -> Interface:
    triple = (one.bInterfaceClass, one.bInterfaceSubClass, one.bInterfaceProtocol)
    endpoints = tuple(Endpoint(e.bEndpointAddress, e.bmAttributes, e.wMaxPacketSize & 0x7FF) for e in one)
    return Interface(one.bInterfaceNumber, one.bAlternateSetting, triple, endpoints, bytes(one.extra_descriptors))


def _described(device: Any, interfaces: tuple[Interface, ...]) -> FoundDevice:
    ports = ".".join(map(str, device.port_numbers or ()))
    port = f"{device.bus}-{ports}" if ports else f"usb{device.bus}"
    return FoundDevice(
        bus=device.bus,
        address=device.address,
        port=port,
        vendor_id=device.idVendor,
        product_id=device.idProduct,
        speed_mbps=SPEEDS_MBPS.get(device.speed or 0),
        manufacturer=_string(port, "manufacturer", lambda: device.manufacturer),
        product=_string(port, "product", lambda: device.product),
        serial=_string(port, "serial", lambda: device.serial_number),
        interfaces=interfaces,
        handle=device,
    )


def _string(port: str, name: str, ask: Callable[[], str | None]) -> str:
    try:
        return (SYSFS / port / name).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return _asked(ask)


def _asked(ask: Callable[[], str | None]) -> str:
    try:
        return (ask() or "").strip("\0 ")
    except (usb.core.USBError, NotImplementedError, ValueError):  # denied, gone, or it has no strings at all
        return ""
