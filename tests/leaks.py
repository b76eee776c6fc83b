"""What a test may not leave behind: asyncio tasks, threads, child processes and file descriptors."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

SETTLE_S = 2.0  # a pool thread told to end needs a moment on a loaded machine
ALLOWED_THREADS = ("pytest_timeout", "execnet", "Dummy-")
"""Beginnings of the names of threads that belong to the test runner or to a library's own pool."""
ALLOWED_TARGETS = ("/dev/null", "/dev/urandom", "/dev/random", "/proc/", "/sys/")
"""Beginnings of file descriptor targets that libraries open once and keep."""


@dataclass(frozen=True)
class Snapshot:
    """What the process holds: threads by identity, descriptors by number and target, children by pid."""

    threads: frozenset[threading.Thread]
    descriptors: frozenset[tuple[int, str]]
    children: frozenset[int]

    @classmethod
    def take(cls) -> Snapshot:
        """The state now."""
        return cls(frozenset(_threads()), frozenset(_descriptors()), frozenset(_children()))


def _threads() -> Iterable[threading.Thread]:
    return (thread for thread in threading.enumerate() if not thread.name.startswith(ALLOWED_THREADS))


def _descriptors() -> Iterable[tuple[int, str]]:
    tracker = getattr(resource_tracker._resource_tracker, "_fd", None)  # one a process, kept for good
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:  # the directory's own descriptor
            continue
        if int(entry) != tracker and not target.startswith(ALLOWED_TARGETS):
            yield int(entry), target


def _children() -> Iterable[int]:
    tracker = getattr(resource_tracker._resource_tracker, "_pid", None)
    for task in Path("/proc/self/task").iterdir():
        try:
            pids = (task / "children").read_text().split()
        except FileNotFoundError:  # the thread ended meanwhile, or the kernel has no such file
            continue
        yield from (int(pid) for pid in pids if int(pid) != tracker)


def leaks_since(before: Snapshot) -> list[str]:
    """One sentence a thing that outlived the test; waits a moment for what is on its way out."""
    deadline_s = time.monotonic() + SETTLE_S
    found = _compare(before, Snapshot.take())
    if found:
        gc.collect()  # objects in cycles close what they hold when collected: no leak
    while found and time.monotonic() < deadline_s:
        time.sleep(0.02)
        found = _compare(before, Snapshot.take())
    return found


def _compare(before: Snapshot, after: Snapshot) -> list[str]:
    threads = [
        f"thread '{thread.name}' is still running ({'daemon' if thread.daemon else 'non-daemon'}): join it in stop()"
        for thread in after.threads - before.threads
    ]
    descriptors = [
        f"file descriptor {number} is still open on {target}: close it in stop() or close()"
        for number, target in sorted(after.descriptors - before.descriptors)
    ]
    children = [
        f"child process {pid} ({_command(pid)}) was not ended and waited for"
        for pid in sorted(after.children - before.children)
    ]
    return threads + descriptors + children


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()[:200] or "zombie"
    except OSError:
        return "gone"


def recording_cancel(record: list[str], cancel_all: Callable[..., None]) -> Callable[..., None]:
    """`asyncio.runners._cancel_all_tasks`, noting in `record` which tasks were alive when their loop was closed."""

    def cancel(loop: asyncio.AbstractEventLoop) -> None:
        for task in asyncio.all_tasks(loop):
            coroutine = task.get_coro()
            if type(coroutine).__name__ != "async_generator_athrow":  # the loop itself closes a dropped generator
                where = getattr(coroutine, "__qualname__", repr(coroutine))
                record.append(f"task '{task.get_name()}' ({where}) was still running when its loop closed: cancel it")
        cancel_all(loop)

    return cancel
