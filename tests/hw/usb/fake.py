"""A pyusb backend whose devices answer from scripts, so that no bus is needed."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import usb.backend
import usb.core


def failure(number: int) -> usb.core.USBError:
    kind = usb.core.USBTimeoutError if number == errno.ETIMEDOUT else usb.core.USBError
    return kind(errno.errorcode[number], -1, number)


class FakeDevice:
    """One device: two interfaces (ef/05/00 with bulk 01 and 81, ff/00/00 with bulk 82); answers are popped in order."""

    def __init__(self, address: int = 2, product_id: int = 1, serial: str = "S1", ports: tuple[int, ...] = (1, 4)):
        self.address, self.product_id, self.ports = address, product_id, ports
        self.texts = {1: "Maker", 2: "Thing", 3: serial}
        self.answers: dict[int, list[Any]] = {}
        self.sent: list[tuple[int, bytes]] = []
        self.calls: list[tuple[Any, ...]] = []
        self.claimed: set[int] = set()
        self.drivers: set[int] = set()
        self.errors: dict[str, int] = {}
        self.handles = 0
        self.configuration = 1

    def fails(self, call: str) -> None:
        if call in self.errors:
            raise failure(self.errors[call])


def endpoint(address: int) -> SimpleNamespace:
    return SimpleNamespace(
        bLength=7, bDescriptorType=5, bEndpointAddress=address, bmAttributes=2, wMaxPacketSize=1024, bInterval=0,
        bRefresh=0, bSynchAddress=0, extra_descriptors=[],
    )  # fmt: skip


INTERFACES = [((0xEF, 5, 0), [0x01, 0x81], [20, 0x24, 1]), ((0xFF, 0, 0), [0x82], [])]


class FakeBackend(usb.backend.IBackend):
    def __init__(self, *devices: FakeDevice) -> None:
        self.devices = list(devices)

    def enumerate_devices(self):
        return iter(list(self.devices))

    def get_device_descriptor(self, dev):
        return SimpleNamespace(
            bLength=18, bDescriptorType=1, bcdUSB=0x300, bDeviceClass=0xEF, bDeviceSubClass=2, bDeviceProtocol=1,
            bMaxPacketSize0=9, idVendor=0x1209, idProduct=dev.product_id, bcdDevice=0x100, iManufacturer=1, iProduct=2,
            iSerialNumber=3, bNumConfigurations=1, address=dev.address, bus=1, port_number=dev.ports[-1],
            port_numbers=dev.ports, speed=4,
        )  # fmt: skip

    def get_configuration_descriptor(self, dev, config):
        if config:
            raise IndexError
        dev.fails("descriptors")
        return SimpleNamespace(
            bLength=9, bDescriptorType=2, wTotalLength=60, bNumInterfaces=2, bConfigurationValue=1, iConfiguration=0,
            bmAttributes=0x80, bMaxPower=50, extra_descriptors=[],
        )  # fmt: skip

    def get_interface_descriptor(self, dev, intf, alt, config):
        if alt or intf >= len(INTERFACES):
            raise IndexError
        triple, endpoints, extra = INTERFACES[intf]
        return SimpleNamespace(
            bLength=9, bDescriptorType=4, bInterfaceNumber=intf, bAlternateSetting=0, bNumEndpoints=len(endpoints),
            bInterfaceClass=triple[0], bInterfaceSubClass=triple[1], bInterfaceProtocol=triple[2], iInterface=0,
            extra_descriptors=extra,
        )  # fmt: skip

    def get_endpoint_descriptor(self, dev, ep, intf, alt, config):
        return endpoint(INTERFACES[intf][1][ep])

    def open_device(self, dev):
        dev.fails("open")
        dev.handles += 1
        return dev

    def close_device(self, handle):
        handle.handles -= 1

    def get_configuration(self, handle):
        return handle.configuration

    def claim_interface(self, handle, intf):
        handle.fails("claim")
        assert intf not in handle.drivers
        handle.claimed.add(intf)

    def release_interface(self, handle, intf):
        handle.claimed.discard(intf)
        handle.fails("release")

    def is_kernel_driver_active(self, handle, intf):
        return intf in handle.drivers

    def detach_kernel_driver(self, handle, intf):
        handle.fails("detach")
        handle.drivers.discard(intf)

    def attach_kernel_driver(self, handle, intf):
        handle.drivers.add(intf)

    def ctrl_transfer(self, handle, kind, request, value, index, data, timeout):
        handle.calls.append(("control", kind, request, value, index, bytes(data), timeout))
        handle.fails("control")
        if (kind, request, value >> 8) != (0x80, 6, 3):
            return len(data) if not kind & 0x80 else self._fill(data, bytes(handle.answers[0].pop(0)))
        text = handle.texts.get(value & 255, "")
        body = text.encode("utf-16-le") if value & 255 else b"\x09\x04"
        return self._fill(data, bytes([2 + len(body), 3]) + body)

    def bulk_write(self, handle, ep, intf, data, timeout):
        handle.fails("write")
        handle.sent.append((ep, bytes(data)))
        return handle.answers.get("short", len(data))

    def bulk_read(self, handle, ep, intf, buff, timeout):
        handle.calls.append(("read", ep, len(buff), timeout))
        answer = handle.answers.get(ep) or [errno.ETIMEDOUT]
        one = answer.pop(0)
        if isinstance(one, int):
            raise failure(one)
        return self._fill(buff, one() if callable(one) else one)

    def clear_halt(self, handle, ep):
        handle.calls.append(("clear", ep))

    def reset_device(self, handle):
        handle.calls.append(("reset",))

    @staticmethod
    def _fill(buffer, data):
        data = data[: len(buffer)]
        for k, byte in enumerate(data):
            buffer[k] = byte
        return len(data)
