"""The writer's thread: gathers operations, commits them together, survives what the disk does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from daemon.errors import RunError, RunReason, StoreError, StoreReason
from daemon.store.assemble import ChunkAssembler, EncodedChunk, encode_chunk
from daemon.store.queue import Op, OpQueue
from daemon.store.rows import insert_chunk, replace_rows
from daemon.store.session import OpenFile, Session

GATHER_SHARE = 0.8  # of the commit interval; the rest is for compressing and for the disk
MIN_COMMIT_GAP_S = 0.02  # urgent commits: at most 50 syncs a second, and still far below what a person notices
RETRY_PAUSES_S = (0.05, 0.25)  # another program's short lock, a clean-up in progress; longer would only fill the queue
REMAKE_AGAIN_S = 60.0  # a disk that damages every catalogue must not keep the thread from the run
IDLE_S = 0.5  # how often an idle thread shows that it is alive
DISK_REASONS = (StoreReason.DISK_FULL, StoreReason.NOT_WRITABLE, StoreReason.CORRUPT)

logger = logging.getLogger(__name__)


class LossLedger:
    """Frames that did not reach the disk, by reason, until they are recorded as drop rows. Any thread."""

    def __init__(self) -> None:
        self.total_frames = 0
        self._lost: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def add(self, reason: str, frames: int, t_s: float) -> None:
        """`frames` frames from run time `t_s` on are lost."""
        with self._lock:
            count, first_t_s = self._lost.get(reason, (0, t_s))
            self._lost[reason] = (count + frames, first_t_s)
            self.total_frames += frames

    @property
    def waiting(self) -> bool:
        """Something is not recorded yet."""
        return bool(self._lost)

    def take(self) -> list[dict[str, Any]]:
        """Rows for `drops`, given out once; `give_back` them when they could not be written."""
        with self._lock:
            lost, self._lost = self._lost, {}
        return [{"stage": "store", "reason": r, "count": count, "t_s": t_s} for r, (count, t_s) in lost.items()]

    def give_back(self, rows: list[dict[str, Any]]) -> None:
        """Rows of `take` that were not written."""
        with self._lock:
            for row in rows:
                count, first_t_s = self._lost.get(row["reason"], (0, row["t_s"]))
                self._lost[row["reason"]] = (count + row["count"], min(first_t_s, row["t_s"]))


@dataclass
class Counters:
    """What the thread has done; written by the thread, read by anyone."""

    commits: int = 0
    failed_commits: int = 0
    failed_operations: int = 0
    chunk_bytes: int = 0
    stored_frames: int = 0
    last_commit_took_s: float = 0.0
    progress_s: float = 0.0
    """Monotonic time of the thread's last sign of life."""
    wal_bytes: int = 0
    fault: StoreError | None = None
    """Why the last commit failed; None after a good one."""


