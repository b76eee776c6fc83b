"""What stands in for threads, locks and clocks, so that every wait of the product goes through the schedule.

`install` once, first of all in a process that does nothing but run scenarios: the product asks `time`, `threading` and
`queue` by name, and is not changed.
"""

from __future__ import annotations

import _thread
import datetime as real
import queue
import sys
import threading
import time
from typing import Any

from tests.scenarios.schedule import SCHEDULE, Task

GLANCE_S = 1e-7
"""What a look at the clock takes: who looks again and again until the time has come must see it come."""


class Lock:
    """`threading.Lock` in turns: whoever releases hands over to the one who waited longest."""

    def __init__(self) -> None:
        self._locked = False
        self._waiting: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not self._locked:
            self._locked = True
            return True
        if not blocking:
            return False
        task = SCHEDULE.current
        self._waiting.append(task)
        if SCHEDULE.wait(None if timeout < 0 else SCHEDULE.now_s + timeout):
            return True
        self._waiting.remove(task)
        return False

    def release(self) -> None:
        if not self._locked:
            raise RuntimeError("release unlocked lock")
        while self._waiting:
            task = self._waiting.pop(0)
            if task.life not in SCHEDULE.dead:
                SCHEDULE.wake(task)
                return
        self._locked = False

    def locked(self) -> bool:
        return self._locked

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self._locked = False
        self._waiting.clear()


class RLock:
    """`threading.RLock` in turns."""

    def __init__(self) -> None:
        self._block = Lock()
        self._owner: Task | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._owner is SCHEDULE.current:
            self._count += 1
            return True
        if not self._block.acquire(blocking, timeout):
            return False
        self._owner, self._count = SCHEDULE.current, 1
        return True

    def release(self) -> None:
        if self._owner is not SCHEDULE.current:
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._owner = None
            self._block.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _acquire_restore(self, state: tuple[int, Task]) -> None:
        self._block.acquire()
        self._count, self._owner = state

    def _release_save(self) -> tuple[int, Task | None]:
        state = self._count, self._owner
        self._count, self._owner = 0, None
        self._block.release()
        return state

    def _is_owned(self) -> bool:
        return self._owner is SCHEDULE.current

    def _at_fork_reinit(self) -> None:
        self._block._at_fork_reinit()
        self._owner, self._count = None, 0


class Thread(threading.Thread):
    """A real thread that runs in its turns only."""

    _task: Task | None = None

    def start(self) -> None:
        if self._task is not None:
            raise RuntimeError("threads can only be started once")
        self._task = SCHEDULE.spawn(self.name)
        threading._limbo[self] = self  # type: ignore[attr-defined]
        _thread.start_new_thread(self._in_turns, ())

    def _in_turns(self) -> None:
        assert self._task is not None
        SCHEDULE.begin(self._task)
        try:
            self._bootstrap()  # type: ignore[attr-defined]
        finally:
            SCHEDULE.end(self._task)

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.done

    def join(self, timeout: float | None = None) -> None:
        if self._task is None:
            raise RuntimeError("cannot join thread before it is started")
        SCHEDULE.join(self._task, None if timeout is None else SCHEDULE.now_s + timeout)


def sleep(seconds: float) -> None:
    """`time.sleep` in turns."""
    SCHEDULE.wait(SCHEDULE.now_s + max(0.0, seconds))


class _Kind(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, real.datetime)


class Datetime(real.datetime, metaclass=_Kind):
    """`datetime` whose present is the scenario's wall clock."""

    @classmethod
    def now(cls, tz: real.tzinfo | None = None) -> Any:
        return real.datetime.fromtimestamp(SCHEDULE.wall_s, tz)


def _clock_gettime(which: int) -> float:
    return SCHEDULE.wall_s if which == time.CLOCK_REALTIME else SCHEDULE.now_s


def install() -> None:
    """Put the stand-ins in place; the product's modules may be imported after this only."""
    assert "daemon.bootstrap" not in sys.modules and "concurrent.futures.thread" not in sys.modules
    threading._allocate_lock = threading.Lock = Lock  # type: ignore[attr-defined, misc, assignment]
    threading.RLock = RLock  # type: ignore[misc, assignment]
    threading._time = _monotonic  # type: ignore[attr-defined]
    threading.Thread = Thread  # type: ignore[misc]
    queue.SimpleQueue = queue._PySimpleQueue  # type: ignore[attr-defined, misc]
    queue.time = _monotonic  # type: ignore[attr-defined]
    time.monotonic, time.sleep = _monotonic, sleep
    time.monotonic_ns = lambda: round(1e9 * SCHEDULE.now_s)
    time.time = lambda: SCHEDULE.wall_s
    time.time_ns = lambda: round(1e9 * SCHEDULE.wall_s)
    time.clock_gettime = _clock_gettime


def redate() -> None:
    """After the product's modules are imported: their `datetime` asks the scenario's wall clock."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("daemon.", "hw.")) and vars(module).get("datetime") is real.datetime:
            module.datetime = Datetime  # type: ignore[attr-defined]


def _monotonic() -> float:
    SCHEDULE.now_s += GLANCE_S
    return SCHEDULE.now_s
