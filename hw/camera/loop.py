"""A simulated camera that plays a loop rendered beforehand: a live scene at a camera's full rate for next to no time.

An instrument for measuring sustained load. What the twin renders frame by frame, this copies.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from hw.camera.contract import Camera, CameraInfo, FrameStamp, PixelFormat
from hw.errors import CameraError, CameraReason
from hw.twin.disturbances import Disturbance
from hw.twin.electrode import Electrode
from hw.twin.optics import Microscope
from hw.twin.sample import CrowdedError, make_sample
from hw.twin.scene import Scene
from hw.twin.settings import NotNegative, OpticsOptions, Options, Positive, SampleOptions
from hw.twin.shutter import IMAGE_BUFFER_MB, Shutter
from kernels.synth import pack_12p

MAX_LOOP_MB = 512
BLUR_PX, LIGHT = 0.3, 0.001  # how much focus and light change over the loop
STEPPING = 16  # particles that take turns
STEP_GAIN = 0.95
MAX_FRAME_RATE_HZ = 1000.0
CELL: dict[str, Any] = {"folded_fraction": 0.0, "cracks_per_h": 0.0}  # the cell under this camera rests


class LoopCamera(Camera):
    """Frames come at `frame_rate_hz` of the host's time. Over the loop, scene, focus and light go round in a circle, so
    that its end joins its beginning; every frame of it has noise of its own.

    So that there is something to detect, particles dim by 5 % or brighten again, one at a time, beside the loop.
    """

    class Settings(Options):
        """The scene, the camera, the loop."""

        seed: int = Field(default=1, ge=0, le=2**31 - 1)
        particles: int = Field(default=1000, ge=1, le=5000)
        height_px: int = Field(default=1200, ge=64, le=4096)
        width_px: int = Field(default=1920, ge=64, le=4096, multiple_of=2)
        """Even: a line of a packed format is whole bytes."""
        pixel_size_nm: Positive = 96.0
        radius_um: Positive = 0.67
        """Median of the lognormal particle radius: 7 px."""
        radius_sigma: NotNegative = 0.24
        """Spread of ln(radius): from 4 to 12 px."""
        pixel_format: Literal["Mono8", "Mono12", "Mono12p", "Mono16"] = "Mono8"
        frame_rate_hz: Annotated[float, Field(gt=0, le=MAX_FRAME_RATE_HZ)] = 163.0
        loop_frames: int = Field(default=64, ge=2, le=1024)
        """Frames of the loop; all of them are held in memory, 512 MB at most."""
        drift_px: Annotated[float, Field(ge=0, le=3)] = 0.3
        """Radius of the circle that the scene goes round in each loop."""
        steps_per_s: NotNegative = 2.0
        """Steps of single particles."""
        buffer_mb: Positive = IMAGE_BUFFER_MB
        """Memory of the camera for frames that the host has not fetched; beyond it the oldest are lost."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._frame_rate_hz = settings.frame_rate_hz
        self._frames: np.ndarray | None = None
        self._opened: CameraInfo | None = None
        self._shutter: Shutter | None = None
        self._running = False

    def open(self) -> CameraInfo:
        """Draw the sample and render the loop: a few seconds."""
        if self._frames is not None:
            raise CameraError(CameraReason.BUSY, "the simulated camera is open already")
        settings = self._settings
        payload = PixelFormat(settings.pixel_format).payload_bytes(settings.height_px, settings.width_px)
        if (loop_mb := settings.loop_frames * payload / 1e6) > MAX_LOOP_MB:
            detail = f"loop_frames = {settings.loop_frames} take {loop_mb:.0f} MB, more than {MAX_LOOP_MB}"
            raise CameraError(CameraReason.BAD_SETTING, detail)
        microscope = self._microscope()
        self._frames = self._render(microscope, payload)
        self._shutter = Shutter(self._frame_rate_hz, settings.buffer_mb, payload)
        self._exposure_s = microscope.exposure_us * 1e-6
        self._opened = self._info(microscope)
        return self._opened

    def _microscope(self) -> Microscope:
        given = self._settings.model_dump()
        shared: dict[str, Any] = {name: value for name, value in given.items() if name in SampleOptions.model_fields}
        try:
            sample = make_sample(SampleOptions(**shared, **CELL))
        except CrowdedError as error:
            raise CameraError(CameraReason.BAD_SETTING, f"the simulated sample cannot be made: {error}") from None
        return Microscope(sample, OpticsOptions(pixel_format=self._settings.pixel_format))

    def _info(self, microscope: Microscope) -> CameraInfo:
        settings = self._settings
        return CameraInfo(
            model="Simulated camera, loop",
            serial=f"loop-{settings.seed}",
            height_px=settings.height_px,
            width_px=settings.width_px,
            pixel_format=PixelFormat(settings.pixel_format),
            frame_rate_hz=self._frame_rate_hz,
            exposure_us=microscope.exposure_us,
            gain_e_per_dn=microscope.gain_e_per_dn,
            read_noise_e=OpticsOptions().read_noise_e,
            dark_dn=microscope.dark_dn,
            pixel_size_nm=settings.pixel_size_nm,
            clock_id=f"loop-{settings.seed}-{os.getpid()}-{time.monotonic_ns():x}",
            clock_rate=1.0,
        )

    # -- the loop ------------------------------------------------------------

    def _render(self, microscope: Microscope, payload: int) -> np.ndarray:
        """(loop_frames, payload) uint8; what stepping particles look like once dimmed goes to `_dimmed`."""
        state, scene, count = Electrode(microscope.sample).state, microscope.scene, self._settings.loop_frames
        boxes = _apart(scene)
        frames = np.empty((count, payload), np.uint8)
        scene.show(state, budget=microscope.sample.count)
        for k in range(count):
            self._expose(microscope, k, frames[k])
        state.step_gain[[i for i, *_ in boxes]] = STEP_GAIN
        scene.show(state, budget=microscope.sample.count)
        self._places = [self._place(*box) for _, *box in boxes]
        self._dimmed: list[list[np.ndarray]] = []
        whole = np.empty(payload, np.uint8)
        for k in range(count if self._settings.steps_per_s else 0):
            self._expose(microscope, k, whole)
            lines = whole.reshape(self._settings.height_px, -1)
            self._dimmed.append([lines[place].copy() for place in self._places])
        return frames

    def _expose(self, microscope: Microscope, k: int, out: np.ndarray) -> None:
        turn = 2 * math.pi * k / self._settings.loop_frames
        radius_px = self._settings.drift_px
        picture = np.empty(microscope.field.shape, microscope.dtype)
        microscope.expose(
            Disturbance(
                drift_y_px=radius_px * math.sin(turn),
                drift_x_px=radius_px * math.cos(turn),
                blur_px=BLUR_PX * (1.0 + math.sin(turn)) / 2.0,
                illumination=1.0 + LIGHT * math.cos(turn),
                jitter_s=0.0,
                dropped=False,
            ),
            picture,
        )
        if self._settings.pixel_format == "Mono12p":
            pack_12p(picture.reshape(-1), out)
        else:
            out[:] = picture.view(np.uint8).reshape(-1)

    def _place(self, top: int, bottom: int, left: int, right: int) -> tuple[slice, slice]:
        """Rows, and bytes of their lines, of a box with even columns."""
        width_px = self._settings.width_px
        line = PixelFormat(self._settings.pixel_format).payload_bytes(1, width_px)
        return slice(top, bottom), slice(left * line // width_px, right * line // width_px)

    # -- frames ------------------------------------------------------------

    def start(self) -> None:
        """Frame 0 is exposed now."""
        if self._shutter is None:
            raise CameraError(CameraReason.UNPLUGGED, "the simulated camera is not open")
        self._shutter.start()
        self._running = True

    def next_frame(self, slot: np.ndarray, timeout_s: float) -> FrameStamp | None:
        """Waits for the next frame's time, then copies the loop's."""
        if not self._running or self._shutter is None or self._frames is None:
            raise CameraError(CameraReason.STALLED, "the simulated camera was not started")
        frame = self._shutter.next(time.monotonic() + timeout_s)
        if frame is None:
            return None
        block, due_s = frame
        place = block % len(self._frames)
        slot[:] = self._frames[place]
        lines = slot.reshape(self._settings.height_px, -1)
        for k in stepped(int(block / self._frame_rate_hz * self._settings.steps_per_s), len(self._places)):
            lines[self._places[k]] = self._dimmed[place][k]
        return FrameStamp(block, due_s - self._exposure_s / 2, time.monotonic())

    def stop(self) -> None:
        """No more frames."""
        self._running = False

    def close(self) -> None:
        """Let go of the loop."""
        self._running = False
        self._frames = self._shutter = None
        self._dimmed = []

    def configure(self, settings: dict[str, Any]) -> CameraInfo:
        """`frame_rate_hz`, slow enough for the exposure; block ids go on. What was rendered cannot be exposed anew."""
        if self._shutter is None:
            raise CameraError(CameraReason.UNPLUGGED, "the simulated camera is not open")
        unknown = set(settings) - {"frame_rate_hz"}
        if unknown:
            raise CameraError(CameraReason.BAD_SETTING, f"this camera cannot change {', '.join(sorted(unknown))}")
        rate_hz = settings.get("frame_rate_hz", self._frame_rate_hz)
        highest_hz = min(MAX_FRAME_RATE_HZ, 1.0 / self._exposure_s)
        if isinstance(rate_hz, bool) or not isinstance(rate_hz, int | float) or not 0.01 <= rate_hz <= highest_hz:
            detail = f"frame_rate_hz = {rate_hz!r} is outside of 0.01 to {highest_hz:g}"
            raise CameraError(CameraReason.BAD_SETTING, detail)
        self._shutter.frame_rate_hz = self._frame_rate_hz = float(rate_hz)
        assert self._opened is not None
        return replace(self._opened, frame_rate_hz=self._frame_rate_hz)


def stepped(steps: int, particles: int) -> list[int]:
    """Which of `particles` are dim after `steps` steps: each takes its turn, and its next one undoes the last."""
    rounds, turn = divmod(steps, particles)
    return [k for k in range(particles) if (rounds + (k < turn)) % 2]


def _apart(scene: Scene) -> list[tuple[int, int, int, int, int]]:
    """(particle, top, bottom, left, right) of up to `STEPPING` particles whose boxes keep clear of each other."""
    chosen: list[tuple[int, int, int, int, int]] = []
    height, width = scene.sample.options.height_px, scene.sample.options.width_px
    for i, shape in enumerate(scene.shapes):
        tall, wide = shape.coverage.shape
        top, bottom = max(shape.top, 0), min(shape.top + tall, height)
        left, right = max(shape.left // 2 * 2, 0), min((shape.left + wide + 1) // 2 * 2, width)
        if all(bottom <= y0 or top >= y1 or right <= x0 or left >= x1 for _, y0, y1, x0, x1 in chosen):
            chosen.append((i, top, bottom, left, right))
        if len(chosen) == STEPPING:
            break
    return chosen