class WriteLoop:
    """What runs in the thread. Owns `session`; everything else reaches it through `queue`."""

    def __init__(
        self, queue: OpQueue, session: Session, commit_interval_s: float, on_fault: Callable[[StoreError], None] | None
    ) -> None:
        self.queue = queue
        self.session = session
        self.losses = LossLedger()
        self.counters = Counters()
        self._gather_s = GATHER_SHARE * commit_interval_s
        self._on_fault = on_fault
        self._assembler = ChunkAssembler()
        self._pending: list[Op] = []
        self._pending_since_s = 0.0
        self._batches_since_s = 0.0
        self._last_commit_s = 0.0
        self._urgent = False
        self._remade_s = -REMAKE_AGAIN_S

    def run(self) -> None:
        """Until the queue is closed and drained; then everything is committed and every file closed."""
        try:
            while not self.queue.drained:
                self._turn()
            self._commit(whole=True)
        finally:
            self._close()

    def _turn(self) -> None:
        op = self.queue.take(self._due_in_s())
        self.counters.progress_s = time.monotonic()
        if op is not None:
            self._accept(op)
        if self._due_in_s() > 0:
            return
        if self._urgent:  # before the chunk is encoded
            self._commit(whole=False)
        if self._due_in_s() <= 0:
            self._commit(whole=self._batches_due())

    def _accept(self, op: Op) -> None:
        if op.control is not None:
            self._commit(whole=True)
            self._control(op)
        elif op.batch is not None:
            if not self._assembler.fits(op.batch):
                self._seal()
            self._batches_since_s = self._batches_since_s if self._assembler.batches else op.submitted_s
            self._assembler.add(op.batch, op)
        else:
            self._append(op)

    def _append(self, op: Op) -> None:
        self._pending_since_s = self._pending_since_s if self._pending else op.submitted_s
        self._urgent |= op.urgent
        self._pending.append(op)

    def _seal(self) -> None:
        """Encode what the assembler holds into one operation."""
        batches, ops = self._assembler.take()
        if not batches:
            return
        merged = Op("chunk", nbytes=0, members=ops, submitted_s=ops[0].submitted_s)
        try:
            chunk = encode_chunk(batches)
        except Exception as error:  # noqa: BLE001 - the waiters get it, and the frames are counted as lost
            merged.error = error
            self._settle([merged])
            return
        merged.run = partial(store_chunk, chunk)
        self._append(merged)

    def _due_in_s(self) -> float:
        """Seconds until something must be committed; at most `IDLE_S`."""
        due_s = now_s = time.monotonic()
        due_s += IDLE_S
        if self._assembler.batches:
            due_s = min(due_s, self._batches_since_s + self._gather_s)
        if self._pending:
            due_s = min(due_s, self._pending_since_s + self._gather_s)
        if self._urgent:
            due_s = min(due_s, self._last_commit_s + MIN_COMMIT_GAP_S)
        if self.queue.pressed and (self._pending or self._assembler.batches):
            due_s = now_s
        return due_s - now_s

    def _batches_due(self) -> bool:
        """Batches wait for the interval's end even when rows are committed earlier, so that chunks stay large."""
        age_s = time.monotonic() - self._batches_since_s
        return self.queue.pressed or age_s >= self._gather_s

    def _commit(self, whole: bool) -> None:
        """Everything pending, with the waiting batches when `whole`, into the catalogue and then into the run."""
        if whole:
            self._seal()
        ops, self._pending, self._urgent = self._pending, [], False
        if not ops and not (whole and self.losses.waiting):
            return
        began_s = time.monotonic()
        if self._write_all(ops):
            self.counters.commits += 1
            self.counters.fault = None
        self._last_commit_s = time.monotonic()
        self.counters.last_commit_took_s = self._last_commit_s - began_s
        self._settle(ops)

    def _write_all(self, ops: list[Op]) -> bool:
        """The catalogue first: it numbers events, and a number must never be given twice."""
        written = self._write(self.session.catalogue, [op for op in ops if op.catalogue], "catalogue")
        ready = [op for op in ops if op.run and not op.error and (op.needs_run or self.session.run)]
        return self._write(self.session.run, ready, "run") and written

    def _write(self, file: OpenFile | None, ops: list[Op], which: str) -> bool:
        if file is None:
            for op in ops:
                op.error = _not_open(op, which)
            return True
        rows = self.losses.take() if which == "run" else []
        if not ops and not rows:
            return True
        ledger = Op("drops", run=lambda session: insert_drops(session, rows))
        steps = [(op, partial(getattr(op, which), self.session)) for op in (*ops, *([ledger] if rows else []))]
        try:
            self._execute(file, steps)
        except StoreError as error:
            self.losses.give_back(rows)
            for op in ops:
                op.error = error
            self._failed(error)
            if error.reason is StoreReason.CORRUPT:
                self._damaged(file, error)
            return False
        self._checkpoint(file)
        return True

    def _damaged(self, file: OpenFile, error: StoreError) -> None:
        """A damaged run is set aside when it is closed, a damaged catalogue is made again at once."""
        if file is self.session.run:
            self.session.damage = error
            return
        now_s = time.monotonic()
        if now_s - self._remade_s < REMAKE_AGAIN_S:
            return
        self._remade_s = now_s
        try:
            self.session.renew_catalogue(error)
        except StoreError as failure:
            self._report(failure)

    def _execute(self, file: OpenFile, steps: Sequence[tuple[Op, Callable[[], Any]]]) -> None:
        for pause_s in RETRY_PAUSES_S:
            try:
                return file.execute(steps)
            except StoreError as error:
                if error.reason is StoreReason.CORRUPT:
                    raise
                logger.warning("writing again in %.2f s: %s", pause_s, error.detail)
                time.sleep(pause_s)
        return file.execute(steps)

    def _checkpoint(self, file: OpenFile) -> None:
        try:
            file.checkpoint_when_large()
            self.counters.wal_bytes = sum(each.wal_bytes() for each in self.session.files)
        except StoreError as error:  # what was committed is safe in the log; the next commit tries again
            self._report(error)

    def _settle(self, ops: list[Op]) -> None:
        """Count, give back the room, then tell the waiters."""
        for op in ops:
            frames = [member.batch.frames for member in op.members if member.batch]
            if op.error is None:
                self.counters.stored_frames += sum(frames)
                self.counters.chunk_bytes += op.result if frames else 0
            else:
                self._lost(op, sum(frames))
        self.queue.done(ops)
        for op in ops:
            op.resolve()

    def _lost(self, op: Op, frames: int) -> None:
        self.counters.failed_operations += 1
        logger.error("the store could not write '%s': %s", op.what, op.error)
        if frames:
            first = op.members[0].batch
            assert first is not None
            reason = op.error.code if isinstance(op.error, StoreError) else "store.refused"
            self.losses.add(reason, frames, float(first.frame_columns["t_s"][0]))

    def _control(self, op: Op) -> None:
        assert op.control is not None
        try:
            op.result = op.control(self.session)
        except Exception as error:  # noqa: BLE001 - the waiter gets it
            op.error = error
            self.counters.failed_operations += 1
            if isinstance(error, StoreError) and error.reason in DISK_REASONS:
                self._failed(error)
        self.losses.take()  # one run's losses have no place in the next one's file
        self.queue.done([op])
        op.resolve()

    def _failed(self, error: StoreError) -> None:
        self.counters.failed_commits += 1
        before, self.counters.fault = self.counters.fault, error
        if before is None or before.reason is not error.reason:
            self._report(error)

    def _report(self, error: StoreError) -> None:
        logger.error("%s", error)
        if self._on_fault is None:
            return
        try:
            self._on_fault(error)
        except Exception:
            logger.exception("the receiver of store faults failed")

    def _close(self) -> None:
        for close in (self.session.close_run, self.session.close_catalogue):
            try:
                close()
            except StoreError as error:
                self._report(error)
        for op in self.queue.abandon():
            op.error = StoreError(StoreReason.STOPPED, f"the store stopped before '{op.what}' was written")
            op.resolve()


def store_chunk(chunk: EncodedChunk, session: Session) -> int:
    """Into the open run; returns the bytes of its blobs."""
    assert session.run is not None
    return insert_chunk(session.run.conn, chunk)


def insert_drops(session: Session, rows: list[dict[str, Any]]) -> None:
    """Rows for the open run's `drops`."""
    assert session.run is not None
    replace_rows(session.run.conn, "drops", ("stage", "reason", "count", "t_s"), rows)


def _not_open(op: Op, which: str) -> Exception:
    if which == "run":
        return RunError(RunReason.NOT_RUNNING, f"no run file is open, so '{op.what}' has no place")
    return ValueError(f"'{op.what}' needs a catalogue, and this writer has none")
