"""One open USB device: claimed interfaces, control and bulk transfers that block for a bounded time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import usb.core
import usb.util

from hw.usb.bus import FoundDevice
from hw.usb.errors import UsbError, UsbReason, usb_error

Answer = TypeVar("Answer")
SET_FEATURE, ENDPOINT_HALT, TO_ENDPOINT = 0x03, 0x00, 0x02
GET_DESCRIPTOR, STRING, FROM_DEVICE, ENGLISH = 0x06, 0x03, 0x80, 0x0409


class UsbDevice:
    """A claimed device. Every method raises `UsbError`; `close` does not.

    Transfers on different endpoints may run in different threads; those on one endpoint are the caller's to order.
    `close` waits for transfers under way in other threads, which end with their timeout at the latest.
    """

    def __init__(self, found: FoundDevice, interfaces: Sequence[int]) -> None:
        self.found = found
        self._handle = found.handle
        self._interfaces = tuple(interfaces)
        self._detached: list[int] = []
        self._changed = threading.Condition()
        self._calls = 0
        self._open = False

    @classmethod
    def open(cls, found: FoundDevice, interfaces: Sequence[int]) -> UsbDevice:
        """Claim `interfaces` (numbers) of a device; kernel drivers that hold them step aside until `close`."""
        device = cls(found, interfaces)
        device._open = True
        try:
            for number in interfaces:
                device._call(f"cannot claim interface {number}", device._claim, number)
        except BaseException:
            device.close()
            raise
        return device

    @property
    def is_open(self) -> bool:
        """Whether it may be used."""
        return self._open

    @property
    def pyusb(self) -> Any:
        """pyusb's device; for the bulk queue, which drives libusb itself."""
        return self._handle

    def _claim(self, number: int) -> None:
        try:
            active = self._handle.is_kernel_driver_active(number)
        except NotImplementedError:  # the system has no such drivers
            active = False
        if active:
            self._handle.detach_kernel_driver(number)
            self._detached.append(number)
        usb.util.claim_interface(self._handle, number)

    # -- transfers ------------------------------------------------------------

    def control(
        self, request_type: int, request: int, value: int, index: int, data_or_length: bytes | int, timeout_s: float
    ) -> bytes:
        """A control transfer: `data_or_length` is what is sent, or the most that is received. What was received."""
        inward = bool(request_type & 0x80)
        what = f"control request {request_type:02x}/{request:02x}"
        got = self._call(
            what, self._handle.ctrl_transfer, request_type, request, value, index, data_or_length, _ms(timeout_s)
        )
        return bytes(got) if inward else b""

    def bulk_out(self, endpoint: int, data: bytes, timeout_s: float) -> None:
        """Send all of `data` as one transfer; a part only is PROTOCOL."""
        sent = self._call(f"sending to endpoint {endpoint:02x}", self._handle.write, endpoint, data, _ms(timeout_s))
        if sent != len(data):
            raise UsbError(UsbReason.TIMEOUT, f"{self.found.name} took {sent} of {len(data)} bytes in {timeout_s:g} s")

    def bulk_in(self, endpoint: int, length: int, timeout_s: float) -> bytes:
        """One transfer of at most `length` bytes; fewer when the device ends it. TIMEOUT when none came."""
        return bytes(
            self._call(f"reading endpoint {endpoint:02x}", self._handle.read, endpoint, length, _ms(timeout_s))
        )

    def string(self, index: int, timeout_s: float = 1.0) -> str:
        """A string descriptor, in English or the device's first language; empty for index 0."""
        if not index:
            return ""
        languages = self.control(FROM_DEVICE, GET_DESCRIPTOR, STRING << 8, 0, 255, timeout_s)
        language = int.from_bytes(languages[2:4], "little") or ENGLISH
        text = self.control(FROM_DEVICE, GET_DESCRIPTOR, STRING << 8 | index, language, 255, timeout_s)
        return text[2 : text[0] if text else 0].decode("utf-16-le", "replace").strip("\0 ")

    def clear_halt(self, endpoint: int) -> None:
        """End a stall of `endpoint` and begin its data toggle anew."""
        self._call(f"clearing endpoint {endpoint:02x}", self._handle.clear_halt, endpoint)

    def set_halt(self, endpoint: int, timeout_s: float = 1.0) -> None:
        """Have the device stall `endpoint`: with `clear_halt` after it, what it had left to send is gone."""
        self.control(TO_ENDPOINT, SET_FEATURE, ENDPOINT_HALT, endpoint, b"", timeout_s)

    def reset(self) -> None:
        """Reset the port. The device may come back under another address: it is closed, and must be found again."""
        try:
            self._call("resetting", self._handle.reset)
        finally:
            self.close()

    def close(self) -> None:
        """Release everything and hand interfaces back to the kernel's drivers; idempotent, never raises."""
        with self._changed:
            if not self._open:
                return
            self._open = False
            self._changed.wait_for(lambda: self._calls == 0)
        for number in self._interfaces:
            _quietly(usb.util.release_interface, self._handle, number)
        for number in self._detached:
            _quietly(self._handle.attach_kernel_driver, number)
        self._detached = []
        _quietly(usb.util.dispose_resources, self._handle)

    def _call(self, what: str, function: Callable[..., Answer], *arguments: Any) -> Answer:
        with self._changed:
            if not self._open:
                raise UsbError(UsbReason.UNPLUGGED, f"{what}: {self.found.name} is closed")
            self._calls += 1
        try:
            return function(*arguments)
        except (usb.core.USBError, NotImplementedError, ValueError) as error:
            raise usb_error(error, f"{self.found.name}: {what}", self.found.bus, self.found.address) from error
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()


def _ms(timeout_s: float) -> int:
    """libusb's milliseconds, where 0 would be for ever."""
    return max(1, round(timeout_s * 1000))


def _quietly(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether it worked: the device may be gone, and then there is nothing to release."""
    try:
        function(*arguments)
    except (usb.core.USBError, NotImplementedError, ValueError):
        return False
    return True
