"""The kernel thread of the engine: takes frames from the ring, measures them, sends what it found."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from daemon.engine.acquisition import Acquisition, must_be_same
from daemon.engine.link import Message
from daemon.engine.pipeline import Pipeline
from daemon.engine.transfer import TransferSums
from daemon.engine.wire import batch_message, masks_order, measure_order, measured_camera
from daemon.errors import (
    CameraError,
    CameraReason,
    EngineError,
    EngineReason,
    InstrumentError,
    RunError,
    RunReason,
)
from daemon.service.memory import release_free_memory
from hw.camera.contract import CameraIdentity, FrameStamp
from kernels.unpack import unpack

HEARTBEAT_S = 0.25
TAKE_S = 0.05
REWIND_S = 2.0
PUT_S = 5.0


class Outbox:
    """Messages waiting for the link. Batches that find it full are dropped and counted in frames; replies wait."""

    def __init__(self, bound: int) -> None:
        self._queue: queue.Queue[Message | None] = queue.Queue(bound)
        self.dropped_frames = 0

    @property
    def depth(self) -> int:
        """Messages waiting."""
        return self._queue.qsize()

    def resize(self, bound: int) -> None:
        """Set the bound."""
        with self._queue.mutex:
            self._queue.maxsize = bound

    def put(self, message: Message | None) -> None:
        """Queue a message that must arrive (None ends the sender); waits for room, at most `PUT_S`."""
        try:
            self._queue.put(message, timeout=PUT_S)
        except queue.Full:
            raise EngineError(EngineReason.SILENT, "the daemon does not read what the engine sends") from None

    def put_batch(self, message: Message, frames: int) -> None:
        """Queue a batch of `frames` frames if there is room."""
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self.dropped_frames += frames

    def put_if_room(self, message: Message) -> None:
        """Queue a message that the next of its kind replaces."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(message)

    def get(self) -> Message | None:
        """The next message; blocks."""
        return self._queue.get()


class Capture:
    """Photon-transfer statistics of the next frames of one camera: a reference, a dark or a flat."""

    def __init__(self, frames: int, camera: CameraIdentity) -> None:
        self.left = frames
        """Frames still wanted."""
        self.camera = camera
        self._sums = TransferSums((camera.height_px, camera.width_px))

    def add(self, dn: np.ndarray) -> bool:
        """Add an (H, W) uint16 frame; True when the capture is complete."""
        self._sums.add(dn)
        self.left -= 1
        return self.left <= 0

    def result(self) -> dict[str, np.ndarray]:
        """`Transfer.arrays`: `mean_dn` and `variance_dn2`, (H, W) float32 (NaN from a single frame), and the rest."""
        return self._sums.result().arrays()


