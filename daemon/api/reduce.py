"""Min-max reduction: fewer rows of a series, with every extreme kept.

Time is cut into buckets whose width is a power of two seconds, at multiples of that width. Narrower buckets therefore
nest in wider ones, so that a series may be reduced piece by piece with the same result as at once, and the buckets of a
live view stay where they are while time goes on.
"""

from __future__ import annotations

import math

import numpy as np


def bucket_width_s(span_s: float, rows: int, columns: int) -> float:
    """Width for which a span gives at most `rows` rows of `columns` columns, or two buckets if that is more."""
    buckets = max(1, rows // (2 * max(1, columns)) - 1)
    return 2.0 ** math.ceil(math.log2(max(span_s, 1e-9) / buckets))


def bucket_starts(t_s: np.ndarray, width_s: float) -> np.ndarray:
    """Index of the first row of each bucket that occurs; `t_s` must not fall."""
    bucket = np.floor(t_s / width_s)
    return np.flatnonzero(np.append(True, bucket[1:] != bucket[:-1])) if len(bucket) else np.empty(0, np.int64)


def extreme_rows(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Which of N rows hold a bucket's smallest or largest value of any column, as indices, each once, rising.

    `values` is (K, N), K columns reduced together; `starts` as of `bucket_starts`. NaN never wins against a number; a
    bucket of NaN only keeps its first row, so that a gap stays a gap.
    """
    if values.shape[1] == 0:
        return np.empty(0, np.int64)
    chosen = [_first_equal(np.where(np.isnan(row), np.inf, row), np.minimum, starts) for row in values]
    chosen += [_first_equal(np.where(np.isnan(row), -np.inf, row), np.maximum, starts) for row in values]
    return np.unique(np.concatenate(chosen))


def _first_equal(row: np.ndarray, extreme: np.ufunc, starts: np.ndarray) -> np.ndarray:
    """First row of each bucket that equals the bucket's extreme."""
    counts = np.diff(np.append(starts, len(row)))
    wanted = np.repeat(extreme.reduceat(row, starts), counts)
    hits = np.flatnonzero(row == wanted)
    return hits[np.searchsorted(hits, starts)]
