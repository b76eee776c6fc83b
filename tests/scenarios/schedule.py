"""Threads that take turns on a clock of their own: one runs at a time, and time passes only while all of them wait.

Every thread of the process is a real one, but it holds the baton while it runs and hands it on where it would wait: at
a lock, a condition, a queue, a sleep, the event loop's poll. When nobody is ready to run, the clock jumps to the
earliest deadline. So the same calls give the same order of threads and the same times, however loaded the machine is,
and a day without work costs nothing.
"""

from __future__ import annotations

import _thread
import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

BOOTED_S = 1000.0
"""The monotonic clock where it begins."""
UTC_S = 1_790_000_000.0
"""The wall clock where it begins."""
LEAST_S = 1e-6  # a wait for the rounding error of a deadline takes time too, as it would on any machine
SPIN_TURNS = 200_000  # turns without any time passing: a loop that waits for nothing


class Stuck(Exception):
    """Every thread waits and none has a deadline, or they run on without end while no time passes."""


def _nothing() -> None:
    pass


@dataclass(eq=False)
class Task:
    """One thread's place in the order."""

    name: str
    life: int
    """Which start of the daemon it belongs to; 0 for the scenario's own."""
    baton: Any = field(default_factory=_thread.allocate_lock)
    ticket: int = 0
    """Counts its waits: a deadline of an earlier wait means nothing."""
    waiting: bool = False
    woken: bool = False
    done: bool = False
    joiners: list[Task] = field(default_factory=list)
    wakes: Callable[[], None] = _nothing


class Schedule:
    """Who runs, who waits for what until when, and what time it is."""

    def __init__(self) -> None:
        self.now_s = BOOTED_S
        self.wall_step_s = 0.0
        """Sum of all steps of the wall clock."""
        self.main = self.current = Task("scenario", 0)
        self.main.baton.acquire()
        self.tasks: list[Task] = [self.main]
        self.life = 0
        """Threads started from now on belong to this start of the daemon, unless their starter belongs to one."""
        self.dead: set[int] = set()
        """Starts that were killed: their threads never run again."""
        self.rng: random.Random | None = None
        """Chooses among threads that are ready; None: first come, first served."""
        self.turns = 0
        self._ready: deque[Task] = deque()
        self._deadlines: list[tuple[float, int, Task, int]] = []
        self._count = 0
        self._spun = 0

    @property
    def wall_s(self) -> float:
        """The wall clock, POSIX seconds."""
        return UTC_S + (self.now_s - BOOTED_S) + self.wall_step_s

    def wait(self, until_s: float | None) -> bool:
        """Hand the baton on until `wake` or `until_s` of the monotonic clock; whether it was `wake`."""
        task = self.current
        task.ticket += 1
        task.waiting, task.woken = True, False
        if until_s is not None:
            self._count += 1
            until_s = max(until_s, self.now_s + LEAST_S)
            heapq.heappush(self._deadlines, (until_s, self._count, task, task.ticket))
        self._hand_on(task)
        return task.woken

    def wake(self, task: Task) -> None:
        """Let `task` go on; nothing when it does not wait."""
        if task.waiting:
            task.waiting, task.woken = False, True
            self._ready.append(task)

    def give_way(self) -> None:
        """Let everyone run who is ready, then go on."""
        if self._ready:
            self._ready.append(self.current)
            self._hand_on(self.current)

    def spawn(self, name: str) -> Task:
        """A place for a new thread, which begins with `begin`."""
        task = Task(name, self.current.life or self.life)
        task.baton.acquire()
        self.tasks.append(task)
        self._ready.append(task)
        return task

    def begin(self, task: Task) -> None:
        """In the new thread: wait for the first turn."""
        task.baton.acquire()

    def end(self, task: Task) -> None:
        """In the thread that ends: hand the baton on for good."""
        task.done = True
        self.tasks.remove(task)
        for joiner in task.joiners:
            self.wake(joiner)
        self._pass_to(self._next())

    def join(self, task: Task, until_s: float | None) -> None:
        """Wait for the end of `task`."""
        while not task.done:
            task.joiners.append(self.current)
            woken = self.wait(until_s)
            task.joiners.remove(self.current)
            if not woken:
                return

    def alive(self, life: int) -> list[str]:
        """Names of the threads of one start of the daemon."""
        return sorted(task.name for task in self.tasks if task.life == life)

    def kill(self, life: int) -> None:
        """No thread of this start runs ever again, whatever it was doing: SIGKILL."""
        self.dead.add(life)
        self.tasks = [task for task in self.tasks if task.life != life]

    def _hand_on(self, task: Task) -> None:
        following = self._next()
        if following is not task:
            self._pass_to(following)
            task.baton.acquire()
        wakes, task.wakes = task.wakes, _nothing
        wakes()

    def _pass_to(self, task: Task) -> None:
        self.current = task
        task.baton.release()

    def _next(self) -> Task:
        self.turns += 1
        self._spun += 1
        if self._spun > SPIN_TURNS:
            self._spun = 0
            return self._blame(f"{SPIN_TURNS} turns without any time passing, the last by '{self.current.name}'")
        while self._ready:
            place = self.rng.randrange(len(self._ready)) if self.rng is not None and len(self._ready) > 1 else 0
            task = self._ready[place]
            del self._ready[place]
            if task.life not in self.dead:
                return task
        while self._deadlines:
            until_s, _, task, ticket = heapq.heappop(self._deadlines)
            if task.ticket == ticket and task.waiting and task.life not in self.dead:
                if until_s > self.now_s:
                    self.now_s, self._spun = until_s, 0
                task.waiting = False
                return task
        return self._blame("every thread waits, and none has a deadline")

    def _blame(self, what: str) -> Task:
        waiting = ", ".join(f"{task.name} ({task.life})" for task in self.tasks)
        self.main.wakes = _raising(f"{what}; threads: {waiting}")
        self.main.waiting = False
        return self.main


def _raising(what: str) -> Callable[[], None]:
    def wakes() -> None:
        raise Stuck(what)

    return wakes


SCHEDULE = Schedule()
"""The process's only one: it stands in for what the process has one of, the interpreter's threads and clocks."""
