"""What a particle looked like before and after a step: short rows of its raw pixels, kept while the run measures."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from daemon.engine.collector import Collector
from daemon.engine.measures import Clip, Detection
from daemon.engine.operator import Operator
from kernels.lanes import SPAN_PX

LOOK_S = 0.5
"""Time between two looks; single frames when they are farther apart."""
BEFORE, AFTER = 4, 4
"""Looks in a clip: the last ones before the step, and the first ones from it on."""
BATCH_FRAMES = 32
"""Steps are told a batch of frames late: offline, as many; live, a twentieth of a second."""
MAX_WAITING = 32
"""Clips being gathered at once; what steps meanwhile has none."""
MAX_KEPT_BYTES = 64 << 20
COMMON = 0.25
"""Steps that this share of all particles make at once are the instrument's: every clip would show the same."""


class ClipKeeper:
    """Looks at every particle's patch from time to time and remembers the last looks.

    A patch covers the particle's soft mask where the scene stands, to the pixel. Looks are two bytes a pixel: 2 MB each
    for a thousand particles of 8 px radius, copied in a millisecond or two, twice a second. More than `MAX_KEPT_BYTES`
    of them are not kept: clips then begin later, or there are none.
    """

    def __init__(self, operator: Operator, collector: Collector, frame_rate_hz: float) -> None:
        self._collector = collector
        self._shape = int(operator.shape[0]), int(operator.shape[1])
        self._boxes = mask_boxes(operator)
        sizes = (self._boxes[:, 1] - self._boxes[:, 0]) * (self._boxes[:, 3] - self._boxes[:, 2])
        self._pointer = np.concatenate([[0], np.cumsum(sizes)])
        self._rows, self._columns = _pixels_of(self._boxes)
        late = math.ceil(BATCH_FRAMES / max(LOOK_S * frame_rate_hz, 1.0))
        affordable = MAX_KEPT_BYTES // max(2 * int(self._pointer[-1]), 1)
        self._looks: deque[Look] = deque(maxlen=min(BEFORE + late, affordable))
        self._waiting: list[Waiting] = []
        self._done: list[Clip] = []
        self._index: tuple[int, int, np.ndarray] | None = None
        self._last_t_s = -np.inf

    def add(self, frame: np.ndarray, number: int, t_s: float, drift_px: tuple[float, float]) -> None:
        """Look at an opened frame when it is time to; a frame whose drift is not known is not looked at."""
        if not self._looks.maxlen or t_s - self._last_t_s < LOOK_S or not np.isfinite(drift_px).all():
            return
        self._last_t_s = t_s
        places = self._places(round(drift_px[0]), round(drift_px[1]))
        look = Look(number, t_s, self._collector.pixels(frame, places))
        self._looks.append(look)
        for waiting in self._waiting:
            waiting.after.append(self._cut(look, waiting.index))
        self._settle()

    def want(self, detections: Iterable[Detection]) -> None:
        """Begin a clip for each step that is a particle's own."""
        for found in detections:
            busy = any(waiting.index == found.index for waiting in self._waiting)
            if found.common_fraction >= COMMON or busy or len(self._waiting) >= MAX_WAITING or not self._looks:
                continue
            waiting = Waiting(found.index, found.onset_frame)
            for look in self._looks:
                side = waiting.before if look.frame < found.onset_frame else waiting.after
                side.append(self._cut(look, found.index))
            self._waiting.append(waiting)
        self._settle()

    def take(self) -> list[Clip]:
        """The clips that are complete since the last call."""
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Settle for what there is of clips that are being gathered: no frame follows."""
        self._done += [self._clip(waiting) for waiting in self._waiting if waiting.before or waiting.after]
        self._waiting = []

    def _settle(self) -> None:
        if any(waiting.complete for waiting in self._waiting):
            self._done += [self._clip(waiting) for waiting in self._waiting if waiting.complete]
            self._waiting = [waiting for waiting in self._waiting if not waiting.complete]

    def _places(self, y: int, x: int) -> np.ndarray:
        """(N,) uint32 linear indices of all patches' pixels; beyond the frame's edge, its nearest pixels."""
        if self._index is None or self._index[:2] != (y, x):
            height, width = self._shape
            rows = np.clip(self._rows + np.int32(y), 0, height - 1)
            columns = np.clip(self._columns + np.int32(x), 0, width - 1)
            self._index = (y, x, (rows * np.int32(width) + columns).astype(np.uint32))
        return self._index[2]

    def _cut(self, look: Look, index: int) -> tuple[float, np.ndarray]:
        top, bottom, left, right = self._boxes[index]
        pixels = look.values[self._pointer[index] : self._pointer[index + 1]].reshape(bottom - top, right - left)
        return look.t_s, self._collector.raw_dn(pixels)

    def _clip(self, waiting: Waiting) -> Clip:
        top, _, left, _ = self._boxes[waiting.index].tolist()
        times, pictures = zip(*waiting.before[-BEFORE:], *waiting.after[:AFTER], strict=True)
        return Clip(waiting.index, waiting.onset_frame, top, left, np.array(times), np.stack(pictures))


@dataclass(frozen=True)
class Look:
    """All patches of one frame, one after another, as the collector reads pixels."""

    frame: int
    t_s: float
    values: np.ndarray


@dataclass
class Waiting:
    """A clip being gathered: looks before its step and from it on."""

    index: int
    onset_frame: int
    before: list[tuple[float, np.ndarray]] = field(default_factory=list)
    after: list[tuple[float, np.ndarray]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing more is wanted."""
        return len(self.after) >= AFTER


def _pixels_of(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int32 rows and columns of the boxes' pixels, box by box."""
    parts = [np.mgrid[top:bottom, left:right].reshape(2, -1) for top, bottom, left, right in boxes.tolist()]
    rows, columns = np.concatenate([np.empty((2, 0), np.int64), *parts], axis=1).astype(np.int32)
    return rows, columns


def mask_boxes(operator: Operator) -> np.ndarray:
    """(P, 4) int64: first row and the one behind the last, first column and the one behind the last, of the spans over
    each particle's soft mask, inside the frame; empty for a particle without spans.
    """
    width = int(operator.shape[1])
    rows, columns = np.divmod(operator.mask_span.astype(np.int64), width)
    boxes = np.zeros((operator.particles, 4), np.int64)
    ends = operator.mask_pointer // SPAN_PX
    for p, (first, last) in enumerate(pairwise(ends.tolist())):
        if first < last:
            mine = slice(first, last)
            boxes[p] = (
                rows[mine].min(), rows[mine].max() + 1, columns[mine].min(),
                min(columns[mine].max() + SPAN_PX, width),
            )  # fmt: skip
    return boxes
