"""Bytes of a database's files beside SQLite, without a descriptor of one's own.

The locks of a database and of its `-shm` are POSIX locks: closing any descriptor of such a file drops all that this
process has on it (https://www.sqlite.org/howtocorrupt.html, section 2.2). A program from outside would then take the
log for left behind, and remove it. So where a connection may be open nobody opens these files; SQLite does, and this
reads through what it has open. SQLite locks nothing in a `-wal`: that may be opened. Why so:
`docs/decisions/0044-no-descriptor-beside-sqlite.md`.
"""

from __future__ import annotations

import os
from pathlib import Path

DESCRIPTORS = "/proc/self/fd"


def held_bytes(path: Path, size: int, at: int = 0) -> bytes:
    """Up to `size` bytes from `at` on of a file that a connection of this process has open; b"" when none has.

    The caller's own connection must stay open meanwhile. Raises `OSError` when there is no such file.
    """
    wanted = path.stat()
    for name in os.listdir(DESCRIPTORS):
        try:
            if not os.path.samestat(os.fstat(int(name)), wanted):
                continue
            found = os.pread(int(name), size, at)
            if os.path.samestat(os.fstat(int(name)), wanted):  # another thread may have closed it, and its number lives
                return found
        except OSError:  # closed meanwhile
            continue
    return b""
