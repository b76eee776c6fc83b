"""USB descriptors of the emulated USB3 Vision camera: control, stream, device information."""

from __future__ import annotations

import struct

from hw.twin.usb import descriptors as usb

CONTROL_OUT, CONTROL_IN, STREAM_IN = 0x01, 0x81, 0x82
VENDOR_ID, PRODUCT_ID = 0x1209, 0x0002  # pid.codes, for tests
GENCP_VERSION, U3V_VERSION = 0x0001_0003, 0x0001_0001
SPEEDS = {480: 1 << 2, 5000: 1 << 3}
GUID, VENDOR, MODEL, VERSION, INFO, SERIAL = 4, 1, 2, 5, 6, 3


def device(speed_mbps: int) -> bytes:
    """A composite device."""
    version = usb.SUPERSPEED if speed_mbps >= 5000 else 0x0210
    return usb.device(VENDOR_ID, PRODUCT_ID, triple=(0xEF, 2, 1), usb=version)


def configuration(speed_mbps: int) -> bytes:
    """The function's interfaces: control (0) and stream (1)."""
    packet, burst = (1024, 15) if speed_mbps >= 5000 else (512, None)
    version = usb.SUPERSPEED if speed_mbps >= 5000 else 0x0210

    def bulk(address: int) -> bytes:
        return usb.endpoint(address, packet=packet, burst=burst)

    information = struct.pack(
        "<BBBII9B", 20, 0x24, 1, GENCP_VERSION, U3V_VERSION, GUID, VENDOR, MODEL, 0, VERSION, INFO, SERIAL, 0,
        SPEEDS[480] | SPEEDS[5000],
    )  # fmt: skip
    return usb.configuration(
        usb.association(0, 2, (0xEF, 5, 0)),
        usb.interface(0, (0xEF, 5, 0), information, bulk(CONTROL_OUT), bulk(CONTROL_IN)),
        usb.interface(1, (0xEF, 5, 2), bulk(STREAM_IN)),
        max_power_ma=896 if speed_mbps >= 5000 else 500,
        usb=version,
    )


def strings(vendor: str, model: str, serial: str) -> dict[int, str]:
    """By index; the GUID is four digits of vendor and eight of unit."""
    unit = sum(ord(letter) * 257**k for k, letter in enumerate(serial)) & 0xFFFF_FFFF
    return {VENDOR: vendor, MODEL: model, SERIAL: serial, GUID: f"1209{unit:08X}", VERSION: "1.0.0", INFO: "emulated"}
