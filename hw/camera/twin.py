"""A simulated camera on a simulated microscope, looking at the electrode of a world file or at one of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from hw.camera.contract import Camera, CameraInfo, FrameStamp, PixelFormat
from hw.errors import CameraError, CameraReason
from hw.twin.disturbances import Disturbances
from hw.twin.electrode import ParticleState
from hw.twin.optics import Microscope
from hw.twin.private import PrivateWorld
from hw.twin.sample import CrowdedError, Sample, make_sample
from hw.twin.settings import NotNegative, Positive, TwinOptions
from hw.twin.shutter import IMAGE_BUFFER_MB, Shutter
from hw.twin.world import WorldError, WorldReader, WorldState
from kernels.synth import pack_12p

LOOK_S = 0.1  # between two looks for a world file
MAX_EXTRAPOLATION_S = 1.0  # host seconds before or after a state that its rates are still believed
MIN_EXPOSURE_US, MAX_EXPOSURE_US = 10.0, 100_000.0
MAX_FRAME_RATE_HZ = 1000.0


class TwinCamera(Camera):
    """Frames come at `frame_rate_hz` of the host's time; their stamps advance by speed / frame_rate_hz simulated s.

    The speed is the world's. A host that asks late finds the last frames in the camera's buffer, beyond that block ids
    have gaps.
    """

    class Settings(TwinOptions):
        """Options of the simulated camera and its microscope.

        With `world` the sample is the world's: sample options given here too must agree with it.
        """

        world: str = ""
        """Path of the file that the simulated potentiostat writes; empty: an own cell that cycles by itself."""
        world_wait_s: NotNegative = 10.0
        """How long `open` waits for a world that lives."""
        world_stale_s: Positive = 3.0
        """Age of the world's last sign of life at which the camera counts as stalled."""
        c_rate: float = Field(default=1.0, ge=0, le=20)
        """Of the own cell's cycling; ignored with `world`. 0: it rests."""
        buffer_mb: Positive = IMAGE_BUFFER_MB
        """Memory of the camera for frames that the host has not fetched, a second of them at most; beyond it the oldest
        are lost.
        """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._world: WorldReader | PrivateWorld | None = None
        self._microscope: Microscope | None = None
        self._shutter: Shutter | None = None
        self._frame_rate_hz = settings.frame_rate_hz
        self._running = False

    def open(self) -> CameraInfo:
        """Find the world, or make one, and draw its sample."""
        if self._world is not None:
            raise CameraError(CameraReason.BUSY, "the simulated camera is open already")
        settings = self._settings
        try:
            world = self._attach() if settings.world else self._own_world()
        except CrowdedError as error:
            raise CameraError(CameraReason.BAD_SETTING, f"the simulated sample cannot be made: {error}") from None
        microscope = Microscope(
            world.sample if isinstance(world.sample, Sample) else make_sample(world.sample), settings
        )
        sample = microscope.sample.options
        self._frame = np.zeros((sample.height_px, sample.width_px), microscope.dtype)
        self._disturbances = Disturbances(settings, sample.seed, sample.pixel_size_nm)
        self._world, self._microscope = world, microscope
        self._warm_up()
        info = self._info()
        payload = info.pixel_format.payload_bytes(info.height_px, info.width_px)
        self._shutter = Shutter(self._frame_rate_hz, settings.buffer_mb, payload, MAX_EXTRAPOLATION_S)
        return info

    def _info(self) -> CameraInfo:
        settings, microscope, world = self._settings, self._microscope, self._world
        assert microscope is not None and world is not None
        sample = microscope.sample.options
        return CameraInfo(
            model="Simulated camera",
            serial=f"twin-{sample.seed}",
            height_px=sample.height_px,
            width_px=sample.width_px,
            pixel_format=PixelFormat(settings.pixel_format),
            frame_rate_hz=self._frame_rate_hz,
            exposure_us=microscope.exposure_us,
            gain_e_per_dn=microscope.gain_e_per_dn,
            read_noise_e=settings.read_noise_e,
            dark_dn=microscope.dark_dn,
            pixel_size_nm=sample.pixel_size_nm,
            clock_id=world.clock_id,
            clock_rate=self._state().speed,
            flat=microscope.field / microscope.field.mean() if settings.publish_flat else None,
        )

    def start(self) -> None:
        """Frame 0 is exposed now."""
        self._require_open()
        assert self._shutter is not None
        self._shutter.start()
        self._running = True

    def next_frame(self, slot: np.ndarray, timeout_s: float) -> FrameStamp | None:
        """Waits for the next frame's time, then renders it from the world's state of that moment."""
        if not self._running:
            raise CameraError(CameraReason.STALLED, "the simulated camera was not started")
        assert self._shutter is not None
        deadline_s = time.monotonic() + timeout_s
        while True:
            frame = self._shutter.next(deadline_s)
            if frame is None:
                self._state()
                return None
            stamp = self._render(*frame, slot)
            if stamp is not None:
                return stamp

    def stop(self) -> None:
        """No more frames."""
        self._running = False

    def close(self) -> None:
        """Leave the world."""
        self._running = False
        world, self._world, self._microscope = self._world, None, None
        if world is not None:
            world.close()

    def configure(self, settings: dict[str, Any]) -> CameraInfo:
        """`exposure_us` (10 to 100 000, shorter than a frame) and `frame_rate_hz` (up to 1000); block ids go on."""
        self._require_open()
        assert self._microscope is not None
        unknown = set(settings) - {"exposure_us", "frame_rate_hz"}
        if unknown:
            raise CameraError(CameraReason.BAD_SETTING, f"this camera cannot change {', '.join(sorted(unknown))}")
        exposure_us = _number(settings, "exposure_us", self._microscope.exposure_us, MIN_EXPOSURE_US, MAX_EXPOSURE_US)
        rate_hz = _number(settings, "frame_rate_hz", self._frame_rate_hz, 0.01, MAX_FRAME_RATE_HZ)
        if exposure_us * rate_hz > 1e6:
            raise CameraError(
                CameraReason.BAD_SETTING, f"exposure_us = {exposure_us:g} does not fit into a frame at {rate_hz:g} Hz"
            )
        self._microscope.exposure_us = exposure_us
        assert self._shutter is not None
        self._shutter.frame_rate_hz = self._frame_rate_hz = rate_hz
        return self._info()

    # -- the world ------------------------------------------------------------

    def _own_world(self) -> PrivateWorld:
        return PrivateWorld(self._settings, self._settings.c_rate, self._settings.speed)

    def _attach(self) -> WorldReader:
        """The living world at the path, waiting for one up to `world_wait_s`."""
        path, deadline = Path(self._settings.world), time.monotonic() + self._settings.world_wait_s
        while True:
            try:
                return self._living(path)
            except WorldError as error:
                if time.monotonic() >= deadline:
                    raise CameraError(CameraReason.NOT_FOUND, str(error)) from None
            time.sleep(LOOK_S)

    def _living(self, path: Path) -> WorldReader:
        world = WorldReader(path)
        try:
            state = world.read()
            if state.closed or time.monotonic() - state.host_t_s > self._settings.world_stale_s:
                raise WorldError(f"the simulated world at {path} is dead")
            self._check_sample(world)
        except BaseException:
            world.close()
            raise
        return world

    def _check_sample(self, world: WorldReader) -> None:
        for name in self._settings.model_fields_set & set(type(world.sample).model_fields):
            here, there = getattr(self._settings, name), getattr(world.sample, name)
            if here != there:
                raise CameraError(
                    CameraReason.BAD_SETTING, f"{name} = {here} of the camera is {there} in the world it looks at"
                )

    def _require_open(self) -> None:
        if self._world is None:
            raise CameraError(CameraReason.UNPLUGGED, "the simulated camera is not open")

    def _state(self) -> WorldState:
        self._require_open()
        assert self._world is not None
        try:
            state = self._world.read()
        except WorldError as error:
            raise CameraError(CameraReason.STALLED, str(error)) from None
        if state.closed:
            raise CameraError(CameraReason.UNPLUGGED, f"the simulated world at {self._settings.world} was closed")
        silent_s = time.monotonic() - state.host_t_s
        if silent_s > self._settings.world_stale_s:
            raise CameraError(
                CameraReason.STALLED, f"the simulated world at {self._settings.world} is silent for {silent_s:.1f} s"
            )
        return state

    # -- frames ------------------------------------------------------------

    def _warm_up(self) -> None:
        """Compile, draw the whole scene once."""
        assert self._microscope is not None
        self._microscope.scene.show(self._state().particles, budget=self._microscope.sample.count)
        self._microscope.expose(self._disturbances.at(0.0), self._frame)
        if self._settings.pixel_format == "Mono12p":
            pack_12p(self._frame.reshape(-1)[:2], np.empty(3, np.uint8))

    def _render(self, block: int, due: float, slot: np.ndarray) -> FrameStamp | None:
        assert self._microscope is not None
        state = self._state()
        t_s = state.t_s + (due - state.host_t_s) * state.speed
        disturbance = self._disturbances.at(t_s)
        if disturbance.dropped:
            return None
        self._microscope.scene.show(_moved(state.particles, t_s - state.t_s, state.speed))
        self._microscope.expose(disturbance, self._frame)
        if self._settings.pixel_format == "Mono12p":
            pack_12p(self._frame.reshape(-1), slot)
        else:
            slot[:] = self._frame.view(np.uint8).reshape(-1)
        exposure_s = self._microscope.exposure_us * 1e-6 * state.speed
        middle_s = t_s - exposure_s / 2
        return FrameStamp(block, middle_s + disturbance.jitter_s, time.monotonic())


def _moved(particles: ParticleState, ahead_s: float, speed: float) -> ParticleState:
    """The particles a little before or after they were published, by their rates."""
    ahead_s = float(np.clip(ahead_s, -MAX_EXTRAPOLATION_S * speed, MAX_EXTRAPOLATION_S * speed))
    change = particles.c_rate * ahead_s
    moved = ParticleState(*(getattr(particles, name) for name in ParticleState.FIELDS))
    moved.c = np.clip(particles.c + change, 0.0, 1.0)
    moved.c_surface = np.clip(particles.c_surface + change, 0.0, 1.0)
    return moved


def _number(settings: dict[str, Any], name: str, now: float, low: float, high: float) -> float:
    value = settings.get(name, now)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise CameraError(CameraReason.BAD_SETTING, f"{name} = {value!r} is outside of {low:g} to {high:g}")
    return float(value)
