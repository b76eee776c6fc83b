"""Covering pixels with spans of eight, and weights that fit a byte: the layout that the kernels read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels.lanes import SPAN_PX, VECTOR_PX

GROUP_SPANS = VECTOR_PX // SPAN_PX  # a group of pixels is padded to whole vectors
LARGEST_WEIGHT = 127


@dataclass(frozen=True)
class Spans:
    """Spans of one particle: `start` (S,) int64 linear frame indices, and where their pixels lie in the window.

    `row`, `column` are (S, 8), `own` (S, 8) is False for pixels beyond the window or covered by another span.
    """

    start: np.ndarray
    row: np.ndarray
    column: np.ndarray
    own: np.ndarray

    def take(self, plane: np.ndarray) -> np.ndarray:
        """(8 S,) values of a window's (h, w) plane, 0 where not `own`."""
        return np.where(self.own, plane[self.row, self.column], 0.0).reshape(-1)

    def sorted_along(self, coordinate: np.ndarray) -> Spans:
        """The spans in the order of a window's plane at their centres: what lies together is read together."""
        middle = SPAN_PX // 2
        at = np.where(self.own.any(axis=1), coordinate[self.row[:, middle], self.column[:, middle]], np.inf)
        order = np.argsort(at, kind="stable")
        return Spans(self.start[order], self.row[order], self.column[order], self.own[order])

    @property
    def index(self) -> np.ndarray:
        """(8 S,) linear frame indices of all pixels."""
        return (self.start[:, None] + np.arange(SPAN_PX)).reshape(-1)


def extent(row: np.ndarray) -> tuple[int, int]:
    """Where a row of weights begins and ends without the zeros at its ends, in whole vectors."""
    used = np.flatnonzero(row)
    if not len(used):
        return 0, 0
    first, last = int(used[0]) // VECTOR_PX, -(-(int(used[-1]) + 1) // VECTOR_PX)
    return first * VECTOR_PX, min(last * VECTOR_PX, len(row))


def cover(support: np.ndarray, y0: int, x0: int, frame_width: int) -> Spans:
    """Spans over all True pixels of a window's rows, from each row's first to its last."""
    rows = np.flatnonzero(support.any(axis=1))
    first = support[rows].argmax(axis=1)
    last = support.shape[1] - 1 - support[rows][:, ::-1].argmax(axis=1)
    count = (last - first) // SPAN_PX + 1
    row = np.repeat(rows, count)
    within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    wanted = np.repeat(first, count) + SPAN_PX * within  # columns of the window
    start = np.minimum(wanted + x0, frame_width - SPAN_PX)
    column = start[:, None] + np.arange(SPAN_PX) - x0
    own = (column >= wanted[:, None]) & (column < support.shape[1])
    padding = -len(row) % GROUP_SPANS if len(row) else 0
    row, start, own, column = (
        np.concatenate([part, np.repeat(part[:1], padding, axis=0)]) for part in (row, start, own, column)
    )
    own[len(own) - padding :] = False
    return Spans(
        start=(row + y0) * frame_width + start,
        row=np.broadcast_to(row[:, None], column.shape),
        column=np.clip(column, 0, support.shape[1] - 1),
        own=own,
    )


def quantise(planes: np.ndarray, shares: int) -> tuple[np.ndarray, np.ndarray]:
    """(K, n) real weights to int8 and the (K,) factors that give them back; the first `shares` rows lie in 0 to 1."""
    largest = np.abs(planes).max(axis=1, initial=0.0)
    largest[:shares] = 1.0
    scale = np.where(largest > 0, largest / LARGEST_WEIGHT, 1.0)
    return np.rint(planes / scale[:, None]).astype(np.int8), scale
