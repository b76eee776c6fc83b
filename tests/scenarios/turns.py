"""The event loop of a daemon that lives in turns: its poll is a wait of the schedule."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

from tests.scenarios.schedule import SCHEDULE, Task


class _Poll(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Nothing outside of the scenario ever becomes readable: timers and other threads' calls are all there is."""

    owner: Task | None = None
    called = False
    left_s = 0.0
    """When the loop last went on from its poll."""
    worst_s = 0.0
    """The longest that callbacks kept the loop from its poll: a blocking call in one of them, as their work takes no
    time here.
    """

    def select(self, timeout: float | None = None) -> list[Any]:
        self.worst_s = max(self.worst_s, SCHEDULE.now_s - self.left_s)
        if not self.called and (timeout is None or timeout > 0):
            self.owner = SCHEDULE.current
            SCHEDULE.wait(None if timeout is None else SCHEDULE.now_s + timeout)
        else:
            SCHEDULE.give_way()
        self.owner, self.called = None, False
        self.left_s = SCHEDULE.now_s
        return []


class Loop(asyncio.SelectorEventLoop):
    """`asyncio`'s own loop on the scenario's clock."""

    def __init__(self) -> None:
        self.poll = _Poll()
        self.poll.left_s = SCHEDULE.now_s
        super().__init__(self.poll)

    def time(self) -> float:
        return SCHEDULE.now_s

    def _write_to_self(self) -> None:
        self.poll.called = True
        if self.poll.owner is not None:
            SCHEDULE.wake(self.poll.owner)

    async def sendfile(self, *_: Any, **__: Any) -> int:
        raise NotImplementedError  # the server reads and writes pieces instead
