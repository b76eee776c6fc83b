"""Rows and columns of chunks as arrays: proven, picked by particle, joined."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np

from daemon.errors import StoreError, StoreReason
from daemon.store.codec import Per, Unpacked, checksum, matches, unpack_column
from daemon.store.rows import CHUNK_FIELDS

Place = tuple[Per, str]
"""Whether a column is of frames or of particles, and its name."""

CHUNK_COLUMNS = (*CHUNK_FIELDS, "crc32")
CHUNK_ROW = np.dtype([(name, "f8" if name.endswith("_s") else "i8") for name in CHUNK_COLUMNS])
"""A row of `chunks`; 34 MB are a week at one a second."""
ROWS_AT_ONCE = 5000


def sound_rows(cursor: sqlite3.Cursor) -> tuple[np.ndarray, set[int]]:
    """Rows of `chunks`, selected with `CHUNK_COLUMNS`, that match their CRC: (N,) `CHUNK_ROW`.

    And the ids of the others, and of those that are missing between the sound ones.
    """
    found, sound = [np.empty(0, np.int64)], [np.empty(0, CHUNK_ROW)]
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        found.append(np.array([chunk_id for chunk_id, *_ in rows]))
        sound.append(np.array([row for row in rows if checksum(b"", *row[:-1]) == row[-1]], CHUNK_ROW))
    known, every = np.concatenate(sound), np.concatenate(found)
    present = known["chunk_id"].copy()
    del sound, found  # as large again
    if len(present) == len(every) and (np.diff(present) == 1).all():
        return known, set()
    between = np.arange(present.min(), present.max()) if len(present) else present
    return known, set(np.setdiff1d(np.concatenate([every, between]), present).tolist())


def proven(row: dict[str, Any], place: Place, stored: dict[Place, dict[str, Any]]) -> Unpacked:
    """A column of the chunk `row` from its `chunk_columns` by place. Raises `StoreError` (CORRUPT)."""
    (per, name), chunk_id = place, row["chunk_id"]
    if place not in stored:
        raise StoreError(StoreReason.CORRUPT, f"chunk {chunk_id} has no column '{name}'")
    column = stored[place]
    codec, blob = column["codec"], column["blob"]
    if not matches(blob, column["crc32"], chunk_id, per, name, codec):
        raise StoreError(StoreReason.CORRUPT, f"column '{name}' of chunk {chunk_id} does not match its check sum")
    return unpack_column(per, name, codec, blob, (row["frames"], row["particles"]))


def picked(column: Unpacked, particles: int, indices: Sequence[int] | np.ndarray | None) -> np.ndarray:
    """(N, K) of the particles at `indices` of a chunk of `particles`; unknown where it does not have them."""
    if indices is None:
        return column.values()
    wanted = np.asarray(indices, dtype=np.int64)
    present = wanted < particles
    return _widened(column.values(wanted[present]), present)


def _widened(array: np.ndarray, present: np.ndarray) -> np.ndarray:
    """(N, K) with what is `present` (K,) from `array`; the rest is unknown."""
    if present.all():
        return array
    out = np.full((len(array), len(present)), np.nan if array.dtype.kind == "f" else 0, array.dtype)
    out[:, present] = array
    return out


def join(parts: list[np.ndarray], dtype: str) -> np.ndarray:
    """(N,) one after the other."""
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def join_wide(parts: list[np.ndarray], dtype: str, width: int) -> np.ndarray:
    """(N, P) one after the other, as wide as the widest; of no parts (0, `width`)."""
    if not parts:
        return np.empty((0, width), dtype)
    width = max(part.shape[1] for part in parts)
    return np.concatenate([_widened(part, np.arange(width) < part.shape[1]) for part in parts])
