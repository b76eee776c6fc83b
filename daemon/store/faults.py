"""SQLite's and the file system's failures as `StoreError`s."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.errors import StoreError, StoreReason

REASON_OF_SQLITE_CODE: dict[int, StoreReason] = {
    sqlite3.SQLITE_FULL: StoreReason.DISK_FULL,
    sqlite3.SQLITE_IOERR: StoreReason.NOT_WRITABLE,
    sqlite3.SQLITE_READONLY: StoreReason.NOT_WRITABLE,
    sqlite3.SQLITE_CANTOPEN: StoreReason.NOT_WRITABLE,
    sqlite3.SQLITE_PERM: StoreReason.NOT_WRITABLE,
    sqlite3.SQLITE_BUSY: StoreReason.LOCKED,
    sqlite3.SQLITE_LOCKED: StoreReason.LOCKED,
    sqlite3.SQLITE_PROTOCOL: StoreReason.LOCKED,
    sqlite3.SQLITE_CORRUPT: StoreReason.CORRUPT,
    sqlite3.SQLITE_NOTADB: StoreReason.CORRUPT,
}
"""Primary result codes that tell of the disk or the file rather than of the statement."""


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 when the error came from Python's binding."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_environment(error: sqlite3.Error) -> bool:
    """True when disk, file or lock is at fault, so that every statement would fail alike."""
    return primary_code(error) in REASON_OF_SQLITE_CODE


def store_error(error: sqlite3.Error, path: Path, doing: str) -> StoreError:
    """`error` as a `StoreError` naming `path`; what is no fault of the disk counts as damage to the file."""
    reason = REASON_OF_SQLITE_CODE.get(primary_code(error), StoreReason.CORRUPT)
    return StoreError(reason, f"{doing} {path}: {error}")


def is_damage(error: StoreError, path: Path) -> bool:
    """Whether `error` means damage where a run or the catalogue should be.

    A file that does not look like one, and is not empty, had its first bytes damaged.
    """
    if error.reason is StoreReason.NOT_A_RUN:
        try:
            return path.stat().st_size > 0
        except OSError:  # it is not there
            return False
    return error.reason is StoreReason.CORRUPT


def file_error(error: OSError, path: Path, doing: str) -> StoreError:
    """`error` of the file system as a `StoreError` naming `path`."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = StoreReason.DISK_FULL if full else StoreReason.NOT_WRITABLE
    return StoreError(reason, f"{doing} {path}: {error.strerror or error}")


@contextmanager
def translated(path: Path, doing: str) -> Iterator[None]:
    """Raises SQLite's and the file system's errors inside the block as `StoreError`."""
    try:
        yield
    except sqlite3.Error as error:
        raise store_error(error, path, doing) from error
    except UnicodeDecodeError as error:  # Python's binding could not even read SQLite's message, or a name
        raise StoreError(StoreReason.CORRUPT, f"{doing} {path}: text in it is damaged ({error.reason})") from error
    except OSError as error:
        raise file_error(error, path, doing) from error
