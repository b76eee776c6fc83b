"""One process a state directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from daemon.errors import StoreError, StoreReason
from daemon.store.faults import file_error


class StateLock:
    """Exclusive lock of a state directory, held as long as the process lives or until `release`.

    The kernel drops it with the process, so a crash leaves nothing to clean up; the file itself stays and holds the
    last holder's pid.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take it now. Raises `StoreError`: LOCKED naming the holder's pid, NOT_WRITABLE."""
        if self._fd is not None:
            return
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise file_error(error, self._path, "cannot open the lock") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            detail = f"{self._path.parent} is in use by process {holder}"
            raise StoreError(StoreReason.LOCKED, detail) from None
        except OSError as error:
            os.close(fd)
            raise file_error(error, self._path, "cannot lock") from error
        self._fd = fd

    def release(self) -> None:
        """Give it back; safe to repeat."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
