"""Processes that give way: what is not the measurement runs when the measurement does not want the processor."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import psutil

FRAMES_FIRST = 10
LAST = 19


def give_way(niceness: int, *, idle_disk: bool = False) -> None:
    """Lower the priority of this process, with `idle_disk` also at the disk. What a hardened unit forbids is left."""
    steps: list[Callable[[], object]] = [lambda: os.nice(niceness)]
    if idle_disk:
        steps.append(lambda: psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE))
    for step in steps:
        with suppress(psutil.Error, OSError, ValueError):
            step()


def few_threads() -> dict[str, str]:
    """The environment of a child: parallelism is ours, by process and thread; few arenas, as threads share buffers."""
    few = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    return {**os.environ, **few}
