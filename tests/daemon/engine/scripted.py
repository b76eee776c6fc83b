"""A camera that does what a script says, and a wait with a deadline, for the engine's tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from daemon.engine.acquisition import Acquisition
from hw.camera.contract import Camera, CameraInfo, FrameStamp, PixelFormat
from hw.errors import CameraError, CameraReason

HEIGHT, WIDTH = 8, 10
Step = int | CameraError | Exception
"""A block id delivers a frame filled with it, an exception is raised."""


def wait_until(condition: Callable[[], Any], timeout_s: float = 5.0) -> Any:
    """Poll until `condition()` gives something true; that, or an AssertionError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.002)
    raise AssertionError(f"not within {timeout_s:g} s")


@dataclass
class Life:
    """What one opened camera does: its frames and faults in order, then silence, or the end when `ends`."""

    steps: Iterable[Step] = ()
    again: Iterable[Step] | None = None
    """What it does after being started once more; the same when None."""
    open_error: CameraError | None = None
    start_error: CameraError | None = None
    ends: bool = False
    shape: tuple[int, int] = (HEIGHT, WIDTH)
    serial: str = "1"
    pixel_format: PixelFormat = PixelFormat.MONO8
    interval_s: float = 0.0
    queue_frames: int = 1


@dataclass
class Script:
    """The lives of a camera, one an `open`; the last repeats. What was asked of it is kept."""

    lives: list[Life]
    opened_s: list[float] = field(default_factory=list)
    starts: int = 0
    closes: int = 0
    settings: list[dict[str, Any]] = field(default_factory=list)
    refuse: CameraError | None = None

    def camera(self, *_: Any) -> Camera:
        """The next one, in place of a driver from the table."""
        return ScriptedCamera(self)


class ScriptedCamera(Camera):
    """Plays one life of its script; each start begins the life's steps anew."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._steps: list[Step] = []
        self._started = False

    def open(self) -> CameraInfo:
        script = self._script
        self._life = script.lives[min(len(script.opened_s), len(script.lives) - 1)]
        script.opened_s.append(time.monotonic())
        self.queue_frames = self._life.queue_frames
        if self._life.open_error is not None:
            raise self._life.open_error
        life = self._life
        self._info = CameraInfo("scripted", life.serial, *life.shape, life.pixel_format, 100.0)
        return self._info

    def start(self) -> None:
        if self._life.start_error is not None:
            raise self._life.start_error
        self._script.starts += 1
        life = self._life
        self._steps = list(life.steps if life.again is None or not self._started else life.again)
        self._started = True

    def next_frame(self, slot: np.ndarray, timeout_s: float) -> FrameStamp | None:
        if self._life.interval_s:
            time.sleep(self._life.interval_s)
        if not self._steps:
            if self._life.ends:
                raise CameraError(CameraReason.ENDED, "no more frames")
            time.sleep(timeout_s)
            return None
        step = self._steps.pop(0)
        if isinstance(step, Exception):
            raise step
        slot[:] = step % 256
        return FrameStamp(step, step * 0.01, time.monotonic())

    def stop(self) -> None:
        self._steps = []

    def close(self) -> None:
        self._script.closes += 1

    def configure(self, settings: dict[str, Any]) -> CameraInfo:
        if self._script.refuse is not None:
            raise self._script.refuse
        self._script.settings.append(dict(settings))
        self._info = replace(self._info, **settings)
        return self._info


class Running:
    """An acquisition over a script, with everything it reported; a context manager that ends it."""

    def __init__(self, ring_frames: int = 16, deadline_s: float = 5.0, settings: dict[str, Any] | None = None) -> None:
        self.reports: list[tuple[str, dict[str, Any]]] = []
        self.acquisition = Acquisition(
            "scripted", {}, ring_frames, deadline_s, lambda kind, fields: self.reports.append((kind, fields)), settings
        )

    def __enter__(self) -> Running:
        self.acquisition.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.acquisition.quit()
        self.acquisition.join(5.0)
        assert not self.acquisition.is_alive()

    def kinds(self) -> list[str]:
        """What was reported so far."""
        return [kind for kind, _ in self.reports]

    def reasons(self) -> list[str]:
        """Reasons of the losses reported so far."""
        return [fields["reason"] for kind, fields in self.reports if kind == "lost"]

    def take(self, count: int) -> list[tuple[int, int, int]]:
        """(block id, first byte, stream) of the next `count` frames; their slots are given back."""
        ring = wait_until(lambda: self.acquisition.ring)
        found = []
        while len(found) < count:
            item = ring.take(5.0)
            assert item is not None, f"only {len(found)} frames came"
            number, stamp, stream = item
            found.append((stamp.block_id, int(ring.slot(number)[0]), stream))
            ring.release(number)
        return found
