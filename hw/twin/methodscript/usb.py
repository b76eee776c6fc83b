"""The emulated MethodSCRIPT device on a USB bus: as a serial device of class CDC-ACM, and behind an FTDI chip."""

from __future__ import annotations

import struct
import time
from typing import Any

from hw.twin.methodscript.cell import DeviceOptions
from hw.twin.methodscript.device import MethodScriptDevice
from hw.twin.usb import descriptors
from hw.twin.usb.device import Gone, Setup, Stall, UsbModel

LOOK_S = 0.01  # how often the device lives on while the host waits for it
CDC_VENDOR, CDC_PRODUCT = 0x2AD4, 0x0001
FTDI_VENDOR, FTDI_PRODUCT = 0x0403, 0x6015
CDC_FUNCTIONS = bytes.fromhex("05240010 01 0524010001 04240206 0524060001".replace(" ", ""))
"""Header, call management, abstract control management, union of interfaces 0 and 1 (CDC 1.2, chapter 5.2.3)."""
SET_LINE_CODING, GET_LINE_CODING, SET_CONTROL_LINE_STATE = 0x20, 0x21, 0x22
STATUS = b"\x01\x60"  # modem lines and an empty transmitter: before each packet of an FTDI chip
STATUS_S = 0.04  # between two packets of nothing else
NOTIFY_IN, DATA_IN, CDC_OUT, FTDI_OUT = 0x82, 0x81, 0x01, 0x02
FTDI_PACKET = 64


class _MethodScriptUsb(UsbModel):
    """What both links have in common: the device behind bulk endpoints. It lives while it is asked or looked at."""

    Settings = DeviceOptions

    def __init__(self, settings: DeviceOptions) -> None:
        super().__init__()
        self._settings = settings
        self._device = MethodScriptDevice(settings)
        self.counts = self._device.counts
        self._gone = False

    def strings(self) -> dict[int, str]:
        return {1: "PalmSens", 2: self._device.kind.product, 3: self._settings.serial}

    def bulk_out(self, endpoint: int, data: bytes) -> None:
        if endpoint not in (CDC_OUT, FTDI_OUT):
            raise Stall
        self._live()
        self._device.feed(data)
        self._device.advance(time.monotonic())

    def _live(self) -> None:
        if self._gone:
            raise Gone
        self._device.advance(time.monotonic())

    def next_s(self, now_s: float) -> float | None:
        return now_s + LOOK_S

    def reset(self) -> None:
        self._gone = False
        self._device.reset()

    def inject(self, fault: str, **parameters: Any) -> None:
        """Those of the device (`MethodScriptDevice.inject`); `unplug` at the next transfer."""
        self._device.advance(time.monotonic())
        try:
            self._device.inject(fault, **parameters)
        except Gone:
            self._gone = True

    def state(self) -> dict[str, Any]:
        self._device.advance(time.monotonic())
        return super().state() | self._device.state()

    def close(self) -> None:
        self._device.close()


class MethodScriptCdc(_MethodScriptUsb):
    """Class CDC-ACM: an EmStat4S or a Nexus."""

    def __init__(self, settings: DeviceOptions) -> None:
        super().__init__(settings)
        self._coding = struct.pack("<IBBB", 9600, 0, 0, 8)
        self._lines = 0

    def device_descriptor(self) -> bytes:
        return descriptors.device(CDC_VENDOR, CDC_PRODUCT, triple=(0xEF, 2, 1))

    def configuration(self) -> bytes:
        notify = descriptors.endpoint(NOTIFY_IN, kind=descriptors.INTERRUPT, packet=16, interval=8)
        data = (descriptors.endpoint(address) for address in (CDC_OUT, DATA_IN))
        return descriptors.configuration(
            descriptors.association(0, 2, (2, 2, 1)),
            descriptors.interface(0, (2, 2, 1), CDC_FUNCTIONS, notify),
            descriptors.interface(1, (0x0A, 0, 0), *data),
        )

    def control(self, setup: Setup, data: bytes) -> bytes:
        if setup.request == SET_LINE_CODING:
            self._coding = data
        elif setup.request == GET_LINE_CODING:
            return self._coding
        elif setup.request == SET_CONTROL_LINE_STATE:
            self._lines = setup.value
        else:
            raise Stall
        return b""

    def bulk_in(self, endpoint: int, length: int, now_s: float) -> bytes | None:
        self._live()
        return self._device.take(length, now_s) or None if endpoint == DATA_IN else None

    def state(self) -> dict[str, Any]:
        return super().state() | {"baud": struct.unpack_from("<I", self._coding)[0], "lines": self._lines}


class MethodScriptFtdi(_MethodScriptUsb):
    """Behind an FTDI chip: an EmStat4R."""

    def __init__(self, settings: DeviceOptions) -> None:
        super().__init__(settings)
        self._requests: dict[int, tuple[int, int]] = {}
        self._status_s = 0.0

    def device_descriptor(self) -> bytes:
        return descriptors.device(FTDI_VENDOR, FTDI_PRODUCT)

    def configuration(self) -> bytes:
        ends = (descriptors.endpoint(address, packet=FTDI_PACKET) for address in (DATA_IN, FTDI_OUT))
        return descriptors.configuration(descriptors.interface(0, (0xFF, 0xFF, 0xFF), *ends))

    def control(self, setup: Setup, data: bytes) -> bytes:
        if setup.inward or setup.request not in (0, 1, 2, 3, 4, 9):
            raise Stall
        self._requests[setup.request] = (setup.value, setup.index)
        return b""

    def bulk_in(self, endpoint: int, length: int, now_s: float) -> bytes | None:
        """Packets of two status bytes and up to 62 of data; the last, which is shorter, ends the transfer."""
        self._live()
        room = FTDI_PACKET - len(STATUS)
        data = self._device.take(length // FTDI_PACKET * room, now_s)
        if not data:
            if now_s < self._status_s:
                return None
            self._status_s = now_s + STATUS_S
            return STATUS
        return b"".join(STATUS + data[at : at + room] for at in range(0, len(data), room))

    def state(self) -> dict[str, Any]:
        return super().state() | {"requests": {str(key): list(value) for key, value in self._requests.items()}}
