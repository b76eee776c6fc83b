"""Where the emulated camera's pictures come from, and how its electronics turn them into payloads."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from hw.camera.contract import FrameStamp, PixelFormat
from hw.camera.loop import LoopCamera
from hw.camera.twin import TwinCamera
from hw.drivers import checked_options
from hw.errors import InstrumentError
from hw.twin.world import WorldState
from kernels.synth import pack_12p

PATTERN_FRAMES = 16
BITS = {"Mono8": 8, "Mono10p": 10, "Mono12": 12, "Mono12p": 12, "Mono16": 16}
CODES = {"Mono8": 0x01080001, "Mono10p": 0x010A0046, "Mono12": 0x01100005, "Mono12p": 0x010C0047, "Mono16": 0x01100007}
FORMATS = {code: name for name, code in CODES.items()}


@dataclass(frozen=True)
class View:
    """What the electronics make of a picture: geometry in binned pixels, format, gain and offset."""

    width_px: int
    height_px: int
    offset_x_px: int
    offset_y_px: int
    binning_x: int
    binning_y: int
    pixel_format: str
    gain_db: float
    black_dn: int
    """At the sensor's own bits."""

    def develop(self, raw: np.ndarray, bits: int) -> np.ndarray:
        """Payload (uint8, 1-D) of a picture (H, W) whose values have `bits` bits."""
        y, x = self.offset_y_px * self.binning_y, self.offset_x_px * self.binning_x
        part = raw[y : y + self.height_px * self.binning_y, x : x + self.width_px * self.binning_x]
        full = (1 << bits) - 1
        if self.binning_x > 1 or self.binning_y > 1:
            parts = part.reshape(self.height_px, self.binning_y, self.width_px, self.binning_x)
            part = np.minimum(parts.sum((1, 3), dtype=np.uint32), full)
        if self.gain_db or self.black_dn:
            part = np.clip(np.rint(part * 10 ** (self.gain_db / 20) + self.black_dn), 0, full)
        return _packed(_requantised(part, bits, BITS[self.pixel_format]), self.pixel_format)


def _requantised(values: np.ndarray, bits: int, wanted: int) -> np.ndarray:
    """Fewer bits are rounded, more are left-justified, as converters of cameras are."""
    if wanted < bits:
        down = bits - wanted
        values = np.minimum((values.astype(np.uint32) + (1 << down - 1)) >> down, (1 << wanted) - 1)
    values = values.astype(np.uint8 if wanted == 8 else np.uint16, copy=False)
    return values << (wanted - bits) if wanted > bits else values


def _packed(values: np.ndarray, pixel_format: str) -> np.ndarray:
    flat = np.ascontiguousarray(values).reshape(-1)
    if pixel_format == "Mono12p":
        out = np.empty(PixelFormat.MONO12P.payload_bytes(1, flat.size), np.uint8)
        pack_12p(flat, out)
        return out
    if pixel_format == "Mono10p":
        bits = (flat[:, None] >> np.arange(10, dtype=np.uint16) & 1).astype(np.uint8)
        return np.packbits(bits.reshape(-1), bitorder="little")
    return flat.view(np.uint8)


@dataclass(frozen=True)
class Picture:
    """A payload and the time at which its exposure began, s on the camera's clock."""

    payload: memoryview
    begin_s: float


def warm_up() -> None:
    """Compile, so that no frame waits for it."""
    _packed(np.zeros(4, np.uint16), "Mono12p")


def _shown(payload: np.ndarray) -> memoryview:
    return payload.data.toreadonly()


class Source(ABC):
    """Pictures of a sensor of (`height_px`, `width_px`) with values of `bits` bits."""

    height_px: int
    width_px: int
    bits: int
    live = False
    """Whether a picture takes long to make: then it is made in a thread."""

    @abstractmethod
    def picture(self, number: int, due_s: float, exposure_s: float, view: View) -> Picture | None:
        """The picture read out at host time `due_s`; None for one that the sensor lost."""

    @abstractmethod
    def clock_s(self, now_s: float) -> float:
        """The camera's clock at a host time."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of what it holds; idempotent."""


class Reel(Source):
    """Pictures made beforehand, for ever. Each is developed once for a view; nothing is copied after that."""

    def __init__(self, pictures: np.ndarray | Packed12, bits: int, clock_ppm: float) -> None:
        self._pictures, self.bits = pictures, bits
        self.height_px, self.width_px = pictures[0].shape
        self._rate = 1 + clock_ppm * 1e-6
        self._begun_s = time.monotonic()
        self._view: View | None = None
        self._developed: dict[int, memoryview] = {}

    def picture(self, number: int, due_s: float, exposure_s: float, view: View) -> Picture | None:
        if view != self._view:
            self._view, self._developed = view, {}
        place = number % len(self._pictures)
        if place not in self._developed:
            self._developed[place] = _shown(self._develop(place, view))
        return Picture(self._developed[place], self.clock_s(due_s - exposure_s))

    def _develop(self, place: int, view: View) -> np.ndarray:
        whole = View(self.width_px, self.height_px, 0, 0, 1, 1, "Mono12p", 0.0, 0)
        if view == whole and isinstance(self._pictures, Packed12):
            return self._pictures.frames[place]
        return view.develop(self._pictures[place], self.bits)

    def clock_s(self, now_s: float) -> float:
        return (now_s - self._begun_s) * self._rate


