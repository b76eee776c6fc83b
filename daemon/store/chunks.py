"""Columns of chunks as arrays: proven, picked by particle, joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from daemon.errors import StoreError, StoreReason
from daemon.store.codec import Per, Unpacked, matches, unpack_column

Place = tuple[Per, str]
"""Whether a column is of frames or of particles, and its name."""


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
