"""The files the writer's thread has open for writing, and transactions on them."""

from __future__ import annotations

import bisect
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from daemon.errors import StoreError
from daemon.store.aside import set_aside
from daemon.store.faults import is_environment, translated
from daemon.store.proof import prove_again
from daemon.store.schema import CATALOGUE, FileKind, finish_file, open_writing, wal_path
from daemon.store.sqlite import Database

CHECKPOINT_WAL_BYTES = 4 << 20  # SQLite's own default of 1000 pages
WAL_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24


class Outcome(Protocol):
    """Where a step's result or failure goes."""

    result: Any
    error: BaseException | None


class OpenFile:
    """One database open for writing; only the writer's thread uses it."""

    def __init__(self, path: Path, db: Database) -> None:
        self.path = path
        self.db = db

    @classmethod
    def open(cls, path: Path, kind: FileKind, *, create: bool) -> OpenFile:
        """Raises `StoreError`."""
        return cls(path, open_writing(path, kind, create=create))

    @property
    def conn(self) -> sqlite3.Connection:
        """The connection, for statements inside `execute`'s steps."""
        return self.db.conn

    def execute(self, steps: Sequence[tuple[Outcome, Callable[[], Any]]]) -> None:
        """Every step in one durable transaction. One that fails by its own fault is undone alone.

        Its error is kept in its outcome. Raises `StoreError` when disk or file is at fault; then nothing is
        kept of the transaction.
        """
        with translated(self.path, "cannot write to"), self.writing():
            for outcome, step in steps:
                outcome.error = None
                self._step(outcome, step)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction that waits for another writer at once: one that has read already would not wait."""
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.conn.execute("COMMIT")
        except BaseException:
            self.db.rollback()
            raise

    def _step(self, outcome: Outcome, step: Callable[[], Any]) -> None:
        try:
            with self.db.atomic():
                outcome.result = step()
        except sqlite3.Error as error:
            if is_environment(error):
                raise
            outcome.error = error
        except Exception as error:  # noqa: BLE001 - the waiter gets it; one bad row must not stop the others
            outcome.error = error

    def wal_bytes(self) -> int:
        """Size of the write-ahead log."""
        try:
            return wal_path(self.path).stat().st_size
        except FileNotFoundError:
            return 0

    def checkpoint_when_large(self) -> None:
        """Move committed pages to the main file once the log holds many; readers may delay it, never fail it."""
        with translated(self.path, "cannot checkpoint"):
            if self.wal_bytes() > CHECKPOINT_WAL_BYTES and used_bytes(wal_path(self.path)) > CHECKPOINT_WAL_BYTES:
                self.db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def finish(self) -> None:
        """Everything into the main file, then close. Raises `StoreError`; the file is closed in any case."""
        try:
            with translated(self.path, "cannot finish"):
                finish_file(self.db)
        finally:
            self.db.close()


def used_bytes(wal: Path) -> int:
    """How much of a log its present round has filled; the file keeps the size of its largest round.

    Frames of the round bear the salts of the header (https://www.sqlite.org/fileformat2.html#walformat), and are the
    first ones. SQLite locks nothing in this file, so that it may be opened and closed beside it. Raises `OSError`.
    """
    with wal.open("rb", buffering=0) as file:
        header = file.read(WAL_HEADER_BYTES)
        if len(header) < WAL_HEADER_BYTES:
            return 0
        frame_bytes = FRAME_HEADER_BYTES + int.from_bytes(header[8:12], "big")
        frames = (wal.stat().st_size - WAL_HEADER_BYTES) // frame_bytes

        def is_old(frame: int) -> bool:
            return os.pread(file.fileno(), 8, WAL_HEADER_BYTES + frame * frame_bytes + 8) != header[16:24]

        return WAL_HEADER_BYTES + bisect.bisect_left(range(frames), True, key=is_old) * frame_bytes


@dataclass
class Session:
    """What the writer has open: the catalogue, if any, and at most one run."""

    catalogue: OpenFile | None = None
    run: OpenFile | None = None
    run_id: str = ""
    damage: StoreError | None = None
    """What SQLite found in the open run's file."""

    @property
    def state_dir(self) -> Path:
        """Folder that paths in the catalogue are relative to."""
        assert self.catalogue is not None
        return self.catalogue.path.parent

    @property
    def files(self) -> list[OpenFile]:
        """Everything open."""
        return [file for file in (self.catalogue, self.run) if file is not None]

    def close_run(self) -> None:
        """Finish the run file, if one is open; a damaged one is set aside whole.

        Raises `StoreError`; no run is open afterwards in any case.
        """
        run, run_id, damage = self.run, self.run_id, self.damage
        self.run, self.run_id, self.damage = None, "", None
        if run is None:
            return
        if damage is None:
            return run.finish()
        run.db.close()
        self.set_aside(run_id, run.path, damage)

    def set_aside(self, run_id: str, path: Path, damage: StoreError) -> Path:
        """Keep a damaged run's file, which nobody has open, under another name; the catalogue says so."""
        aside = set_aside(path)
        if self.catalogue is not None:
            catalogue = self.catalogue
            change = "update runs set path = ?, reason = ?, detail = ? where run_id = ?"
            where = str(aside.relative_to(self.state_dir) if aside.is_relative_to(self.state_dir) else aside)
            detail = f"{damage.detail}; the file is kept as {aside.name}"
            with translated(catalogue.path, "cannot write to"), catalogue.writing():
                catalogue.conn.execute(change, (where, damage.code, detail, run_id))
                prove_again(catalogue.conn, "runs", "run_id = ?", (run_id,))
        return aside

    def renew_catalogue(self, damage: StoreError) -> None:
        """Set the damaged catalogue aside and make it again from the run files. Raises `StoreError`."""
        from daemon.store.recovery import remake

        assert self.catalogue is not None
        path = self.catalogue.path
        self.catalogue.db.close()
        remake(path, damage)
        self.catalogue = OpenFile.open(path, CATALOGUE, create=False)

    def close_catalogue(self) -> None:
        """Like `close_run`, for the catalogue; it stays in WAL mode, as readers may hold it."""
        catalogue, self.catalogue = self.catalogue, None
        if catalogue is not None:
            try:
                with translated(catalogue.path, "cannot finish"):
                    catalogue.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                catalogue.db.close()
