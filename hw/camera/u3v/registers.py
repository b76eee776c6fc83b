"""The registers that every USB3 Vision camera has: what it is, where its others are, and its stream.

ABRM (GenCP bootstrap) at 0, SBRM and SIRM where ABRM and SBRM say; offsets as in AIA USB3 Vision 1.0, section 4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hw.camera.u3v.gencp import GenCp
from hw.usb.errors import UsbError, UsbReason

MANUFACTURER, MODEL, DEVICE_VERSION, SERIAL, USER_NAME = 0x004, 0x044, 0x0C4, 0x144, 0x184
TEXT_BYTES = 64
RESPONSE_MS, MANIFEST, SBRM = 0x1CC, 0x1D0, 0x1D8
TIMESTAMP, TIMESTAMP_LATCH, TIMESTAMP_INCREMENT = 0x1F0, 0x1F8, 0x1FC
MOST_COMMAND, MOST_ACK, SIRM, SPEED = 0x14, 0x18, 0x20, 0x40
SPEED_MBPS = {1: 1.5, 2: 12.0, 4: 480.0, 8: 5000.0, 16: 10000.0}

SI_INFO, SI_CONTROL, SI_PAYLOAD, SI_LEADER, SI_TRAILER = 0x00, 0x04, 0x08, 0x10, 0x14
SI_MOST_LEADER, SI_TRANSFER, SI_COUNT, SI_FINAL_1, SI_FINAL_2, SI_MOST_TRAILER = 0x18, 0x1C, 0x20, 0x24, 0x28, 0x2C
STREAM_ON = 1


@dataclass(frozen=True)
class Bootstrap:
    """What the camera says of itself before its node map is known."""

    manufacturer: str
    model: str
    device_version: str
    serial: str
    user_name: str
    response_s: float
    manifest: int
    """Address of the manifest table."""
    stream: int
    """Address of SIRM."""
    most_command_bytes: int
    most_ack_bytes: int
    speed_mbps: float | None
    """None where the camera does not say."""
    tick_ns: int
    """Nanoseconds a tick of its clock."""


def read_bootstrap(port: GenCp) -> Bootstrap:
    """Read ABRM and SBRM, and hold `port` to the limits they state. Raises `UsbError`."""
    response_s = port.read_u32(RESPONSE_MS) / 1000
    table = port.read_u64(SBRM)
    most_command, most_ack = port.read_u32(table + MOST_COMMAND), port.read_u32(table + MOST_ACK)
    port.limit(most_command, most_ack, max(response_s, 0.05))
    stream = port.read_u64(table + SIRM)
    if not stream:
        raise UsbError(UsbReason.PROTOCOL, "the camera has no stream registers")
    return Bootstrap(
        manufacturer=_text(port, MANUFACTURER),
        model=_text(port, MODEL),
        device_version=_text(port, DEVICE_VERSION),
        serial=_text(port, SERIAL),
        user_name=_text(port, USER_NAME),
        response_s=response_s,
        manifest=port.read_u64(MANIFEST),
        stream=stream,
        most_command_bytes=most_command,
        most_ack_bytes=most_ack,
        speed_mbps=SPEED_MBPS.get(port.read_u32(table + SPEED)),
        tick_ns=port.read_u64(TIMESTAMP_INCREMENT) or 1,
    )


def _text(port: GenCp, address: int) -> str:
    return port.read(address, TEXT_BYTES).split(b"\0")[0].decode("utf-8", "replace").strip()


@dataclass(frozen=True)
class StreamNeeds:
    """What one frame takes, for the geometry and format that are set."""

    alignment: int
    payload_bytes: int
    leader_bytes: int
    trailer_bytes: int


def read_needs(port: GenCp, stream: int) -> StreamNeeds:
    """Raises `UsbError` (PROTOCOL) for a camera that wants no bytes."""
    payload = struct.unpack("<QII", port.read(stream + SI_PAYLOAD, 16))
    alignment = 1 << (port.read_u32(stream + SI_INFO) >> 24)
    if payload[0] < 1:
        raise UsbError(UsbReason.PROTOCOL, "the camera says that a frame has no bytes")
    return StreamNeeds(alignment, *payload)
