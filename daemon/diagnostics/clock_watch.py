"""Noticing that somebody set the wall clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime


def wall_time_s() -> float:
    """The wall clock, POSIX seconds."""
    return datetime.now(UTC).timestamp()


class ClockWatch:
    """Compares the wall clock with one that nobody can set, and tells steps.

    `on_step(step_s)` is called on the event loop when their difference changed by more than `threshold_s` within
    `period_s`, positive when the wall clock jumped forward. Slewing (at most 0.5 ms a second by NTP) never adds up to
    a step. The reference is `CLOCK_BOOTTIME`: the monotonic clock plus the time the machine was suspended. A suspend
    moves it and the wall clock alike and so is no step, as it would be against `time.monotonic()`; only what the
    real-time clock's resolution costs on waking can be told, and then the wall clock was indeed set by that much.
    """

    def __init__(
        self,
        on_step: Callable[[float], None],
        threshold_s: float = 0.5,
        period_s: float = 1.0,
        *,
        wall_s: Callable[[], float] = wall_time_s,
    ) -> None:
        self._on_step = on_step
        self._threshold_s = threshold_s
        self._period_s = period_s
        self._wall_s = wall_s
        self._task: asyncio.Task[None] | None = None
        self.steps = 0
        self.moved_s = 0.0
        """Sum of all steps."""

    async def start(self) -> None:
        """Begin to watch."""
        if self._task is None:
            self._task = asyncio.create_task(self._watch(self._difference_s()), name="clock-watch")

    async def stop(self) -> None:
        """Stop watching; idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _watch(self, before_s: float | None) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            now_s = self._difference_s()
            if now_s is None:
                continue
            if before_s is not None and abs(now_s - before_s) > self._threshold_s:
                self.steps += 1
                self.moved_s += now_s - before_s
                self._on_step(now_s - before_s)
            before_s = now_s

    def _difference_s(self) -> float | None:
        """Wall clock minus reference; None when the process was held up between the readings for too long to tell."""
        earlier_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        wall_s = self._wall_s()
        later_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        return None if later_s - earlier_s > self._threshold_s / 2 else wall_s - (earlier_s + later_s) / 2
