"""When the emulated sensor reads out frames, and which of them the camera's memory still holds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Exposure:
    """A frame that was read out at host time `due_s` after `exposure_s` of light."""

    block_id: int
    due_s: float
    exposure_s: float
    lines: int
    """State of the input lines when it began."""


class Exposures:
    """Free running with `period_s`, or one frame a trigger. Frames beyond `buffered` are lost: block ids have gaps."""

    def __init__(self, buffered: int, first_block_id: int) -> None:
        self._buffered, self._first = buffered, first_block_id
        self.period_s = 0.01
        self.exposure_s = 0.0
        self.triggered = False
        self.lines = 0
        self.lost = 0
        self.missed_triggers = 0
        self._waiting: deque[Exposure] = deque()
        self._next_s: float | None = None
        self._left: int | None = 0
        self._block = first_block_id
        self._busy_until_s = 0.0

    @property
    def running(self) -> bool:
        """Between start and stop, or until the frames asked for were taken."""
        return self._left is None or self._left > 0

    def start(self, now_s: float, frames: int | None) -> None:
        """Expose from now on; `frames`: how many, None without end. Block ids start anew."""
        self._waiting.clear()
        self._block, self._left, self._busy_until_s = self._first, frames, 0.0
        self._next_s = None if self.triggered else now_s + max(self.period_s, self.exposure_s)

    def stop(self) -> None:
        """No more frames; what waits is forgotten."""
        self._waiting.clear()
        self._next_s, self._left = None, 0

    def trigger(self, now_s: float, delay_s: float) -> None:
        """Expose one frame. A trigger within the frame before it is missed."""
        if not self.running or not self.triggered:
            return
        begin_s = now_s + delay_s
        if begin_s < self._busy_until_s:
            self.missed_triggers += 1
            return
        self._busy_until_s = begin_s + self.period_s
        self._push(begin_s + self.exposure_s)

    def forget(self, now_s: float) -> None:
        """Nobody wants what was read out until now."""
        self.advance(now_s)
        self.lost += len(self._waiting)
        self._waiting.clear()

    def skip(self, frames: int) -> None:
        """Lose the next frames on their way: block ids go on without them."""
        self._block += frames
        self.lost += frames

    def advance(self, now_s: float) -> None:
        """Take all frames that are due."""
        if self.triggered or not self.running:
            self._next_s = None
            return
        if self._next_s is None:  # a trigger was switched off
            self._next_s = now_s + self.period_s
        if now_s < self._next_s:
            return
        late = int((now_s - self._next_s) / self.period_s)
        if self._left is None and late > self._buffered:  # nobody asked for long: no need to count one by one
            self.skip(late - self._buffered)
            self._next_s += (late - self._buffered) * self.period_s
        while self._next_s is not None and self._next_s <= now_s and self.running:
            self._push(self._next_s)
            self._next_s += self.period_s

    def _push(self, due_s: float) -> None:
        self._waiting.append(Exposure(self._block, due_s, self.exposure_s, self.lines))
        self._block += 1
        if self._left is not None:
            self._left -= 1
        if len(self._waiting) > self._buffered:
            self._waiting.popleft()
            self.lost += 1

    def take(self, now_s: float) -> Exposure | None:
        """The oldest frame that was read out by now."""
        self.advance(now_s)
        if self._waiting and self._waiting[0].due_s <= now_s:
            return self._waiting.popleft()
        return None

    def due_s(self) -> float | None:
        """When the next frame is there; None while that depends on a trigger."""
        return self._waiting[0].due_s if self._waiting else self._next_s
