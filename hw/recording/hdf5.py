"""HDF5 recordings in the layout that MiniSCAT-type instruments write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hw.errors import RecordingError, RecordingReason
from hw.recording.cell_record import CellRecord, find_sidecar, read_sidecar, record_from_rows
from hw.recording.counter import block_ids
from hw.recording.describe import Contents, assemble
from hw.recording.faults import Fault, refused_as
from hw.recording.hdf5_text import attributes
from hw.recording.recording import Recording, check_frames
from hw.recording.time_axis import UNIT_S, UNIT_WORDS, advancing, recognised_unit, stated_unit
from hw.recording.values import VALUE_NAMES, RecordingValues, read_values

_LARGEST_BYTES = 2 << 30
"""Largest array read whole (a time axis, a cell record, a map), and largest chunk decompressed."""
_CHUNK_CACHE_BYTES = 256 << 20
_MOST_FRAMES = 1 << 28
_EXTRAS = ("stage_position", "average_intensity", "autofocus")


class Hdf5Frames:
    """The dataset `movie` of an open file."""

    def __init__(self, file: h5py.File, movie: h5py.Dataset) -> None:
        _, self.height_px, self.width_px = movie.shape
        self.dtype = np.dtype(f"u{movie.dtype.itemsize}")
        self.chunk_frames = int(movie.chunks[0]) if movie.chunks else 1
        self._file = file
        self._movie = _with_cache(file, movie)

    def read_into(self, out: np.ndarray, start: int) -> None:
        """Fill `out` (n, H, W) with frames `start`... Raises `RecordingError`."""
        with refused_as(RecordingReason.TRUNCATED, f"dataset 'movie' cannot be read at frame {start}", start):
            self._movie.read_direct(out, np.s_[start : start + len(out)])

    def close(self) -> None:
        """Release the file; idempotent."""
        self._file.close()


def _with_cache(file: h5py.File, movie: h5py.Dataset) -> h5py.Dataset:
    """`movie` with a cache that holds one layer of chunks: each is decompressed once when read in order."""
    if not movie.chunks:
        return movie
    layer = [-(-size // chunk) for size, chunk in zip(movie.shape[1:], movie.chunks[1:], strict=True)]
    chunks = layer[0] * layer[1]
    chunk_bytes = int(np.prod(movie.chunks)) * movie.dtype.itemsize
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(min(100 * chunks + 1, 1_000_003), min(chunks * chunk_bytes, _CHUNK_CACHE_BYTES), 1.0)
    return h5py.Dataset(h5py.h5d.open(file.id, b"movie", access))


def open_hdf5(path: Path, given: RecordingValues) -> Recording:
    """The HDF5 recording at `path`. Raises `RecordingError`."""
    file = _open(path)
    try:
        with refused_as(RecordingReason.BAD_DATASET, f"'{path.name}' is damaged"):
            return _read(path, file, given)
    except BaseException:
        file.close()
        raise


def _open(path: Path) -> h5py.File:
    try:
        with refused_as(RecordingReason.UNREADABLE, f"'{path.name}' cannot be opened as HDF5"):
            return h5py.File(path, "r", locking=False)
    except RecordingError as error:
        sizes = re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", error.detail)
        if sizes is None:
            raise
        detail = f"'{path.name}' is truncated: {sizes[1]} of {sizes[2]} bytes are there"
        raise RecordingError(RecordingReason.TRUNCATED, detail) from error


def _read(path: Path, file: h5py.File, given: RecordingValues) -> Recording:
    faults: list[Fault] = []
    notes: list[str] = []
    values = read_values(attributes(path, file, VALUE_NAMES), given, faults)
    movie = _movie(file, path)
    stored = _stored_frames(movie, path, faults)
    cell = _cell(file, path, faults, notes)
    times = _times(file, movie.shape[0], values, cell, notes)
    frame_index, t_s = _kept(stored, times, movie.shape[0], values, faults)
    counter = _counter(file, frame_index, faults)
    block_id = block_ids(counter, frame_index, None if times is None else t_s, "row 0 of 'camera_timing'", notes)
    contents = Contents(
        path=path,
        source=Hdf5Frames(file, movie),
        values=values,
        t_s=t_s,
        frame_index=frame_index,
        block_id=block_id,
        cell=cell,
        dark=_map(file, "dark", movie.shape[1:], faults),
        flat=_map(file, "flat", movie.shape[1:], faults),
        extras=_extras(file, frame_index, movie.shape[0], faults),
        faults=faults,
        notes=notes,
    )
    return assemble(contents)


def _movie(file: h5py.File, path: Path) -> h5py.Dataset:
    movie = file.get("movie")
    if not isinstance(movie, h5py.Dataset):
        have = ", ".join(list(file.keys())[:12]) or "nothing"
        raise RecordingError(RecordingReason.BAD_DATASET, f"'{path.name}' has no dataset 'movie' (it has: {have})")
    if movie.shape is None:
        raise RecordingError(RecordingReason.BAD_DATASET, "dataset 'movie' is empty")
    check_frames(movie.shape, movie.dtype, "movie")
    if movie.chunks and int(np.prod(movie.chunks, dtype=object)) * movie.dtype.itemsize > _LARGEST_BYTES:
        raise RecordingError(
            RecordingReason.BAD_DATASET, f"dataset 'movie' has chunks of {movie.chunks}: too large to read"
        )
    return movie


def _stored_frames(movie: h5py.Dataset, path: Path, faults: list[Fault]) -> np.ndarray:
    """Indices of the frames that are really in the file: what was declared and never written reads as zeros."""
    declared = movie.shape[0]
    layout = movie.id.get_create_plist().get_layout()
    if layout == h5py.h5d.CHUNKED:
        stored = _stored_in_chunks(movie)
    elif layout == h5py.h5d.CONTIGUOUS and not movie.external:
        stored = np.arange(_stored_contiguous(movie, path))
    else:
        stored = np.arange(min(declared, _MOST_FRAMES))
    if len(stored) == 0:
        detail = f"dataset 'movie' declares {declared} frames of {movie.shape[1]} x {movie.shape[2]} and stores none"
        raise RecordingError(RecordingReason.TRUNCATED, detail, 0)
    if len(stored) < declared:
        gaps = np.flatnonzero(stored != np.arange(len(stored)))
        first = int(gaps[0]) if len(gaps) else len(stored)
        faults.append(Fault.truncated(f"'movie' stores {len(stored)} of its {declared} frames, none at {first}", first))
    return stored


def _stored_contiguous(movie: h5py.Dataset, path: Path) -> int:
    offset = movie.id.get_offset()
    if offset is None:
        return 0
    frame_bytes = movie.shape[1] * movie.shape[2] * movie.dtype.itemsize
    return min(movie.shape[0], max(path.stat().st_size - offset, 0) // frame_bytes)


def _stored_in_chunks(movie: h5py.Dataset) -> np.ndarray:
    declared, chunk = movie.shape[0], movie.chunks
    layer = int(np.prod([-(-size // c) for size, c in zip(movie.shape[1:], chunk[1:], strict=True)], dtype=object))
    found = movie.id.get_num_chunks()
    if found > _MOST_FRAMES or found * chunk[0] > 16 * _MOST_FRAMES:
        raise RecordingError(RecordingReason.BAD_DATASET, f"dataset 'movie' has {found} chunks: too many to read")
    if found == layer * -(-declared // chunk[0]):
        return np.arange(declared)
    starts: list[int] = []
    movie.id.chunk_iter(lambda info: starts.append(info.chunk_offset[0]))
    begin, count = np.unique(np.array(starts, dtype=np.int64), return_counts=True)
    whole = begin[count == layer]
    frames = (whole[:, None] + np.arange(chunk[0])).ravel()
    return frames[frames < declared]


def _times(
    file: h5py.File, declared: int, values: RecordingValues, cell: CellRecord | None, notes: list[str]
) -> np.ndarray | None:
    """`camera_timing` in seconds, as stored; None when the frame interval is given instead."""
    if values.frame_interval_s is not None:
        notes.append(f"frame interval {values.frame_interval_s} s as given")
        return None
    if "camera_timing" not in file:
        detail = "there is no dataset 'camera_timing': 'frame_interval_s' must be given"
        raise RecordingError(RecordingReason.MISSING_VALUE, detail)
    dataset = file["camera_timing"]
    t = _timing_row(dataset)
    span_s = float(cell.t_s[-1] - cell.t_s[0]) if cell is not None else float("nan")
    rising = t[advancing(t[:declared], "camera_timing", [])]
    declared_unit = dataset.attrs.get("units", dataset.attrs.get("unit", ""))
    stated = stated_unit(str(declared_unit), values.camera_timing_unit)
    unit, how = stated or recognised_unit(rising, span_s, values.exposure_us)
    slow = len(rising) > 1 and float(np.median(np.diff(rising))) > 2.0  # could be read as milliseconds
    if unit != "s" or slow:
        notes.append(f"'camera_timing' taken as {UNIT_WORDS[unit]}, {how}")
    return t * UNIT_S[unit]


def _timing_row(dataset: Any) -> np.ndarray:
    shape = getattr(dataset, "shape", None)
    if not shape or len(shape) > 2 or 0 in shape:
        detail = f"dataset 'camera_timing' has shape {shape} instead of N, or R x N with the times in row 1"
        raise RecordingError(RecordingReason.BAD_DATASET, detail)
    if len(shape) == 2 and shape[0] < 2:
        return _numbers(dataset, "camera_timing", np.s_[0])
    return _numbers(dataset, "camera_timing", np.s_[1] if len(shape) == 2 else np.s_[:])


def _counter(file: h5py.File, frame_index: np.ndarray, faults: list[Fault]) -> np.ndarray | None:
    """Row 0 of a `camera_timing` of several rows at `frame_index`; None without, or when it cannot be read."""
    dataset = file.get("camera_timing")
    shape = getattr(dataset, "shape", None)
    if dataset is None or not shape or len(shape) != 2 or shape[0] < 2 or frame_index[-1] >= shape[1]:
        return None
    try:
        return _numbers(dataset, "camera_timing", np.s_[0])[frame_index]
    except RecordingError as error:
        faults.append(Fault(error.code, f"{error.detail}; the camera's counter is left out"))
        return None


def _numbers(dataset: h5py.Dataset, name: str, part: Any = np.s_[...], count: int = 1) -> np.ndarray:
    """A part of a small dataset as float64. Raises `RecordingError` when it is no numbers or too large to be true."""
    if dataset.dtype.kind not in "fiu":
        detail = f"dataset '{name}' holds {dataset.dtype} instead of numbers"
        raise RecordingError(RecordingReason.BAD_DATASET, detail)
    if count * int(dataset.shape[-1]) * 8 > _LARGEST_BYTES:
        raise RecordingError(RecordingReason.BAD_DATASET, f"dataset '{name}' declares shape {dataset.shape}")
    with refused_as(RecordingReason.BAD_DATASET, f"dataset '{name}' cannot be read"):
        return np.asarray(dataset[part], dtype=np.float64)


def _kept(
    stored: np.ndarray, times: np.ndarray | None, declared: int, values: RecordingValues, faults: list[Fault]
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the frames to use and their times in seconds."""
    if times is None:
        return stored, stored * float(values.frame_interval_s or 0.0)
    if len(times) != declared:
        first = min(len(times), declared)
        faults.append(Fault.bad_dataset(f"'camera_timing' has {len(times)} times for {declared} frames", first))
    frame_index = stored[stored < len(times)]
    t = times[frame_index]
    kept = advancing(t, "camera_timing", faults)
    return frame_index[kept], t[kept]


