"""One database or file into another place: whole, durable, read back, or not there at all."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from daemon.errors import StoreError, StoreReason
from daemon.store.faults import primary_code
from daemon.store.schema import FileKind, open_reading, wal_path

PIECE_BYTES = 1 << 20
PAGES_A_STEP = 256  # 1 MB, as long as the writer's own chunk of a second: its commit never waits for more
JOURNAL_MODES = slice(18, 20)  # of the database header: read and write version, 2 with a write-ahead log

Advance = Callable[[int], None]
"""Called with the bytes copied since the last call; raises to give up."""


@dataclass(frozen=True)
class Copied:
    """A file as it now is in its new place."""

    sha256: str
    size_bytes: int


def copy_store_file(source: Path, target: Path, kind: FileKind, advance: Advance, *, gentle: bool) -> Copied:
    """Copy a database to `target`, which must not exist: byte by byte when nobody writes it, else by SQLite's backup.

    Bytes, so that a damaged file stays what it is and its check sums go on telling. With `gentle` half the time is
    rest, so that a run beside it keeps its disk. The copy is synced and read back. For a process that has no connection
    to `source`: it would lose its locks (`daemon/store/held.py`). Raises `StoreError`: BACKUP_FULL, BACKUP_FAILED,
    BACKUP_DAMAGED when it reads back otherwise, CORRUPT when an online copy meets damage; and whatever `advance`
    raises. Nothing is left at `target` then.
    """
    rest = _rest if gentle else _no_rest
    try:
        state = _state(source)
        written = _copy_bytes(source, target, advance, rest) if state else None
        if written is None or _state(source) != state:  # somebody writes it
            target.unlink(missing_ok=True)
            _copy_online(source, target, kind, advance, rest)
            return _hashed(target, rest)
        if _hashed(target, rest) != written:
            raise StoreError(StoreReason.BACKUP_DAMAGED, f"'{target}' reads back otherwise than it was written")
        return written
    except BaseException as error:
        with suppress(OSError):
            target.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise copy_error(error, target) from error
        raise


def _state(source: Path) -> tuple[int, int] | None:
    """Size and time of change of a database without a log; None of one with a log."""
    if wal_path(source).exists():
        return None
    found = source.stat()
    return found.st_size, found.st_mtime_ns


def copy_plain(source: Path, target: Path, advance: Advance) -> Copied:
    """Copy any file byte by byte, synced and read back. Raises `OSError`, and whatever `advance` raises."""
    _copy_bytes(source, target, advance, _no_rest)
    return _hashed(target, _no_rest)


def copy_error(error: OSError, target: Path) -> StoreError:
    """What the file system said about `target`."""
    import errno

    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = StoreReason.BACKUP_FULL if full else StoreReason.BACKUP_FAILED
    return StoreError(reason, f"cannot write '{target}': {error.strerror or error}")


def sync_folder(folder: Path) -> None:
    """Make new, renamed and removed names in a folder durable. Raises `OSError`."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _no_rest(took_s: float) -> None:
    pass


def _rest(took_s: float) -> None:
    time.sleep(min(took_s, 1.0))


def _copy_bytes(source: Path, target: Path, advance: Advance, rest: Callable[[float], None]) -> Copied:
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reader, target.open("xb") as writer:
        began_s = time.monotonic()
        while piece := reader.read(PIECE_BYTES):
            writer.write(piece)
            digest.update(piece)
            size += len(piece)
            rest(time.monotonic() - began_s)
            advance(len(piece))
            began_s = time.monotonic()
        writer.flush()
        os.fsync(writer.fileno())
    return Copied(digest.hexdigest(), size)


def _copy_online(source: Path, target: Path, kind: FileKind, advance: Advance, rest: Callable[[float], None]) -> None:
    """One moment of a database that is being written: the reading transaction holds that moment to the end.

    Without it each commit of the writer would begin the copy anew.
    """
    with closing(open_reading(source, kind)) as reading:
        connection = reading.conn
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute("BEGIN")
        connection.execute("select count(*) from sqlite_master").fetchone()
        began_s, copied = time.monotonic(), 0

        def step(status: int, remaining: int, total: int) -> None:
            nonlocal began_s, copied
            now = total - remaining
            rest(time.monotonic() - began_s)
            advance((now - copied) * page_bytes)
            began_s, copied = time.monotonic(), now

        try:
            with closing(_target(target)) as writing:
                connection.backup(writing, pages=PAGES_A_STEP, progress=step, sleep=0.02)
        except sqlite3.Error as error:
            raise _backup_error(error, source, target) from error
        finally:
            connection.rollback()
    _finish(target)


def _target(path: Path) -> sqlite3.Connection:
    """No locks, no journal: the file has a name that nobody else knows, and is worth nothing until it is whole."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?nolock=1", uri=True)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")  # synced once, below
    return connection


def _finish(target: Path) -> None:
    """A plain file without a log, on the disk. The header tells of a log that the copy does not have."""
    fd = os.open(target, os.O_RDWR)
    try:
        os.pwrite(fd, b"\x01\x01", JOURNAL_MODES.start)
        os.fsync(fd)
    finally:
        os.close(fd)


def _backup_error(error: sqlite3.Error, source: Path, target: Path) -> StoreError:
    reasons = {
        sqlite3.SQLITE_FULL: StoreReason.BACKUP_FULL,
        sqlite3.SQLITE_CORRUPT: StoreReason.CORRUPT,
        sqlite3.SQLITE_NOTADB: StoreReason.CORRUPT,
    }
    reason = reasons.get(primary_code(error), StoreReason.BACKUP_FAILED)
    return StoreError(reason, f"cannot copy '{source}' to '{target}': {error}")


def _hashed(path: Path, rest: Callable[[float], None]) -> Copied:
    """From the medium as far as the system allows, not from what was just written to memory."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as reader:
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began_s = time.monotonic()
        while piece := reader.read(PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
            rest(time.monotonic() - began_s)
            began_s = time.monotonic()
    return Copied(digest.hexdigest(), size)
