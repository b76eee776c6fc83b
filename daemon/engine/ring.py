"""Frame slots between the camera thread and the kernels: leased, filled, taken, released; never overwritten."""

from __future__ import annotations

import mmap
import threading
from collections import deque

import numpy as np

from hw.camera.contract import CameraIdentity, FrameStamp

HOT = 4  # slots in use at once without a backlog: one being filled, one being read, and some to spare
SCRATCH = -1  # number of the slot for frames that find no other


class FrameRing:
    """`slots` frames of `payload_bytes`, all of one `camera`. One producer, one consumer.

    The slot released last is leased first: memory that was never needed is never touched, and what a backlog needed is
    given back by `settle`.

    Bound: the number of slots. Policy at the bound: `lease` gives None, and the producer counts the frame as dropped.
    What it receives then goes to one slot more, `SCRATCH`, which nobody reads.
    """

    def __init__(self, slots: int, payload_bytes: int, camera: CameraIdentity | None = None) -> None:
        self.camera = camera
        self._stride = -(-payload_bytes // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages, so that a slot can go back
        self._slots = slots
        self._memory = mmap.mmap(-1, (slots + 1) * self._stride, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._buffer = np.frombuffer(self._memory, np.uint8).reshape(slots + 1, self._stride)[:, :payload_bytes]
        self._free = list(range(slots))
        self._touched = 0
        self._filled: deque[tuple[int, FrameStamp, int]] = deque()
        self._condition = threading.Condition()

    @property
    def slots(self) -> int:
        """The bound."""
        return self._slots

    @property
    def depth(self) -> int:
        """Frames waiting for the consumer."""
        return len(self._filled)

    def lease(self) -> int | None:
        """A slot to fill; None when all are in use."""
        with self._condition:
            self._touched = max(self._touched, self.slots - len(self._free) + 1)
            return self._free.pop() if self._free else None

    def slot(self, number: int) -> np.ndarray:
        """The slot's bytes, (payload_bytes,) uint8; it begins a page of memory."""
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

    def abandon(self) -> int:
        """No frame that waits will be taken any more; how many those are."""
        with self._condition:
            left = len(self._filled)
            self._filled.clear()
        return left

    def settle(self, lent: int = 1) -> None:
        """After a backlog is worked off, give its memory back to the system. The producer's call.

        `lent`: slots that its camera fills at a time.
        """
        hot = HOT - 1 + lent
        with self._condition:
            used = self.slots - len(self._free)
            if self._touched <= hot or used > hot:
                return
            self._touched = used
            keep = max(0, len(self._free) - (hot - used))
            cold, self._free = self._free[:keep], self._free[keep:]
        for number in cold:  # outside the lock: 64 large frames take some milliseconds
            self._memory.madvise(mmap.MADV_DONTNEED, number * self._stride, self._stride)
        with self._condition:
            self._free = cold + self._free