def _cell(file: h5py.File, path: Path, faults: list[Fault], notes: list[str]) -> CellRecord | None:
    """The cell's record on the potentiostat's clock."""
    dataset = file.get("potentiostat_value")
    if dataset is None:
        sidecar = find_sidecar(path)
        return read_sidecar(sidecar, faults, notes) if sidecar else None
    shape = getattr(dataset, "shape", None)
    if not shape or len(shape) != 2 or shape[0] < 4:
        what = f"'potentiostat_value' has shape {shape} instead of rows V, mA, mAh, s: the cell is left out"
        faults.append(Fault.bad_dataset(what))
        return None
    try:
        rows = _numbers(dataset, "potentiostat_value", np.s_[:4], count=4)
    except RecordingError as error:
        faults.append(Fault(error.code, f"{error.detail}; the cell is left out", error.index))
        return None
    return record_from_rows(rows, "potentiostat_value", faults, notes)


def _map(file: h5py.File, name: str, shape: tuple[int, int], faults: list[Fault]) -> np.ndarray | None:
    """A calibration map as (H, W) float32; None, with a fault, when it does not fit the frames."""
    dataset = file.get(name)
    if dataset is None:
        return None
    if getattr(dataset, "shape", None) != shape:
        faults.append(
            Fault.bad_dataset(f"'{name}' has shape {getattr(dataset, 'shape', None)}, frames {shape}: left out")
        )
        return None
    try:
        return _numbers(dataset, name, count=shape[0]).astype(np.float32)
    except RecordingError as error:
        faults.append(Fault(error.code, f"{error.detail}; left out"))
        return None


def _extras(file: h5py.File, frame_index: np.ndarray, declared: int, faults: list[Fault]) -> dict[str, np.ndarray]:
    extras = {}
    for name in _EXTRAS:
        dataset = file.get(name)
        shape = getattr(dataset, "shape", None)
        if dataset is None or not shape or len(shape) > 2 or shape[0] > 16 * declared:
            continue
        try:
            array = _numbers(dataset, name, count=shape[0] if len(shape) == 2 else 1)
        except RecordingError as error:
            faults.append(Fault(error.code, f"{error.detail}; left out"))
            continue
        extras[name] = array[..., frame_index] if array.shape[-1] == declared else array
    return extras
