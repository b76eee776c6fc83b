"""Long work in slices: a generator that yields between them and returns its result.

What ends with a half takes a second or two for a thousand particles. Done a slice a frame, events of the frames
meanwhile are not kept waiting for it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
Sliced = Generator[None, None, T]


def completed(work: Sliced[T]) -> T:
    """The result, all slices at once."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: T = stop.value
            return result
