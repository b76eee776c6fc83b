"""What tests of the driver `u3v` on an emulated bus share."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import hw.camera
from hw.camera.contract import CameraInfo, FrameStamp
from hw.drivers import build_driver
from hw.errors import CameraError

SMALL = {"height_px": 120, "width_px": 160, "frame_rate_hz": 100.0}


def build(**options: Any) -> Any:
    return build_driver(hw.camera.DRIVERS, "u3v", options)


def pattern(info: CameraInfo, block_id: int) -> np.ndarray:
    """(H, W) at 12 bits: the emulated camera's ramp."""
    y, x = np.ogrid[: info.height_px, : info.width_px]
    return (5 * (block_id % 16) + 3 * x + 7 * y) % 4096


def unpacked(payload: np.ndarray, info: CameraInfo) -> np.ndarray:
    """(H, W), bit by bit: independent of the product's kernels."""
    bits = {"Mono8": 8, "Mono10p": 10, "Mono12": 16, "Mono12p": 12, "Mono16": 16}[info.pixel_format.value]
    stream = np.unpackbits(payload, bitorder="little")[: info.height_px * info.width_px * bits]
    values = stream.reshape(-1, bits).astype(np.int64) @ (1 << np.arange(bits))
    return values.reshape(info.height_px, info.width_px)


class Playing:
    """A camera that streams into slots of the test's own."""

    def __init__(self, slots: int = 9, **options: Any) -> None:
        self.camera = build(**options)
        self.slots = slots
        self.sent: dict[int, int] = {}
        """Block id -> what the camera itself called the frame: the driver may have counted anew."""

    def __enter__(self) -> Playing:
        self.begin()
        return self

    def begin(self) -> None:
        self.info = self.camera.open()
        size = self.info.pixel_format.payload_bytes(self.info.height_px, self.info.width_px)
        self.memory = {number: np.zeros(size, np.uint8) for number in range(self.slots)}
        self.camera.start()
        for number, slot in self.memory.items():
            self.camera.lend(number, slot)

    def __exit__(self, *_: object) -> None:
        self.camera.close()

    def frames(self, count: int, timeout_s: float = 10.0) -> list[tuple[FrameStamp, np.ndarray]]:
        """The next `count` frames with copies of their payloads; fewer at the end of the time."""
        found, deadline = [], time.monotonic() + timeout_s
        while len(found) < count and time.monotonic() < deadline:
            taken = self.camera.take(0.25)
            if taken is not None:
                number, stamp = taken
                found.append((stamp, self.memory[number].copy()))
                self.sent[stamp.block_id] = stamp.block_id - self.camera._ids._offset
                self.memory[number][:] = 0
                self.camera.lend(number, self.memory[number])
        return found

    def picture(self, stamp: FrameStamp) -> np.ndarray:
        """(H, W) at 12 bits, of the frame that was sent under that number."""
        return pattern(self.info, self.sent[stamp.block_id])

    def whole(self, frames: list[tuple[FrameStamp, np.ndarray]]) -> bool:
        """Whether every one of them (Mono8) is the picture that its number stands for."""
        wanted = [np.minimum((self.picture(stamp) + 8) >> 4, 255).reshape(-1) for stamp, _ in frames]
        return all((payload == one).all() for (_, payload), one in zip(frames, wanted, strict=True))


def reason(act: Any) -> Any:
    """Why `act` fails."""
    try:
        act()
    except CameraError as error:
        return error
    raise AssertionError("it did not fail")
