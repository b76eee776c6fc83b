"""When the frames of a simulated camera are there, and which of them a late host still finds."""

from __future__ import annotations

import math
import time

IMAGE_BUFFER_MB = 128.0
"""Memory of a USB3 camera of this class for frames that the host has not fetched (FLIR Grasshopper3: 128 MB)."""


class Shutter:
    """Frame n is read out (n + 1) frame times after `start`; the last `buffered` of them wait for a late host.

    `longest_s`: how old a frame may be that is drawn only when it is fetched.
    """

    def __init__(self, frame_rate_hz: float, buffer_mb: float, payload_bytes: int, longest_s: float = math.inf) -> None:
        self._rate_hz = frame_rate_hz
        self._most = int(buffer_mb * 1e6 / payload_bytes)
        self._longest_s = longest_s
        self._start_s = 0.0
        self._next = 0

    @property
    def buffered(self) -> int:
        """Frames that the camera keeps."""
        return max(1, int(min(self._most, self._longest_s * self._rate_hz)))

    @property
    def frame_rate_hz(self) -> float:
        """May be changed at any time; block ids and times go on."""
        return self._rate_hz

    @frame_rate_hz.setter
    def frame_rate_hz(self, rate_hz: float) -> None:
        passed_s = self._start_s + self._next / self._rate_hz
        self._rate_hz = rate_hz
        self._start_s = passed_s - self._next / rate_hz

    def start(self) -> None:
        """Frame 0 is exposed now."""
        self._start_s, self._next = time.monotonic(), 0

    def next(self, deadline_s: float) -> tuple[int, float] | None:
        """(block id, `time.monotonic()` at which it was read out) of the next frame; waits for it.

        None at `deadline_s` when it is not there by then. Frames beyond the buffer are lost: the block id skips them.
        """
        now_s = time.monotonic()
        due_s = self._start_s + (self._next + 1) / self._rate_hz
        lost = int((now_s - due_s) * self._rate_hz) + 1 - self.buffered  # `int` cuts towards 0: none before its time
        if lost > 0:
            self._next += lost
            due_s = self._start_s + (self._next + 1) / self._rate_hz
        if due_s > deadline_s:
            time.sleep(max(deadline_s - now_s, 0.0))
            return None
        time.sleep(max(due_s - now_s, 0.0))
        self._next += 1
        return self._next - 1, due_s
