"""What every camera driver is and does.

The engine owns the frame slots; a driver fills them in place. Drivers are synchronous and used by one thread only:
they construct cheaply, touch the world in `open`, and `close` is idempotent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import numpy as np


class PixelFormat(StrEnum):
    """Names of the Pixel Format Naming Convention (PFNC)."""

    MONO8 = "Mono8"
    MONO10P = "Mono10p"
    MONO12 = "Mono12"
    MONO12P = "Mono12p"
    MONO16 = "Mono16"

    @property
    def bit_depth(self) -> int:
        """Significant bits of a pixel."""
        return {"Mono8": 8, "Mono10p": 10, "Mono12": 12, "Mono12p": 12, "Mono16": 16}[self.value]

    def payload_bytes(self, height_px: int, width_px: int) -> int:
        """Bytes of one frame in this format; packed formats have no padding between lines."""
        bits = {"Mono8": 8, "Mono10p": 10, "Mono12": 16, "Mono12p": 12, "Mono16": 16}[self.value]
        return (height_px * width_px * bits + 7) // 8


@dataclass(frozen=True)
class CameraIdentity:
    """Which camera, and how its frames lie in memory: measures of a run are of one only."""

    serial: str
    height_px: int
    width_px: int
    pixel_format: PixelFormat

    def differences(self, other: CameraIdentity) -> str:
        """What of `other` is another, e.g. ``pixel_format Mono8, was Mono12``; empty when nothing is."""
        pairs = ((field.name, getattr(other, field.name), getattr(self, field.name)) for field in fields(self))
        return ", ".join(f"{name} {there}, was {here}" for name, there, here in pairs if there != here)


@dataclass(frozen=True)
class CameraInfo:
    """What an opened camera says of itself. `None` where it does not know: nothing is guessed."""

    model: str
    serial: str
    height_px: int
    width_px: int
    pixel_format: PixelFormat
    frame_rate_hz: float
    exposure_us: float | None = None
    gain_e_per_dn: float | None = None
    read_noise_e: float | None = None
    dark_dn: float | None = None
    pixel_size_nm: float | None = None
    clock_id: str = ""
    """Cameras and potentiostats with equal, non-empty `clock_id` stamp with the same clock."""
    clock_rate: float | None = None
    """Seconds of the camera's clock in one of the host's; None where frames come at a pace of their own."""
    dark: np.ndarray | None = None
    """Per-pixel dark level in DN, (H, W) float32, when the source carries one; replaces `dark_dn`."""
    flat: np.ndarray | None = None
    """Per-pixel relative gain, (H, W) float32, mean 1, when the source carries one."""
    notes: tuple[str, ...] = ()
    """What a reader of the measurements should know: settings that could not be made, limits in force. Sentences."""
    significant_bits: int | None = None
    """Of a pixel, where the source knows them to be other than its format's: full scale is 2**bits - 1 DN."""

    @property
    def bit_depth(self) -> int:
        """Significant bits of a pixel."""
        return self.pixel_format.bit_depth if self.significant_bits is None else self.significant_bits

    @property
    def identity(self) -> CameraIdentity:
        """What must stay as it is while a run measures."""
        return CameraIdentity(self.serial, self.height_px, self.width_px, self.pixel_format)


@dataclass(frozen=True)
class FrameStamp:
    """Provenance of one frame."""

    block_id: int
    """The camera's own frame counter: a gap tells how many frames the camera lost."""
    device_t_s: float
    """Mid-exposure time on the camera's clock, seconds."""
    host_t_s: float
    """`time.monotonic()` when the frame was complete."""


class Camera(ABC):
    """A source of frames. See the module's docstring for its life.

    The engine lends slots and takes them back filled. A driver that only copies frames defines `next_frame`, and the
    rest is here; one whose transfers end in the slots defines `lend`, `take` and `reclaim` itself.
    """

    queue_frames: int = 1
    """Slots the driver wants lent at a time, known once it is open."""
    _lent: deque[tuple[int, np.ndarray]] | None = None

    @abstractmethod
    def open(self) -> CameraInfo:
        """Claim the device and describe it. Raises `CameraError`."""

    @abstractmethod
    def start(self) -> None:
        """Begin streaming. Block ids start anew."""

    @abstractmethod
    def next_frame(self, slot: np.ndarray, timeout_s: float) -> FrameStamp | None:
        """Fill `slot` (uint8, 1-D, `payload_bytes` long) with the next frame; None when none came in `timeout_s`.

        Raises `CameraError`; with `CameraReason.ENDED` when a finite source is exhausted.
        """

    def lend(self, number: int, slot: np.ndarray) -> None:
        """Give the driver a slot (uint8, 1-D, `payload_bytes` long) to fill. It keeps it until `take` or `reclaim`."""
        if self._lent is None:
            self._lent = deque()
        self._lent.append((number, slot))

    def take(self, timeout_s: float) -> tuple[int, FrameStamp] | None:
        """The number of the slot that holds the next frame, and its stamp; None when none came in `timeout_s`.

        Slots are filled in the order of lending. Raises what `next_frame` does.
        """
        if not self._lent:
            return None
        number, slot = self._lent[0]
        stamp = self.next_frame(slot, timeout_s)
        if stamp is None:
            return None
        self._lent.popleft()
        return number, stamp

    def reclaim(self) -> list[int]:
        """Numbers lent and not filled, which the driver writes to no more; called after `stop` or `close`."""
        numbers = [number for number, _ in self._lent or ()]
        self._lent = None
        return numbers

    @abstractmethod
    def stop(self) -> None:
        """Stop streaming; idempotent."""

    @abstractmethod
    def close(self) -> None:
        """Release the device; idempotent, never raises."""

    def configure(self, settings: dict[str, Any]) -> CameraInfo:
        """Apply `exposure_us` or `frame_rate_hz` while open; the description with what the camera made of them.

        Raises `CameraError` (BAD_SETTING) by default.
        """
        from hw.errors import CameraError, CameraReason

        raise CameraError(CameraReason.BAD_SETTING, f"this camera cannot change {', '.join(settings)}")
