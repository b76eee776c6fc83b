"""What programs from outside find locked of a database that a process has open, and what would drop those locks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHARED_FIRST = 0x4000_0002  # in the database: held as long as a connection uses the log
DEADMAN = 128  # in the `-shm`: who gets it alone takes the log's index for left behind, and empties it
READS = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(c.execute(sys.argv[2]).fetchone()[0]); c.close()"
PRODUCT, TESTS = (str(Path(__file__).parents[1] / name) + os.sep for name in ("daemon", "tests"))


def locks_stand(path: Path, pid: int | None = None) -> bool:
    """Whether process `pid` (this one when None) holds what keeps others from removing the log and its index."""
    pid = os.getpid() if pid is None else pid
    places = ((path, SHARED_FIRST), (Path(f"{path}-shm"), DEADMAN))
    return all(any(first <= at <= last for first, last in locked_bytes(file, pid)) for file, at in places)


def locked_bytes(path: Path, pid: int) -> Iterator[tuple[int, float]]:
    """First and last byte of each POSIX lock of a process on a file; none when there is no such file.

    As the kernel tells: a descriptor opened and closed here would drop the locks of this very process.
    """
    if not path.exists():
        return
    inode = path.stat().st_ino
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        _, kind, *_, holder, file, first, last = line.replace("-> ", "").split()
        if kind == "POSIX" and int(holder) == pid and int(file.split(":")[2]) == inode:
            yield int(first), float("inf") if last == "EOF" else int(last)


def read_from_outside(path: Path, query: str = "select count(*) from sqlite_master") -> str:
    """What another program reads, which may write and closes as the last connection would."""
    command = [sys.executable, "-S", "-c", READS, str(path), query]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


class OpenedBeside:
    """Database files with locks of this process that product code opened by itself in it, while `watching`.

    The interpreter tells of each way to open one: `open`, `os.open`, `Path.read_bytes`, `shutil`, `tarfile`.
    """

    def __init__(self) -> None:
        self.watching = False
        self.found: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not self.watching or isinstance(arguments[0], int):
            return
        path = Path(os.fsdecode(arguments[0]))
        if ".db" in path.name and _is_called_by_product() and any(locked_bytes(path, os.getpid())):
            self.found.append(str(path))


def _is_called_by_product() -> bool:
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith((PRODUCT, TESTS)):
            return frame.f_code.co_filename.startswith(PRODUCT)
        frame = frame.f_back
    return False
