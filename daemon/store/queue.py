"""What waits for the writer: operations, and the bounded queue that holds them until they are committed."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from daemon.errors import StoreError, StoreReason
from daemon.store.assemble import FrameBatch
from daemon.store.session import Session

DENSE_SHARE = 0.75  # of the queue for dense frames; the rest is kept for rows and events
PRESSURE_SHARE = 0.5  # of the queue: commit at once rather than at the interval's end

Step = Callable[[Session], Any]


@dataclass(eq=False)
class Op:
    """One submitted write. Exactly one of `control`, `batch` or the two steps says what to do."""

    what: str
    catalogue: Step | None = None
    run: Step | None = None
    needs_run: bool = True
    """Without an open run the run step is an error; otherwise it is left out."""
    control: Step | None = None
    """Done alone, after everything before it is committed."""
    batch: FrameBatch | None = None
    urgent: bool = False
    nbytes: int = 256
    members: list[Op] = field(default_factory=list)
    """Operations that were merged into this one and share its outcome."""
    future: Future[Any] = field(default_factory=Future)
    submitted_s: float = field(default_factory=time.monotonic)
    result: Any = None
    error: BaseException | None = None

    def resolve(self) -> None:
        """Hand the outcome to whoever waits, merged operations included."""
        for op in (self, *self.members):
            if op.future.done():
                continue
            if self.error is not None:
                op.future.set_exception(self.error)
            else:
                op.future.set_result(self.result)


class OpQueue:
    """Bounded by count and bytes of all operations not yet done: waiting, taken, or being committed."""

    def __init__(self, max_ops: int, max_bytes: int) -> None:
        self.max_ops = max_ops
        self.max_bytes = max_bytes
        self._waiting: deque[Op] = deque()
        self._outstanding: dict[Op, None] = {}
        self._nbytes = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def depth(self) -> tuple[int, int]:
        """Operations and bytes not yet done."""
        return len(self._outstanding), self._nbytes

    @property
    def drained(self) -> bool:
        """Closed, and nothing left to take."""
        return self._closed and not self._waiting

    @property
    def pressed(self) -> bool:
        """So full that waiting for the interval's end would cost data, or closed."""
        ops, nbytes = self.depth
        return self._closed or ops > PRESSURE_SHARE * self.max_ops or nbytes > PRESSURE_SHARE * self.max_bytes

    def oldest_s(self) -> float | None:
        """When (monotonic) the oldest operation not yet done was submitted."""
        with self._changed:
            return next((op.submitted_s for op in self._outstanding), None)

    def put(self, op: Op, wait_s: float) -> None:
        """Queue `op`, waiting up to `wait_s` for room. Raises `StoreError` OVERLOADED or STOPPED."""
        op.future.set_running_or_notify_cancel()  # accepted work is done; an impatient waiter cannot undo it
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self._fits(op), wait_s):
                detail = f"the store's queue is full ({len(self._outstanding)} operations, {self._nbytes >> 20} MB)"
                raise StoreError(StoreReason.OVERLOADED, f"{detail}; '{op.what}' was refused")
            if self._closed:
                raise StoreError(StoreReason.STOPPED, f"the store is stopped; '{op.what}' was refused")
            self._waiting.append(op)
            self._outstanding[op] = None
            self._nbytes += op.nbytes
            self._changed.notify_all()

    def take(self, timeout_s: float) -> Op | None:
        """The next operation, or None when none came in time or the queue is drained. One taker only."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, max(timeout_s, 0.0))
            return self._waiting.popleft() if self._waiting else None

    def done(self, ops: list[Op]) -> None:
        """Give back the room of `ops` and of what was merged into them."""
        with self._changed:
            for op in ops:
                for one in (op, *op.members):
                    if one in self._outstanding:
                        del self._outstanding[one]
                        self._nbytes -= one.nbytes
            self._changed.notify_all()

    def close(self) -> None:
        """Refuse everything from now on; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> list[Op]:
        """Close, and give up everything not yet done."""
        with self._changed:
            self._closed = True
            given_up = list(self._outstanding)
            self._waiting.clear()
            self._outstanding.clear()
            self._nbytes = 0
            self._changed.notify_all()
            return given_up

    def _fits(self, op: Op) -> bool:
        share = DENSE_SHARE if op.batch is not None else 1.0
        room = len(self._outstanding) < share * self.max_ops and self._nbytes + op.nbytes <= share * self.max_bytes
        return room or not self._outstanding
