"""Frame slots between the camera thread and the kernels: leased, filled, taken, released; never overwritten."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from hw.camera.contract import FrameStamp


class FrameRing:
    """`slots` frames of `payload_bytes`. One producer, one consumer.

    The slot released last is leased first: memory that was never needed is never touched.

    Bound: the number of slots. Policy at the bound: `lease` gives None, and the producer counts the frame as dropped.
    """

    def __init__(self, slots: int, payload_bytes: int) -> None:
        self._buffer = np.zeros((slots, payload_bytes), np.uint8)
        self._free = list(range(slots))
        self._filled: deque[tuple[int, FrameStamp, int]] = deque()
        self._condition = threading.Condition()

    @property
    def slots(self) -> int:
        """The bound."""
        return len(self._buffer)

    @property
    def depth(self) -> int:
        """Frames waiting for the consumer."""
        return len(self._filled)

    def lease(self) -> int | None:
        """A slot to fill; None when all are in use."""
        with self._condition:
            return self._free.pop() if self._free else None

    def slot(self, number: int) -> np.ndarray:
        """The slot's bytes, (payload_bytes,) uint8."""
        return self._buffer[number]

    def commit(self, number: int, stamp: FrameStamp, stream: int = 0) -> None:
        """Hand a filled slot to the consumer; `stream` counts the camera's starts."""
        with self._condition:
            self._filled.append((number, stamp, stream))
            self._condition.notify()

    def release(self, number: int) -> None:
        """Give a slot back, filled or not."""
        with self._condition:
            self._free.append(number)

    def take(self, timeout_s: float) -> tuple[int, FrameStamp, int] | None:
        """The oldest filled slot, its stamp and its stream; None when none came in time."""
        with self._condition:
            if not self._filled:
                self._condition.wait(timeout_s)
            return self._filled.popleft() if self._filled else None
