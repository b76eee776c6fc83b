"""Whether a write-ahead log holds committed transactions that SQLite no longer sees.

SQLite ends a log at the first frame whose check sum is wrong. After a power cut that is the last transaction, which
nobody was told of. When whole transactions follow, the frame was damaged later: what follows was promised and is lost.
Format: https://www.sqlite.org/fileformat2.html#walformat and https://www.sqlite.org/walformat.html.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import BinaryIO

from daemon.store.faults import translated
from daemon.store.held import held_bytes

HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoints, two salts, two check sums
FRAME = struct.Struct(">6I")  # page, pages of the database after a commit (0: none), two salts, two check sums
INDEX = struct.Struct("=16xI12x8s")  # of a `-shm` file: frames that readers see, salts as in the log
PAGE_BYTES = 4096
MAGIC = 0x377F0682  # the lowest bit tells the byte order of the check sums
_U32 = 0xFFFFFFFF


def lost_log_bytes(path: Path) -> int:
    """Bytes of committed frames beyond the first damaged one in the log of the database at `path`; 0 without damage.

    The last transaction does not count: it is what a power cut takes. Only for a log that nobody writes. Blocks; takes
    a second a few megabytes. Raises `StoreError` when the log cannot be read.
    """
    log = Path(f"{path}-wal")
    with translated(log, "cannot read"):
        if not log.exists() or (size := log.stat().st_size) <= HEADER.size + FRAME.size:
            return 0
        with log.open("rb") as file:
            return _lost(_Content(file), size)


def unseen_log_bytes(path: Path) -> int:
    """The same as far as the headers of frames tell, for a log that a connection of this process has open and another
    may write.

    Reads the log's index, which SQLite keeps beside it, so it costs next to nothing.
    """
    log, index = Path(f"{path}-wal"), Path(f"{path}-shm")
    seen = 0
    for _ in range(3):  # what was being written is seen the next time
        with translated(log, "cannot read"):
            if not log.exists() or (size := log.stat().st_size) <= HEADER.size + FRAME.size or not index.exists():
                return 0
            head = held_bytes(index, INDEX.size)
            with log.open("rb") as file:
                seen = _unseen(_Content(file), size, head)
        if not seen:
            return 0
        time.sleep(0.02)
    return seen


class _Content:
    """Bytes of a log, read one by one: a mapped log that is cut short meanwhile ends the process (SIGBUS).

    What is not there any more is zeros, which belong to no transaction.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = file.fileno()

    def __getitem__(self, where: slice) -> bytes:
        size = where.stop - (where.start or 0)
        return os.pread(self._descriptor, size, where.start or 0).ljust(size, b"\0")

    def unpack(self, layout: struct.Struct, place: int = 0) -> tuple[int, ...]:
        """The fields at `place`."""
        return layout.unpack(self[place : place + layout.size])


def _unseen(content: _Content, size: int, index: bytes) -> int:
    if len(index) < INDEX.size:
        return 0
    if _header_sums(content) is None:
        return _beyond_header(content, size)
    frames, salts = INDEX.unpack(index)
    if salts != content[16:24]:  # begun anew: the header follows with the first frame
        return 0
    step = FRAME.size + content.unpack(HEADER)[2]
    places = range(HEADER.size + frames * step, size - step + 1, step)
    return _committed_after(content, places, content.unpack(HEADER)[4:6])


def _lost(content: _Content, size: int) -> int:
    sums = _header_sums(content)
    if sums is None:
        return _beyond_header(content, size)
    step = FRAME.size + content.unpack(HEADER)[2]
    order = ">" if content[3:4][0] & 1 else "<"
    salts = content.unpack(HEADER)[4:6]
    for place in range(HEADER.size, size - step + 1, step):
        _, _, *rest = content.unpack(FRAME, place)
        sums = _summed(content[place : place + 8], sums, order)
        sums = _summed(content[place + FRAME.size : place + step], sums, order)
        if tuple(rest[:2]) != salts or tuple(rest[2:]) != sums:
            return _committed_after(content, range(place, size - step + 1, step), salts)
    return 0


def _header_sums(content: _Content) -> tuple[int, int] | None:
    """The check sums of a sound header, which those of the first frame go on from; None for a damaged one."""
    magic, _, page_size, _, _, _, *stored = content.unpack(HEADER)
    sums = _summed(content[:24], (0, 0), ">" if magic & 1 else "<")
    return sums if magic & ~1 == MAGIC and sums == tuple(stored) and 512 <= page_size <= 65536 else None


def _beyond_header(content: _Content, size: int) -> int:
    """SQLite reads nothing of a log whose header is damaged; pages have the usual size here."""
    step, first = FRAME.size + PAGE_BYTES, HEADER.size
    salts = content.unpack(FRAME, first)[2:4]
    return _committed_after(content, range(first, size - step + 1, step), salts) if any(salts) else 0


def _committed_after(content: _Content, places: range, salts: tuple[int, ...]) -> int:
    """Bytes from the first frame on, when frames of this log follow the end of its transaction.

    One frame may be foreign: the damaged one, whose salts may be what is damaged. More are left from an earlier log.
    """
    ended, foreign = False, 0
    for place in places:
        _, pages, *rest = content.unpack(FRAME, place)
        own = tuple(rest[:2]) == salts
        if own and ended:
            return len(places) * places.step
        foreign += not own
        if foreign > 1:
            return 0
        ended |= pages > 0
    return 0


def _summed(words: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    first, second = sums
    values = struct.unpack(f"{order}{len(words) // 4}I", words)
    for one, two in zip(values[::2], values[1::2], strict=True):
        first = (first + one + second) & _U32
        second = (second + two + first) & _U32
    return first, second
