"""The camera thread: keeps the camera open and streaming, fills the ring, counts what is lost."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from daemon.engine.ring import SCRATCH, FrameRing
from hw.camera import DRIVERS
from hw.camera.contract import Camera, CameraIdentity, CameraInfo, FrameStamp
from hw.drivers import build_driver
from hw.errors import CameraError, CameraReason, InstrumentError

POLL_S = 0.25  # how soon a stop or a setting is noticed while no frame comes
SETTLE_S = 10.0  # memory of a backlog is kept this long: another often follows
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 8.0  # a hub reset takes about 8 s; asking more often only fills the log
REMEDIES = ("clear", "restart", "reset")
"""What drivers call the steps by which they mend a camera, in their `counts`."""


class Acquisition(threading.Thread):
    """Owns the camera. `report(kind, fields)` is told of every change of the camera's state, from this thread.

    `settings` are those that an earlier engine was asked for: they hold for every camera that is opened.

    After a fault it tries again for ever, at growing intervals, and says so each time. After the end of a recording it
    waits to be rewound.
    """

    def __init__(
        self,
        driver: str,
        options: dict[str, Any],
        ring_frames: int,
        frame_deadline_s: float,
        report: Callable[[str, dict[str, Any]], None],
        settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name="camera")
        self._driver, self._options = driver, options
        self._ring_frames = ring_frames
        self._deadline_s = frame_deadline_s
        self._report = report
        self._quit = threading.Event()
        self._rewind = threading.Event()
        self._rewound = threading.Event()
        self.stream = 0
        """How often the camera was started; frames in the ring carry it."""
        self._asked = dict(settings or {})
        """What the camera was set to while it ran."""
        self._settings: dict[str, Any] = {}
        self._settings_lock = threading.Lock()
        self._settings_error: CameraError | None = None
        self._settings_done = threading.Event()
        self.info: CameraInfo | None = None
        self.ring: FrameRing | None = None
        self._expected: CameraIdentity | None = None
        self._admission = threading.Lock()
        """What is expected, and what is there: changed one at a time."""
        self.captured = 0
        self.dropped: Counter[str] = Counter()
        self.last_host_t_s = float("nan")
        self._lent: set[int] = set()
        self._counts: tuple[Counter[str], Mapping[str, int]] = (Counter(), {})
        """Of cameras that were closed, and of the open one; replaced as a whole, as other threads read it."""

    @property
    def remedies(self) -> dict[str, int]:
        """How often the driver tried each step to mend its camera. Any thread."""
        before, now = self._counts
        return {name: before[name] + now.get(name, 0) for name in REMEDIES}

    def quit(self) -> None:
        """Ask the thread to end; `join` it after."""
        self._quit.set()

    def rewind(self, timeout_s: float) -> int:
        """Stop and start the camera, so that a recording begins anew; gives the new stream's number. Any thread's call.

        Raises `CameraError` (STALLED) when there is no camera to start within the time.
        """
        self._rewound.clear()
        self._rewind.set()
        if not self._rewound.wait(timeout_s):
            self._rewind.clear()
            raise CameraError(CameraReason.STALLED, f"the camera did not start within {timeout_s:g} s")
        return self.stream

    def expect(self, camera: CameraIdentity | None) -> None:
        """Refuse every other camera from now on: a run measures this one. None: take any. Any thread's call.

        Raises `CameraError` (CHANGED) when the one that was opened last is another.
        """
        with self._admission:
            if camera is not None and self.info is not None:
                must_be_same(camera, self.info.identity)
            self._expected = camera

    def configure(self, settings: dict[str, Any], timeout_s: float) -> CameraInfo:
        """Apply camera settings from another thread; they hold for cameras that are opened later, too. What the camera
        says of itself then. Raises `CameraError`.
        """
        rate_hz = settings.get("frame_rate_hz", math.inf)
        if isinstance(rate_hz, int | float) and 0 < rate_hz * self._deadline_s < 1:  # it would be lost again and again
            detail = f"frame_rate_hz = {rate_hz:g}: frames must not be further apart than {self._deadline_s:g} s"
            raise CameraError(CameraReason.BAD_SETTING, f"{detail} (camera.frame_deadline_s)")
        with self._settings_lock:
            self._settings_done.clear()
            self._settings_error = None
            self._settings = dict(settings)
            if not self._settings_done.wait(timeout_s):
                self._settings = {}
                raise CameraError(CameraReason.STALLED, "the camera did not take the setting in time")
            if self._settings_error is not None:
                raise self._settings_error
            assert self.info is not None  # it was open to be set
            return self.info

    def run(self) -> None:
        """Open, stream, and begin again after a fault, until asked to quit."""
        backoff_s = BACKOFF_FIRST_S
        while not self._quit.is_set():
            streamed_from = self.captured
            error = self._attempt()
            if error is None:
                return
            if error.reason is CameraReason.ENDED:
                self._report("ended", {"detail": error.detail})
                self._wait_for_rewind()
                continue
            self._report("lost", {"reason": error.code, "detail": error.detail, "remedy": error.remedy})
            backoff_s = BACKOFF_FIRST_S if self.captured > streamed_from else min(2 * backoff_s, BACKOFF_MAX_S)
            self._quit.wait(backoff_s)

    def _wait_for_rewind(self) -> None:
        while not self._quit.is_set() and not self._rewind.is_set():
            self._quit.wait(POLL_S / 5)

    def _attempt(self) -> InstrumentError | None:
        """One life of the camera; the error that ended it, or None when asked to quit."""
        camera: Camera | None = None
        try:
            camera = build_driver(DRIVERS, self._driver, self._options)
            self._counts = (self._counts[0], getattr(camera, "counts", {}))
            ring = self._admit(self._as_asked(camera, camera.open()))
            self._start(camera)
            self._report("open", {})
            self._stream(camera, ring)
        except InstrumentError as error:
            return error
        finally:
            if camera is not None:
                camera.close()
                self._reclaim(camera)
                self._counts = (Counter(self.remedies), {})
        return None

    def _as_asked(self, camera: Camera, info: CameraInfo) -> CameraInfo:
        """An opened camera set to what was asked for; what it refuses is noted, and not asked for again."""
        if not self._asked:
            return info
        try:
            return camera.configure(self._asked)
        except CameraError as error:
            if error.reason is not CameraReason.BAD_SETTING:
                raise
            self._asked = {}
            return replace(info, notes=(*info.notes, f"settings made while it ran hold no more: {error.detail}"))

    def _admit(self, info: CameraInfo) -> FrameRing:
        """The ring for the frames of a camera that was opened. Raises `CameraError` (CHANGED)."""
        with self._admission:
            if self._expected is not None:
                must_be_same(self._expected, info.identity)
            self.info, ring = info, self.ring
            if ring is None or ring.camera != info.identity:
                if ring is not None and (left := ring.abandon()):
                    self.dropped["camera.changed"] += left
                size = info.pixel_format.payload_bytes(info.height_px, info.width_px)
                self.ring = ring = FrameRing(self._ring_frames, size, info.identity)
            return ring

    def _lend(self, camera: Camera, ring: FrameRing) -> None:
        """As many slots as the camera wants; the scratch slot when it would have none."""
        while len(self._lent) < camera.queue_frames and (number := ring.lease()) is not None:
            self._lent.add(number)
            camera.lend(number, ring.slot(number))
        if not self._lent:
            self._lent.add(SCRATCH)
            camera.lend(SCRATCH, ring.slot(SCRATCH))

    def _reclaim(self, camera: Camera) -> None:
        """Slots the camera lets go of go back; one it cannot let go of (a transfer that does not end) is out of use."""
        for number in camera.reclaim():
            self._lent.discard(number)
            if number != SCRATCH and self.ring is not None:
                self.ring.release(number)
        self._lent.clear()

    def _start(self, camera: Camera) -> None:
        camera.start()
        self.stream += 1
        if self._rewind.is_set():
            self._rewind.clear()
            self._rewound.set()

    def _stream(self, camera: Camera, ring: FrameRing) -> None:
        silent_s = 0.0
        last_block: int | None = None
        settle_s = time.monotonic() + SETTLE_S
        while not self._quit.is_set():
            self._apply_settings(camera)
            if time.monotonic() >= settle_s:
                settle_s = time.monotonic() + SETTLE_S
                ring.settle(camera.queue_frames)
            if self._rewind.is_set():
                camera.stop()
                self._reclaim(camera)
                self._start(camera)
                last_block = None
            self._lend(camera, ring)
            taken = camera.take(POLL_S)
            if taken is None:
                silent_s += POLL_S
                if silent_s >= self._deadline_s:
                    raise CameraError(CameraReason.STALLED, f"no frame for {silent_s:.1f} s")
                continue
            number, stamp = taken
            self._lent.discard(number)
            silent_s = 0.0
            self._count(stamp, last_block, kept=number != SCRATCH)
            last_block = stamp.block_id
            if number != SCRATCH:
                ring.commit(number, stamp, self.stream)

    def _count(self, stamp: FrameStamp, last_block: int | None, *, kept: bool) -> None:
        lost = max(0, stamp.block_id - last_block - 1) if last_block is not None else 0
        self.captured += 1 + lost
        self.last_host_t_s = stamp.host_t_s
        if lost:
            self.dropped["camera.lost"] += lost
        if not kept:
            self.dropped["ring.full"] += 1

    def _apply_settings(self, camera: Camera) -> None:
        if not self._settings:
            return
        settings, self._settings = self._settings, {}
        try:
            self.info = camera.configure(settings)
            self._asked |= settings
        except CameraError as error:
            self._settings_error = error
        self._settings_done.set()


def must_be_same(expected: CameraIdentity, found: CameraIdentity) -> None:
    """Raises `CameraError` (CHANGED): what began with one camera goes on with no other."""
    if differences := expected.differences(found):
        raise CameraError(CameraReason.CHANGED, f"not the camera or format that it began with: {differences}")
