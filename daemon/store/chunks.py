"""Columns of chunks as arrays: decoded, picked by particle, joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from daemon.errors import StoreError, StoreReason
from daemon.store.codec import Per, decode_column, matches


def decoded(row: dict[str, Any], per: Per, name: str, stored: dict[tuple[str, str], dict[str, Any]]) -> np.ndarray:
    """A column of the chunk `row` from its `chunk_columns` by place. Raises `StoreError` (CORRUPT)."""
    chunk_id = row["chunk_id"]
    if (per, name) not in stored:
        raise StoreError(StoreReason.CORRUPT, f"chunk {chunk_id} has no column '{name}'")
    column = stored[per, name]
    codec, blob = column["codec"], column["blob"]
    if not matches(blob, column["crc32"], chunk_id, per, name, codec):
        raise StoreError(StoreReason.CORRUPT, f"column '{name}' of chunk {chunk_id} does not match its check sum")
    return decode_column(per, name, codec, blob, (row["frames"], row["particles"]))


def of_particles(array: np.ndarray, indices: Sequence[int] | np.ndarray | None) -> np.ndarray:
    """(N, K) columns at `indices`; those beyond the chunk's particles are unknown."""
    if indices is None:
        return array
    wanted = np.asarray(indices, dtype=np.int64)
    out = _unknown((len(array), len(wanted)), array.dtype)
    present = wanted < array.shape[1]
    out[:, present] = array[:, wanted[present]]
    return out


def _unknown(shape: tuple[int, int], dtype: np.dtype[Any]) -> np.ndarray:
    return np.full(shape, np.nan if dtype.kind == "f" else 0, dtype)


def join(parts: list[np.ndarray], dtype: str) -> np.ndarray:
    """(N,) one after the other."""
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def join_wide(parts: list[np.ndarray], dtype: str, width: int) -> np.ndarray:
    """(N, P) one after the other, as wide as the widest; of no parts (0, `width`)."""
    if not parts:
        return np.empty((0, width), dtype)
    width = max(part.shape[1] for part in parts)
    return np.concatenate([of_particles(part, None if part.shape[1] == width else range(width)) for part in parts])
