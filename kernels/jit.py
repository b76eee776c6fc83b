"""Compile options of every kernel, in one place: a kernel is decorated with ``@njit(**JIT)`` and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import event

JIT: dict[str, Any] = {
    "cache": True,  # compiled once per machine, at installation or first start
    "nogil": True,  # camera and HTTP threads run while pixels are summed
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},  # vector sums; NaN and infinity keep their meaning
    "error_model": "numpy",  # division by zero gives inf, as the masks' arithmetic expects
    "boundscheck": False,  # callers check shapes once at the door
}


@contextmanager
def compilations() -> Iterator[list[Any]]:
    """A list that stays empty unless a function is compiled meanwhile; one that the cache had does not count."""
    with event.install_recorder("numba:compile") as record:
        yield record.buffer