class Worker(threading.Thread):
    """Orders arrive by `order` and are carried out between frames, in this thread."""

    def __init__(self, acquisition: Acquisition, outbox: Outbox, batch_s: float) -> None:
        super().__init__(name="kernels")
        self._acquisition, self._outbox, self._batch_s = acquisition, outbox, batch_s
        self._orders: queue.Queue[Message] = queue.Queue(64)
        self._quit = threading.Event()
        self._pipeline: Pipeline | None = None
        self._capture: tuple[int, Capture] | None = None
        self._preview: int | None = None
        self._stream = 0
        self._ended_stream: int | None = None
        self._frame = np.empty((0, 0), np.uint16)
        self.measured = 0
        self.idle = 0
        self._busy_s = 0.0
        self._handlers: dict[str, Callable[[Message], None]] = {
            "measure": self._on_measure,
            "masks": self._on_masks,
            "finish": self._on_finish,
            "capture": self._on_capture,
            "abandon": self._on_abandon,
            "preview": self._on_preview,
        }

    def order(self, message: Message) -> None:
        """Queue an order; raises `EngineError` when 64 are waiting already."""
        try:
            self._orders.put_nowait(message)
        except queue.Full:
            raise EngineError(EngineReason.PROTOCOL, "too many orders are waiting") from None

    def recording_ended(self, stream: int) -> None:
        """This stream of the camera has no more frames: measure what waits, then say so unless it was rewound."""
        self._ended_stream = stream

    def quit(self) -> None:
        """Ask the thread to end; `join` it after."""
        self._quit.set()

    def run(self) -> None:
        """Measure until asked to quit."""
        next_beat = next_batch = time.monotonic()
        while not self._quit.is_set():
            self._obey()
            took = self._take_one()
            now = time.monotonic()
            if now >= next_batch:
                self._send_batch()
                next_batch = now + self._batch_s
            if now >= next_beat:
                self._outbox.put_if_room(Message("heartbeat", self.counters()))
                next_beat = now + HEARTBEAT_S
            if not took and self._ended_stream is not None:
                ended, self._ended_stream = self._ended_stream, None
                if ended >= self._stream:
                    self._end_recording()
        self._send_batch()

    def _end_recording(self) -> None:
        if self._capture is not None:
            request, capture = self._capture
            self._capture = None
            short = CameraError(
                CameraReason.ENDED, f"the recording is {capture.left} frames shorter than was asked for"
            )
            self._refuse(request, short)
        self._send_batch()
        self._outbox.put(Message("ended"))

    def _take_one(self) -> bool:
        """Measure the oldest waiting frame; False when none came within a moment."""
        ring = self._acquisition.ring
        if ring is None:
            self._quit.wait(TAKE_S)
            return False
        item = ring.take(TAKE_S)
        if item is None:
            return False
        number, stamp, stream = item
        started = time.monotonic()
        try:
            if stream >= self._stream:
                self._use(ring.slot(number), stamp, ring.camera)
            else:
                self.idle += 1  # taken before the camera was started for what is wanted now
        finally:
            ring.release(number)
        self._busy_s += time.monotonic() - started
        return True

    def counters(self) -> dict[str, Any]:
        """Frame accounting since the engine began: captured = measured + idle + dropped + in_flight."""
        acquisition = self._acquisition
        dropped = dict(acquisition.dropped)
        if self._outbox.dropped_frames:
            dropped["link.full"] = self._outbox.dropped_frames
        ring = acquisition.ring
        depth = ring.depth if ring is not None else 0
        return {
            "captured": acquisition.captured,
            "measured": self.measured,
            "idle": self.idle,
            "dropped": dropped,
            "ring_depth": depth,
            "ring_bound": ring.slots if ring is not None else 0,
            "link_depth": self._outbox.depth,
            "remedies": acquisition.remedies,
            "busy_s": self._busy_s,
            "last_frame_host_t_s": acquisition.last_host_t_s,
            "cpu_s": time.process_time(),
        }

    def _unpacked(self, payload: np.ndarray, camera: CameraIdentity | None) -> np.ndarray:
        """(H, W) uint16 pixels, valid until the next call: what is shown and averaged; a run reads payloads itself."""
        assert camera is not None  # the acquisition's rings name theirs
        if self._frame.shape != (camera.height_px, camera.width_px):
            self._frame = np.empty((camera.height_px, camera.width_px), np.uint16)
        unpack(payload, camera.pixel_format.value, self._frame)
        return self._frame

    def _use(self, payload: np.ndarray, stamp: FrameStamp, camera: CameraIdentity | None) -> None:
        if self._preview is not None:
            self._send_preview(self._preview, self._unpacked(payload, camera), stamp)
            self._preview = None
        if self._capture is not None:
            self._add_to_capture(*self._capture, payload, camera)
        if self._pipeline is None:
            self.idle += 1
            return
        self._pipeline.add(payload, stamp)
        self.measured += 1

    def _add_to_capture(
        self, request: int, capture: Capture, payload: np.ndarray, camera: CameraIdentity | None
    ) -> None:
        try:
            assert camera is not None
            must_be_same(capture.camera, camera)
            if not capture.add(self._unpacked(payload, camera)):
                return
            self._outbox.put(Message("reply", {"request": request}, capture.result()))
        except CameraError as error:
            self._refuse(request, error)
        self._capture = None

    def _send_preview(self, request: int, image: np.ndarray, stamp: FrameStamp) -> None:
        frame = self._pipeline.next_frame if self._pipeline is not None else -1
        drift_y, drift_x = self._pipeline.drift_px if self._pipeline is not None else (0.0, 0.0)
        fields = {
            "request": request, "frame": frame, "host_t_s": stamp.host_t_s, "drift_y_px": drift_y, "drift_x_px":
            drift_x, }  # fmt: skip
        self._outbox.put_if_room(Message("reply", fields, {"image": image.copy()}))

    def _send_batch(self) -> None:
        batch = self._pipeline.take() if self._pipeline is not None else None
        if batch is not None:
            self._outbox.put_batch(batch_message(batch), len(batch))

    def _obey(self) -> None:
        while True:
            try:
                message = self._orders.get_nowait()
            except queue.Empty:
                return
            try:
                self._handlers[message.kind](message)
            except InstrumentError as error:
                self._refuse(message.fields["request"], error)

    def _on_measure(self, message: Message) -> None:
        self._acquisition.expect(measured_camera(message))
        pipeline = Pipeline(**measure_order(message))
        release_free_memory()
        if message.fields["rewind"]:  # last: no frame of the run is lost while its pipeline is being built
            self._stream = self._acquisition.rewind(REWIND_S)
        self._pipeline = pipeline
        self._reply(message)

    def _on_masks(self, message: Message) -> None:
        """Send what the old masks measured, go on by the new ones; the reply names their first frame."""
        if self._pipeline is None:
            raise RunError(RunReason.NOT_RUNNING, "the engine is not measuring")
        self._send_batch()
        self._pipeline = self._pipeline.with_masks(**masks_order(message))
        self._reply(message, from_frame=self._pipeline.next_frame)

    def _on_finish(self, message: Message) -> None:
        if self._pipeline is not None:
            self._pipeline.close_baseline()
        self._send_batch()
        self._pipeline = None
        self._acquisition.expect(None)
        self._reply(message)

    def _on_capture(self, message: Message) -> None:
        """One capture at a time, and none during a run: each restarts the camera."""
        if self._pipeline is not None:
            raise RunError(RunReason.BUSY, "a run is being measured, and taking other frames restarts the camera")
        if self._capture is not None:
            raise EngineError(
                EngineReason.BUSY, f"{self._capture[1].left} frames for another purpose are still to come"
            )
        info = self._acquisition.info
        if info is None:
            raise EngineError(EngineReason.SILENT, "there is no camera to take frames from")
        self._stream = self._acquisition.rewind(REWIND_S)
        self._capture = (message.fields["request"], Capture(message.fields["frames"], info.identity))

    def _on_abandon(self, message: Message) -> None:
        """Nobody waits for this capture any more; it is not answered."""
        if self._capture is not None and self._capture[0] == message.fields["request"]:
            self._capture = None

    def _on_preview(self, message: Message) -> None:
        self._preview = message.fields["request"]

    def _refuse(self, request: int, error: InstrumentError) -> None:
        fields = {"request": request, "code": error.code, "detail": error.detail, "remedy": error.remedy}
        self._outbox.put(Message("reply", fields))

    def _reply(self, message: Message, **fields: Any) -> None:
        self._outbox.put(Message("reply", {"request": message.fields["request"], **fields}))
