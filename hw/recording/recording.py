"""An opened recording: frames read in order or at random, with what is known beside them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np

from hw.camera.contract import CameraInfo
from hw.errors import RecordingError, RecordingReason
from hw.recording.cell_record import CellRecord
from hw.recording.faults import Fault

BLOCK_BYTES = 8 << 20
"""Size of a read: long enough to be fast, short enough for the allocator to use the same memory again."""


LARGEST_SIDE_PX = 32_768
LARGEST_FRAME_PX = 1 << 27
"""Larger than any sensor: beyond them a header is damaged, or made to exhaust memory."""


class FrameSource(Protocol):
    """Frames of a file, in the file's own counting."""

    height_px: int
    width_px: int
    dtype: np.dtype
    chunk_frames: int
    """Frames that are stored, and decompressed, together."""

    def read_into(self, out: np.ndarray, start: int) -> None:
        """Fill `out` (n, H, W) with frames `start`... Raises `RecordingError`."""

    def close(self) -> None:
        """Release the file; idempotent."""


class Recording:
    """A recording whose frames have rising times. Used by one thread at a time; close it, or use it in a `with`.

    `t_s` is (N,) float64, strictly rising from 0; `frame_index` (N,) int64 is each frame's place in the file: a gap is
    a frame that had to be left out. `block_id` (N,) int64 is its number by the camera's own counter, or its place where
    the file has none: what it rises more than the place are frames that the camera lost. `faults` says what was wrong
    and survived, `notes` what was recognised or estimated.
    """

    def __init__(
        self,
        path: Path,
        source: FrameSource,
        info: CameraInfo,
        t_s: np.ndarray,
        frame_index: np.ndarray,
        block_id: np.ndarray,
        *,
        bit_depth: int,
        cell: CellRecord | None,
        electrode: str | None,
        capacity_mah: float | None,
        extras: dict[str, np.ndarray],
        faults: list[Fault],
        notes: list[str],
    ) -> None:
        self.path = path
        self.info = info
        self.t_s = t_s
        self.frame_index = frame_index
        self.block_id = block_id
        self.bit_depth = bit_depth
        self.cell = cell
        self.electrode = electrode
        self.capacity_mah = capacity_mah
        self.extras = extras
        """`stage_position`, `average_intensity`, `autofocus` where present, last axis cut to the frames kept."""
        self.faults = faults
        self.notes = notes
        self._source = source

    @property
    def frames(self) -> int:
        """Number of frames, N."""
        return len(self.t_s)

    @property
    def dtype(self) -> np.dtype:
        """uint8 or uint16, native byte order."""
        return self._source.dtype

    @property
    def period_s(self) -> float:
        """Time from the first frame to where the next would follow the last: what a loop repeats after."""
        return float(self.t_s[-1]) + 1.0 / self.info.frame_rate_hz

    @property
    def block_frames(self) -> int:
        """Frames to ask for at once: whole chunks, about `BLOCK_BYTES`, at least one."""
        frame_bytes = self.info.height_px * self.info.width_px * self.dtype.itemsize
        wanted = max(1, BLOCK_BYTES // frame_bytes)
        chunk = self._source.chunk_frames
        return max(1, wanted // chunk) * chunk if chunk <= 8 * wanted else wanted

    def read(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Frames `start` to `stop` (cut to what exists) as (n, H, W) uint8 or uint16; into `out` when given.

        Raises `RecordingError`, whose `index` is the first frame that cannot be read.
        """
        start, stop = max(start, 0), min(stop, self.frames)
        count = max(stop - start, 0)
        if out is None:
            out = np.empty((count, self.info.height_px, self.info.width_px), self.dtype)
        places = self.frame_index[start:stop]
        edges = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), count]
        for first, last in pairwise(edges):
            if last > first:
                self._read_run(out[first:last], int(places[first]), start + first)
        return out[:count]

    def _read_run(self, out: np.ndarray, place: int, index: int) -> None:
        try:
            self._source.read_into(out, place)
        except RecordingError as error:
            if len(out) > 1:
                for i in range(len(out)):
                    self._read_run(out[i : i + 1], place + i, index + i)
                return  # the second attempt succeeded
            raise RecordingError(error.reason, error.detail, index) from error

    def blocks(self, start: int = 0, frames: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """(index of the first, (n, H, W) frames) from `start` to the end, aligned to what is stored together.

        A stretch that cannot be read is left out and becomes one fault: the next block then begins after it. Raises
        `RecordingError` when the stretch is longer than two chunks and 100 frames: the disk is lost, not a chunk.
        """
        size = frames or self.block_frames
        bad: list[RecordingError] = []
        while start < self.frames:
            stop = min(start - start % size + size, self.frames)
            block, error = self._readable(start, stop)
            if len(block):
                self._note_unreadable(bad)
                yield start, block
            start += len(block)
            if error is not None:
                bad.append(error)
                start += 1
            if len(bad) > max(100, 2 * self._source.chunk_frames):
                raise bad[0]
        self._note_unreadable(bad)

    def _readable(self, start: int, stop: int) -> tuple[np.ndarray, RecordingError | None]:
        """The frames from `start` up to the first that cannot be read, and why it cannot."""
        try:
            return self.read(start, stop), None
        except RecordingError as error:
            return self.read(start, start if error.index is None else error.index), error

    def _note_unreadable(self, bad: list[RecordingError]) -> None:
        if bad:
            detail = f"{bad[0].detail}; {len(bad)} frames left out"
            fault = Fault(bad[0].code, detail, bad[0].index)
            if fault not in self.faults:  # a second pass finds the same
                self.faults.append(fault)
            bad.clear()

    def close(self) -> None:
        """Release the file; idempotent."""
        self._source.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_frames(shape: tuple[int, ...], dtype: np.dtype, dataset: str) -> None:
    """Whether (N, H, W) of `dtype` can be frames of a camera. Raises `RecordingError` that names the dataset."""
    if len(shape) != 3:
        raise _not_images(dataset, f"has {len(shape)} axes {shape} instead of frames x height x width")
    if dtype.kind != "u" or dtype.itemsize > 2:
        raise _not_images(dataset, f"holds {dtype} instead of uint8 or uint16")
    if shape[0] == 0:
        raise _not_images(dataset, "holds no frames")
    if min(shape[1:]) < 16 or max(shape[1:]) > LARGEST_SIDE_PX or shape[1] * shape[2] > LARGEST_FRAME_PX:
        raise _not_images(dataset, f"has frames of {shape[1]} x {shape[2]} pixels")


def _not_images(dataset: str, what: str) -> RecordingError:
    return RecordingError(RecordingReason.BAD_DATASET, f"dataset '{dataset}' {what}")
