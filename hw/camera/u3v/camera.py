"""The driver `u3v`: a USB3 Vision camera whose frames end in the engine's slots."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hw.camera.contract import Camera, CameraInfo, FrameStamp
from hw.camera.u3v import settings as options
from hw.camera.u3v.chunks import without_image
from hw.camera.u3v.continuity import BlockIds, Repeats
from hw.camera.u3v.description import cache_directory
from hw.camera.u3v.discovery import camera_error, pick
from hw.camera.u3v.link import ClockSample, Link
from hw.camera.u3v.photometry import leave_pixels_alone
from hw.camera.u3v.registers import Bootstrap
from hw.camera.u3v.settings import CODES, U3vSettings
from hw.camera.u3v.stream import Frame, ImageFormat, Stream
from hw.errors import CameraError, CameraReason, InstrumentError, UsbError, UsbReason
from hw.usb.ladder import Ladder, Rung
from hw.usb.usbfs import advice, frames_that_fit, memory_limit_mb

SILENT_S, SILENT_FRAMES = 0.5, 5  # a camera that runs freely and is silent for longer has stopped
FIRST_S = 1.0  # and after it was started; three remedies then fit into the engine's deadline for a frame
CLEARS, RESTARTS = 4, 2  # a bad cable tears frames now and then: no reason to reset the camera at once
BACK_S, LOOK_S = 3.0, 0.1  # how long a reset camera may take to be on the bus again, and how often to look
USB2_BYTES_PER_S = 42e6  # what high speed carries in bulk at best
PAGE_BYTES = 4096
CLOCK_TOLERANCE_S = 1.0
MOMENTS = {"start": 0.5, "middle": 0.0, "end": -0.5}


class U3vCamera(Camera):
    """A USB3 Vision camera. Frames that it loses are gaps of the block ids; those it sends damaged are gaps too.

    A camera that goes silent, stalls or gets out of step is cleared, restarted, then reset, each once and within
    seconds; after that the error is the caller's. What was unplugged, denied or is busy is told at once.
    """

    Settings = U3vSettings

    def __init__(self, settings: U3vSettings) -> None:
        self._settings = settings
        self._asked: dict[str, float] = {}
        """What `configure` set: it holds when the camera was reset."""
        self._link: Link | None = None
        self._stream: Stream | None = None
        self._info: CameraInfo | None = None
        self._started = self._running = False
        self._own: dict[int, np.ndarray] = {}
        self._lent_slots: dict[int, np.ndarray] = {}
        self._exposure_s = 0.0
        self._heard_s = 0.0
        self._first = True
        self.clock_sample: ClockSample | None = None
        """The camera's clock beside the host's, at `start`."""
        self.counts: Counter[str] = Counter()
        """What happened, by name: frames dropped here and why, remedies, retries of requests."""

    # -- life ------------------------------------------------------------

    def open(self) -> CameraInfo:
        """Claim the camera, set it up for photometry and to the options."""
        if self._link is not None:
            raise CameraError(CameraReason.BUSY, "the camera is open already")
        try:
            self._connect()
        except UsbError as error:
            self.close()
            raise camera_error(error) from error
        except BaseException:
            self.close()
            raise
        assert self._info is not None
        return self._info

    def _connect(self) -> None:
        """Find, open, set up, describe. Raises `UsbError`, `CameraError`."""
        settings = self._settings
        found = pick(settings.serial)
        cache = Path(settings.cache) if settings.cache else cache_directory()
        self._link = link = Link.open(found, cache)
        link.stream.halt_first = settings.halt_first
        if self._stream is not None:
            link.stream.adopt(self._stream)
        self._stream = link.stream
        notes = leave_pixels_alone(link.nodes)
        options.apply(link.nodes, settings)
        self._configure(self._asked)
        self._info = self._describe(link, notes)

    def _describe(self, link: Link, notes: list[str]) -> CameraInfo:
        settings, nodes, about = self._settings, link.nodes, link.bootstrap
        pixels = options.pixel_format(nodes)
        told_hz = None if settings.trigger_source else options.frame_rate(nodes)
        rate_hz = told_hz or settings.frame_rate_hz
        if not rate_hz:
            raise CameraError(CameraReason.BAD_SETTING, "frame_rate_hz: the camera does not say it; give it")
        height, width = int(nodes.get("Height") or 0), int(nodes.get("Width") or 0)
        exposure_us = options.exposure(nodes)
        self._exposure_s = (exposure_us or 0.0) * 1e-6
        if exposure_us is None:
            notes.append("the camera does not tell its exposure: times of frames are those it stamps")
        if link.found_on:
            notes.append("the camera was streaming when it was opened, for a program that ended without stopping it")
        notes += _limits(link, rate_hz, pixels.payload_bytes(height, width), settings.frame_rate_hz)
        self._reckon_memory(pixels.payload_bytes(height, width), 3, rate_hz)
        notes += [self.memory_advice] if self.memory_advice else []
        return CameraInfo(
            model=f"{about.manufacturer} {about.model}".strip() or link.device.found.name,
            serial=about.serial or link.identity.serial or link.identity.guid,
            height_px=height,
            width_px=width,
            pixel_format=pixels,
            frame_rate_hz=float(rate_hz),
            exposure_us=exposure_us,
            gain_e_per_dn=settings.gain_e_per_dn,
            read_noise_e=settings.read_noise_e,
            dark_dn=settings.dark_dn,
            pixel_size_nm=settings.pixel_size_nm,
            clock_id=f"u3v-{link.identity.guid or about.serial}",
            clock_rate=1.0,
            notes=tuple(notes),
        )

    def start(self) -> None:
        """Agree on the transfers; frames flow from the first `take` on, when slots are lent."""
        link = self._opened()
        self.stop()
        assert self._info is not None
        self._ids, self._repeats = BlockIds(self._info.frame_rate_hz), Repeats()
        clear, restart, reset = self._clear, self._restart, self._reset
        self._silence = Ladder([Rung("clear", clear), Rung("restart", restart), Rung("reset", reset)])
        rungs = [Rung("clear", clear, CLEARS), Rung("restart", restart, RESTARTS), Rung("reset", reset)]
        self._damage = Ladder(rungs)
        try:
            self.clock_sample = link.clock()
            self._prepare()
        except UsbError as error:
            raise camera_error(error) from error
        self._started, self._first, self._patience_s = True, True, FIRST_S

    def _prepare(self) -> None:
        """Lock the settings and lay the transfers out. Raises `UsbError`."""
        link, info = self._opened(), self._info
        assert info is not None
        link.feature("TLParamsLocked", 1)
        image_bytes = info.pixel_format.payload_bytes(info.height_px, info.width_px)
        image = ImageFormat(CODES[info.pixel_format.value], info.width_px, info.height_px, image_bytes)
        layout = link.stream.set_up(image, int(self._settings.transfer_mb * 1e6))
        self._reckon_memory(layout.frame_bytes, 2 + sum(1 for _ in layout.payload), info.frame_rate_hz)

    memory_advice: str | None = None
    """What to set in the kernel so that all of `queue_frames` fit; None when they do."""

    def _reckon_memory(self, frame_bytes: int, transfers: int, rate_hz: float) -> None:
        wanted, limit_mb = self._settings.queue_frames, memory_limit_mb()
        frame_bytes += PAGE_BYTES * transfers
        self.queue_frames = frames_that_fit(wanted, frame_bytes, transfers, limit_mb)
        self.memory_advice = advice(wanted, self.queue_frames, frame_bytes, rate_hz, limit_mb)

    def _begin(self) -> None:
        """Queue the slots, then let the camera run. Raises `UsbError`."""
        link = self._opened()
        link.stream.switch_on()
        if not link.command("AcquisitionStart"):
            raise UsbError(UsbReason.PROTOCOL, f"{link.device.found.name} has no command AcquisitionStart")
        self._running, self._heard_s = True, time.monotonic()

    def stop(self) -> None:
        """Stop the camera and take every transfer back; slots stay lent until `reclaim`."""
        self._started = False
        if self._link is None or not self._running:
            return
        try:
            self._halt(self._link)
        except UsbError as error:
            self.counts[f"stop: {error.reason.code}"] += 1  # it is gone: nothing is left to stop

    def _halt(self, link: Link) -> None:
        """Raises `UsbError`, after transfers were taken back all the same."""
        self._running = False
        try:
            link.command("AcquisitionStop")
        finally:
            link.stream.switch_off()
        link.feature("TLParamsLocked", 0)

    def close(self) -> None:
        """Stop and release the camera; idempotent."""
        self.stop()
        if self._link is not None:
            link, self._link = self._link, None
            link.close()
            self.counts.update(link.port.counts)
        self._running = False

    def about(self) -> Bootstrap:
        """What the open camera says of itself in its registers."""
        return self._opened().bootstrap

    def stream_counts(self) -> dict[str, int]:
        """Frames taken, and those dropped here by why."""
        return dict(self._stream.counts) if self._stream is not None else {}

    def _opened(self) -> Link:
        if self._link is None:
            raise CameraError(CameraReason.UNPLUGGED, "the camera is not open")
        return self._link

    # -- frames ------------------------------------------------------------

    def lend(self, number: int, slot: np.ndarray) -> None:
        """A slot in whose memory a frame's transfer ends."""
        if self._stream is None:
            self._opened()
        assert self._stream is not None
        self._lent_slots[number] = slot
        self._stream.lend(number, slot)

    def reclaim(self) -> list[int]:
        """Slots that no transfer writes to; one whose transfer did not end within 2 s is not among them."""
        self._lent_slots, self._own = {}, {}
        return self._stream.reclaim() if self._stream is not None else []

    def take(self, timeout_s: float) -> tuple[int, FrameStamp] | None:
        """The next whole frame. Remedies for a camera in trouble are tried here, one a call."""
        if not self._started:
            self._opened()
            raise CameraError(CameraReason.STALLED, "the camera was not started")
        try:
            if not self._running:
                self._begin()
            frame = self._opened().stream.take(timeout_s)
            if frame is not None:
                return self._stamped(frame)
            self._listen()
        except UsbError as error:
            self._recover(error)
        return None

    def next_frame(self, slot: np.ndarray, timeout_s: float) -> FrameStamp | None:
        """The next frame, copied from slots of the driver's own."""
        if not self._own:
            self._own = {number: np.zeros(slot.size, np.uint8) for number in range(self.queue_frames)}
            for number, memory in self._own.items():
                self.lend(number, memory)
        taken = self.take(timeout_s)
        if taken is None:
            return None
        number, stamp = taken
        slot[:] = self._own[number]
        self.lend(number, self._own[number])
        return stamp

    def _stamped(self, frame: Frame) -> tuple[int, FrameStamp]:
        """Its number and stamp; the slot stays lent when that cannot be said."""
        self._heard_s = frame.host_t_s
        self._silence.worked()
        self._damage.worked()
        self._patience_s = SILENT_S
        slot = self._lent_slots[frame.number]
        try:
            stamp = self._stamp(frame, slot)
        except InstrumentError:
            self.lend(frame.number, slot)
            raise
        del self._lent_slots[frame.number]
        return frame.number, stamp

    def _stamp(self, frame: Frame, slot: np.ndarray) -> FrameStamp:
        same_s = self._repeats.seen(slot, frame.host_t_s)
        if same_s > self._settings.frozen_after_s:
            raise CameraError(CameraReason.FROZEN, f"one picture came again and again for {same_s:.1f} s")
        moment_s = MOMENTS[self._settings.timestamp_at] * self._exposure_of(frame, slot.size)
        if self._first:
            self._first = False
            self._compare_clocks(frame)
        block_id = self._ids.next(frame.block_id, frame.host_t_s)
        return FrameStamp(block_id, frame.timestamp_ns * 1e-9 + moment_s, frame.host_t_s)

    def _exposure_of(self, frame: Frame, image_bytes: int) -> float:
        """Seconds: what came with the frame, else what is set."""
        if not self._settings.chunks:
            return self._exposure_s
        nodes, chunks = self._opened().nodes, without_image(frame.chunks, image_bytes)
        exposure_us = nodes.get("ChunkExposureTime") if chunks and nodes.attach_chunks(chunks) else None
        if exposure_us is None:
            self.counts["chunks not understood"] += 1
            return self._exposure_s
        return float(exposure_us) * 1e-6

    def _compare_clocks(self, frame: Frame) -> None:
        """Whether frames are stamped with the clock that was latched; counted when they are not."""
        sample = self.clock_sample
        if sample is None:
            return
        host_t_s = sample.host_t_s + frame.timestamp_ns * 1e-9 - sample.device_t_s
        if abs(frame.host_t_s - host_t_s) > CLOCK_TOLERANCE_S:
            self.counts["clock of frames is another"] += 1

    def _listen(self) -> None:
        """Raises `UsbError` (STALLED) when a camera that runs freely has been silent for too long."""
        assert self._info is not None
        if self._settings.trigger_source:
            return
        silent_s = time.monotonic() - self._heard_s
        if silent_s > max(self._patience_s, SILENT_FRAMES / self._info.frame_rate_hz):
            raise UsbError(UsbReason.TIMEOUT, f"the camera sent no whole frame for {silent_s:.1f} s")

    # -- trouble ------------------------------------------------------------

    def _recover(self, error: UsbError) -> None:
        """Try the next remedy; `CameraError` when there is none, or none helps against this."""
        if error.reason in (UsbReason.UNPLUGGED, UsbReason.DENIED, UsbReason.BUSY, UsbReason.NO_MEMORY):
            raise camera_error(error) from error
        ladder = self._silence if error.reason is UsbReason.TIMEOUT else self._damage
        try:
            self.counts[ladder.failed(error)] += 1
        except UsbError as last:
            raise camera_error(last) from last
        self._heard_s, self._patience_s = time.monotonic(), SILENT_S

    def _clear(self) -> None:
        """Only the stream: the camera goes on exposing, and counting."""
        stream = self._opened().stream
        stream.switch_off()
        stream.clear()
        stream.switch_on()

    def _restart(self) -> None:
        """Stop and start the camera."""
        self._halt(self._opened())
        self._ids.interrupted()
        self._prepare()
        self._begin()

    def _reset(self) -> None:
        """Reset its port, wait for it to come back, set it up anew."""
        link, before = self._opened(), self._info
        self._running = False
        self._ids.interrupted()
        link.stream.close()
        try:
            link.device.reset()
        except UsbError as error:
            self.counts[f"reset: {error.reason.code}"] += 1
        link.close()
        self._link = None
        deadline_s = time.monotonic() + BACK_S
        while True:
            try:
                self._connect()
                break
            except InstrumentError as error:
                if time.monotonic() > deadline_s or self._link is not None:
                    raise
                self.counts[f"reset: {error.reason.code}"] += 1
                time.sleep(LOOK_S)
        assert before is not None and self._info is not None
        if differences := before.identity.differences(self._info.identity):  # its frames would not fit into the slots
            raise CameraError(CameraReason.CHANGED, f"the camera came back from a reset with {differences}")
        self._prepare()
        self._begin()

    # -- settings ------------------------------------------------------------

    def configure(self, settings: dict[str, Any]) -> CameraInfo:
        """`exposure_us` and `frame_rate_hz`, within what the camera states; it goes on streaming."""
        link = self._opened()
        unknown = set(settings) - {"exposure_us", "frame_rate_hz"}
        if unknown:
            raise CameraError(CameraReason.BAD_SETTING, f"this camera cannot change {', '.join(sorted(unknown))}")
        try:
            self._configure(settings)
            self._asked |= settings
            self._info = info = self._read_back(link)
        except UsbError as error:
            raise camera_error(error) from error
        self._exposure_s = (info.exposure_us or 0.0) * 1e-6
        if self._started:
            self._ids.frame_rate_hz = info.frame_rate_hz
        return info

    def _read_back(self, link: Link) -> CameraInfo:
        """The description with what holds now of what `configure` may change."""
        info = self._info
        assert info is not None
        rate_hz = None if self._settings.trigger_source else options.frame_rate(link.nodes)
        return replace(info, exposure_us=options.exposure(link.nodes), frame_rate_hz=rate_hz or info.frame_rate_hz)

    def _configure(self, settings: dict[str, Any]) -> None:
        """All of it, or nothing."""
        nodes = self._opened().nodes
        before_us = options.exposure(nodes)
        if "exposure_us" in settings:
            options.set_exposure(nodes, settings["exposure_us"])
        if "frame_rate_hz" not in settings:
            return
        try:
            if self._settings.trigger_source:
                detail = f"frame_rate_hz: frames are triggered by {self._settings.trigger_source}"
                raise CameraError(CameraReason.BAD_SETTING, detail)
            options.set_frame_rate(nodes, settings["frame_rate_hz"])
        except CameraError:
            if "exposure_us" in settings and before_us is not None:
                options.set_exposure(nodes, before_us)
            raise


def _limits(link: Link, rate_hz: float, payload_bytes: int, asked_hz: float | None) -> list[str]:
    """What bounds the frame rate, as sentences. Raises `CameraError` (SLOW_PORT) when more was asked for."""
    notes = []
    speed_mbps = link.bootstrap.speed_mbps or link.device.found.speed_mbps
    if speed_mbps is not None and speed_mbps <= 480:
        most_hz = USB2_BYTES_PER_S * speed_mbps / 480 / payload_bytes
        told = f"the camera is on a USB 2 connection ({speed_mbps:g} Mbit/s): {most_hz:.0f} frames a second at most"
        if asked_hz is not None and asked_hz > most_hz:
            raise CameraError(CameraReason.SLOW_PORT, f"{told}, {asked_hz:g} were asked for")
        notes.append(told)
    limit = link.nodes.number("DeviceLinkThroughputLimit")
    if limit and link.nodes.get("DeviceLinkThroughputLimitMode") != "Off" and rate_hz * payload_bytes > 0.98 * limit:
        notes.append(f"the camera limits itself to {limit / 1e6:.0f} MB/s (DeviceLinkThroughputLimit)")
    return notes
