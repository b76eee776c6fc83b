"""A camera that plays a recording back: the frames, the times and the gaps of the file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hw.camera.contract import Camera, CameraInfo, FrameStamp
from hw.errors import CameraError, CameraReason, RecordingError
from hw.recording import Recording, open_recording

_BLOCK_BYTES = 4 << 20  # read within a frame interval, so that a live replay keeps its pace


class ReplaySettings(BaseModel):
    """What to play, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    """An HDF5 or TIFF recording."""
    speed: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Seconds of recording a second; 0 plays as fast as frames are asked for."""
    loop: bool = False
    """Begin again at the end, with times going on."""
    overrides: dict[str, Any] = {}
    """Values in place of the recording's own, e.g. `pixel_size_nm`."""


class ReplayCamera(Camera):
    """The camera contract over a recording. Block ids are the recording's: gaps in them are lost frames."""

    Settings = ReplaySettings

    def __init__(self, settings: ReplaySettings) -> None:
        self._settings = settings
        self._recording: Recording | None = None
        self._frames: Iterator[tuple[int, int, np.ndarray]] | None = None
        self._waiting: tuple[int, int, np.ndarray] | None = None
        self._started_s = 0.0

    def open(self) -> CameraInfo:
        """Open the file. Raises `CameraError` with the recording's own reason."""
        self.close()
        try:
            self._recording = open_recording(self._settings.path, self._settings.overrides)
        except RecordingError as error:
            raise CameraError(error.reason, error.detail) from error
        return self._recording.info

    def start(self) -> None:
        """Begin at the first frame; the pace counts from now."""
        if self._recording is None:
            raise CameraError(CameraReason.NOT_FOUND, f"the recording '{self._settings.path}' is not open")
        self._frames = _played(self._recording, self._settings.loop)
        self._waiting = None
        self._started_s = time.monotonic()

    def next_frame(self, slot: np.ndarray, timeout_s: float) -> FrameStamp | None:
        """The next frame once its time has come; a late caller loses none, and catches up."""
        deadline_s = time.monotonic() + timeout_s
        loop, index, frame = self._peek()
        recording = self._recording
        assert recording is not None
        t_s = float(recording.t_s[index]) + loop * recording.period_s
        if not self._wait_until_due(t_s, deadline_s):
            return None
        payload = frame.reshape(-1).view(np.uint8)
        slot[: len(payload)] = payload
        self._waiting = None
        block_id = int(recording.block_id[index]) + loop * int(recording.block_id[-1] - recording.block_id[0] + 1)
        return FrameStamp(block_id, t_s, time.monotonic())

    def _peek(self) -> tuple[int, int, np.ndarray]:
        """(round, index, frame) of the next frame, kept until it is delivered."""
        if self._frames is None:
            raise CameraError(CameraReason.NOT_FOUND, f"the replay of '{self._settings.path}' is not started")
        if self._waiting is None:
            try:
                self._waiting = next(self._frames, None)
            except RecordingError as error:
                raise CameraError(error.reason, error.detail) from error
        if self._waiting is None:
            raise CameraError(CameraReason.ENDED, f"the recording '{self._settings.path}' has no more frames")
        return self._waiting

    def _wait_until_due(self, t_s: float, deadline_s: float) -> bool:
        if self._settings.speed == 0:
            return True
        due_s = self._started_s + t_s / self._settings.speed
        pause_s = min(due_s, deadline_s) - time.monotonic()
        if pause_s > 0:
            time.sleep(pause_s)
        return due_s <= deadline_s

    def stop(self) -> None:
        """Stop playing; idempotent."""
        self._frames = None
        self._waiting = None

    def close(self) -> None:
        """Close the file; idempotent."""
        self.stop()
        if self._recording is not None:
            self._recording.close()
            self._recording = None


def _played(recording: Recording, loop: bool) -> Iterator[tuple[int, int, np.ndarray]]:
    """(round, index, frame) in order; a round of which no frame can be read ends the play."""
    frame_bytes = recording.info.height_px * recording.info.width_px * recording.dtype.itemsize
    size = max(1, _BLOCK_BYTES // frame_bytes)
    played, rounds = 1, 0
    while played and (rounds == 0 or loop):
        played = 0
        for first, block in recording.blocks(frames=size):
            played += len(block)
            for i, frame in enumerate(block):
                yield rounds, first + i, frame
        rounds += 1