class Packed12:
    """Pictures kept as Mono12p, (N, payload) uint8, unpacked when one is asked for: a loop is hundreds of megabytes."""

    def __init__(self, frames: np.ndarray, height_px: int, width_px: int) -> None:
        self.frames = frames
        self._shape = height_px, width_px

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, place: int) -> np.ndarray:
        low, middle, high = (self.frames[place, k::3].astype(np.uint16) for k in range(3))
        return np.stack((low | (middle & 0xF) << 8, middle >> 4 | high << 4), axis=-1).reshape(self._shape)


def pattern(height_px: int, width_px: int, clock_ppm: float) -> Reel:
    """A ramp that moves, of 12 bits: pixel (y, x) of frame n is (5 n + 3 x + 7 y) modulo 4096, n modulo 16."""
    y, x = np.ogrid[:height_px, :width_px]
    frames = np.empty((PATTERN_FRAMES, height_px, width_px), np.uint16)
    for k in range(PATTERN_FRAMES):
        frames[k] = (5 * k + 3 * x + 7 * y) & 0xFFF
    return Reel(frames, 12, clock_ppm)


def loop(options: dict[str, Any], clock_ppm: float) -> Reel:
    """The loop of `hw/camera/loop.py`, without its stepping particles: nothing is drawn while it plays."""
    camera = _Loop(checked_options(LoopCamera.Settings, "loop", {"steps_per_s": 0.0} | options))  # type: ignore[arg-type]
    info = camera.open()
    pictures = camera.pictures()
    camera.close()
    return Reel(pictures, BITS[info.pixel_format], clock_ppm)


class _Loop(LoopCamera):
    def pictures(self) -> np.ndarray | Packed12:
        """(loop_frames, H, W)."""
        assert self._frames is not None
        height, width = self._settings.height_px, self._settings.width_px
        if self._settings.pixel_format == "Mono12p":
            return Packed12(self._frames, height, width)
        dtype = np.uint8 if self._settings.pixel_format == "Mono8" else np.uint16
        return self._frames.view(dtype).reshape(-1, height, width)


class Live(Source):
    """The simulated microscope on the simulated electrode, drawn frame by frame; with `world` the twin's cell's."""

    live = True

    def __init__(self, options: dict[str, Any]) -> None:
        settings = checked_options(TwinCamera.Settings, "twin", options)
        self._camera = _Live(settings)  # type: ignore[arg-type]
        info = self._camera.open()
        self.height_px, self.width_px = info.height_px, info.width_px
        self.bits = BITS[info.pixel_format]
        self.exposure_us = info.exposure_us or 0.0

    def picture(self, number: int, due_s: float, exposure_s: float, view: View) -> Picture | None:
        drawn = self._camera.draw(number, due_s, exposure_s * 1e6)
        if drawn is None:
            return None
        stamp, raw = drawn
        payload = _shown(view.develop(raw, self.bits).copy())  # the next picture is drawn over this one
        return Picture(payload, stamp.device_t_s - exposure_s / 2 * self._camera.anchor[2])

    def clock_s(self, now_s: float) -> float:
        t_s, host_t_s, speed = self._camera.anchor
        return t_s + (now_s - host_t_s) * speed

    def close(self) -> None:
        self._camera.close()


class _Live(TwinCamera):
    """Draws when it is told, not by its own shutter."""

    anchor = (0.0, 0.0, 1.0)
    """The world's time, the host's time of that, and the world's speed, when last looked at."""

    def _state(self) -> WorldState:
        state = super()._state()
        self.anchor = (state.t_s, state.host_t_s, state.speed)
        return state

    def draw(self, number: int, due_s: float, exposure_us: float) -> tuple[FrameStamp, np.ndarray] | None:
        assert self._microscope is not None
        self._microscope.exposure_us = exposure_us
        slot = np.empty(PixelFormat(self._settings.pixel_format).payload_bytes(*self._frame.shape), np.uint8)
        try:
            stamp = self._render(number, due_s, slot)
        except InstrumentError:
            return None  # its world is silent or closed: the sensor sees nothing
        return None if stamp is None else (stamp, self._frame)
