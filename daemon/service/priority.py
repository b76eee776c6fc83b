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
