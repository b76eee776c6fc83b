"""Rows out of the pages of an SQLite file, without SQLite: whatever still looks like a row of a table, anywhere.

Format: https://www.sqlite.org/fileformat2.html (b-tree pages, record format). Nothing here vouches for what it finds.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from daemon.store.faults import translated
from daemon.store.log_check import FRAME, HEADER

PAGE_BYTES = 4096  # of every file that the store writes
LEAF = 0x0D
MAX_ROW_BYTES = 256 << 20  # a damaged length must not take the memory

_DOUBLE = struct.Struct(">d")

Value = int | float | str | bytes | None


def rows_of_pages(path: Path) -> Iterator[tuple[int, list[Value]]]:
    """Rowid and values of everything that looks like a row: newest pages of the log first, then those of the file.

    For a process that has no connection to it: that would lose its locks (`daemon/store/held.py`). Raises `StoreError`
    when a file cannot be read.
    """
    for pages in (_Pages.of_log(Path(f"{path}-wal"), path), _Pages.of_file(path)):
        if pages is not None:
            yield from pages.rows()


class _Pages:
    """Images of pages: where they begin, and which is the newest of each number."""

    def __init__(self, content: bytes | mmap.mmap, places: list[tuple[int, int]], below: bytes | mmap.mmap) -> None:
        self._content = content
        self._places = places
        self._newest = dict(places)
        self._below = below

    @classmethod
    def of_file(cls, path: Path) -> _Pages | None:
        content = _mapped(path)
        places = [(1 + at // PAGE_BYTES, at) for at in range(0, len(content) - PAGE_BYTES + 1, PAGE_BYTES)]
        return cls(content, places, content)

    @classmethod
    def of_log(cls, log: Path, path: Path) -> _Pages | None:
        content, step = _mapped(log), FRAME.size + PAGE_BYTES
        starts = range(HEADER.size, len(content) - step + 1, step)
        places = [(FRAME.unpack_from(content, at)[0], at + FRAME.size) for at in starts]
        return cls(content, places, _mapped(path)) if places else None

    def rows(self) -> Iterator[tuple[int, list[Value]]]:
        """The newest image of a page first."""
        for number, at in reversed(self._places):
            if self._content[at + (100 if number == 1 else 0)] == LEAF:
                yield from self._leaf(at, 100 if number == 1 else 0)

    def _leaf(self, at: int, header: int) -> Iterator[tuple[int, list[Value]]]:
        page = self._content[at : at + PAGE_BYTES]
        cells = int.from_bytes(page[header + 3 : header + 5], "big")
        for i in range(min(cells, PAGE_BYTES // 4)):
            pointer = header + 8 + 2 * i
            cell = int.from_bytes(page[pointer : pointer + 2], "big")
            try:
                size, cell = _varint(page, cell)
                rowid, cell = _varint(page, cell)
                yield rowid if rowid < 1 << 63 else rowid - (1 << 64), _record(self._payload(page, cell, size))
            except (IndexError, ValueError, struct.error):
                continue

    def _payload(self, page: bytes, cell: int, size: int) -> bytes:
        """A row's bytes, those on overflow pages among them. Raises `ValueError`."""
        usable = PAGE_BYTES
        if size <= usable - 35:
            return page[cell : cell + size]
        if size > MAX_ROW_BYTES:
            raise ValueError("a length that cannot be")
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        local = local if local <= usable - 35 else least
        parts, left = [page[cell : cell + local]], size - local
        following = int.from_bytes(page[cell + local : cell + local + 4], "big")
        while left > 0:
            content, at = self._page(following)
            parts.append(content[at + 4 : at + 4 + min(left, usable - 4)])
            left -= usable - 4
            following = int.from_bytes(content[at : at + 4], "big")
        return b"".join(parts)

    def _page(self, number: int) -> tuple[bytes | mmap.mmap, int]:
        if number in self._newest:
            return self._content, self._newest[number]
        at = (number - 1) * PAGE_BYTES
        if number < 1 or at + PAGE_BYTES > len(self._below):
            raise ValueError("a page that is not there")
        return self._below, at


def _mapped(path: Path) -> bytes | mmap.mmap:
    with translated(path, "cannot read"):
        if not path.exists() or path.stat().st_size == 0:
            return b""
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        byte = content[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    return value << 8 | content[at + 8], at + 9


def _record(payload: bytes) -> list[Value]:
    """The values of a row. Raises `ValueError` or `IndexError` for what is none."""
    length, at = _varint(payload, 0)
    kinds = []
    while at < length:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    if at != length or not kinds:
        raise ValueError("no row")
    values = []
    for kind in kinds:
        value, at = _value(payload, at, kind)
        values.append(value)
    if at != len(payload):
        raise ValueError("no row")
    return values


def _value(payload: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    if kind < 7:
        end = at + (1, 2, 3, 4, 6, 8)[kind - 1]
        return int.from_bytes(payload[at:end], "big", signed=True), end
    if kind == 7:
        return float(_DOUBLE.unpack_from(payload, at)[0]), at + 8
    if kind < 12:
        raise ValueError("no row")
    end = at + (kind - 12) // 2
    part = payload[at:end]
    return (part if kind % 2 == 0 else part.decode()), end
