"""TIFF recordings: OME-TIFF, ImageJ stacks and plain multi-page files."""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from hw.errors import RecordingError, RecordingReason
from hw.recording.cell_record import find_sidecar, read_sidecar
from hw.recording.describe import Contents, assemble
from hw.recording.faults import Fault, refused_as
from hw.recording.recording import Recording, check_frames
from hw.recording.tiff_metadata import TiffFacts, tiff_facts
from hw.recording.time_axis import advancing
from hw.recording.values import RecordingValues, read_values


class ContiguousFrames:
    """Frames that lie behind one another in the file, read without asking for pages."""

    chunk_frames = 1

    def __init__(self, tif: tifffile.TiffFile, offset: int, shape: tuple[int, int], dtype: np.dtype) -> None:
        self.height_px, self.width_px = shape
        self.dtype = dtype.newbyteorder("=")
        self._stored_dtype = dtype
        self._offset = offset
        self._tif = tif

    def read_into(self, out: np.ndarray, start: int) -> None:
        """Fill `out` (n, H, W) with frames `start`... Raises `RecordingError`."""
        with refused_as(RecordingReason.TRUNCATED, f"frame {start} cannot be read", start):
            place = self._offset + start * out[0].nbytes
            self._tif.filehandle.seek(place)
            raw: Any = out.reshape(-1).view(np.uint8)
            got = self._tif.filehandle.readinto(raw)
            if got < out.nbytes:
                what = f"the file ends within frame {start + got // out[0].nbytes}"
                raise RecordingError(RecordingReason.TRUNCATED, what)
            if self._stored_dtype != self.dtype:
                out.byteswap(inplace=True)

    def close(self) -> None:
        """Release the file; idempotent."""
        self._tif.close()


class PagedFrames:
    """Frames that are pages of their own, compressed or scattered."""

    chunk_frames = 1

    def __init__(self, tif: tifffile.TiffFile, pages: Sequence[Any], shape: tuple[int, int], dtype: np.dtype) -> None:
        self.height_px, self.width_px = shape
        self.dtype = dtype.newbyteorder("=")
        self._pages = pages
        self._tif = tif

    def read_into(self, out: np.ndarray, start: int) -> None:
        """Fill `out` (n, H, W) with pages `start`... Raises `RecordingError`."""
        for i in range(len(out)):
            place = start + i
            with refused_as(RecordingReason.TRUNCATED, f"page {place} cannot be read", place), _quiet():
                out[i] = self._pages[place].asarray(maxworkers=1)

    def close(self) -> None:
        """Release the file; idempotent."""
        self._tif.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """tifffile logs what it finds wrong; here that comes out as an error or a fault instead."""
    logger = logging.getLogger("tifffile")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def open_tiff(path: Path, given: RecordingValues) -> Recording:
    """The TIFF recording at `path`. Raises `RecordingError`."""
    with _quiet():
        with refused_as(RecordingReason.UNREADABLE, f"'{path.name}' cannot be opened as TIFF"):
            tif = tifffile.TiffFile(path)
        try:
            with refused_as(RecordingReason.BAD_DATASET, f"'{path.name}' is damaged"):
                return _read(path, tif, given)
        except BaseException:
            tif.close()
            raise


def _read(path: Path, tif: tifffile.TiffFile, given: RecordingValues) -> Recording:
    faults: list[Fault] = []
    notes: list[str] = []
    facts = tiff_facts(tif, notes)
    values = read_values(facts.values, given, faults)
    source, stored, declared = _frames(tif, path, faults)
    frame_index, t_s = _times(stored, declared, facts, values, faults)
    sidecar = find_sidecar(path)
    contents = Contents(
        path=path,
        source=source,
        values=values,
        t_s=t_s,
        frame_index=frame_index,
        block_id=frame_index,
        cell=read_sidecar(sidecar, faults, notes) if sidecar else None,
        dark=None,
        flat=None,
        extras={},
        faults=faults,
        notes=notes,
    )
    return assemble(contents)


def _frames(
    tif: tifffile.TiffFile, path: Path, faults: list[Fault]
) -> tuple[ContiguousFrames | PagedFrames, np.ndarray, int]:
    """The frames, the indices of those that are there, and how many the file declares."""
    chained = _page_chain(tif)
    series = tif.series[0]
    first = tif.pages.first
    _check_mono(first, series, path)
    shape = (int(series.shape[-2]), int(series.shape[-1]))
    dtype = series.dtype.newbyteorder(tif.byteorder)
    declared = _declared(tif, series)
    check_frames((max(declared, 1), *shape), series.dtype, path.name)
    pages, one_stack = _pages(tif, series, chained, faults)
    offset = first.dataoffsets[0] if series.dataoffset is None and declared > len(pages) else series.dataoffset
    if one_stack and offset is not None and first.is_contiguous and first.compression == 1:
        stored = _whole_contiguous(tif, offset, shape, dtype, declared)
        source: ContiguousFrames | PagedFrames = ContiguousFrames(tif, offset, shape, dtype)
    else:
        stored = _whole_pages(pages, tif.filehandle.size)
        declared = max(declared, len(pages))
        source = PagedFrames(tif, pages, shape, dtype)
    _note_missing(path, declared, stored, faults)
    if len(stored) == declared and len(tif.pages) < chained:
        faults.append(Fault.truncated(f"'{path.name}' breaks off after frame {declared - 1}", declared))
    return source, stored, declared


def _pages(tif: tifffile.TiffFile, series: Any, chained: int, faults: list[Fault]) -> tuple[list[Any], bool]:
    """The pages that are frames, and whether they were written as one stack.

    Programs that append frame by frame leave a series a frame: series of the same kind of image are one recording.
    """
    alike = [one for one in tif.series if one.shape[-2:] == series.shape[-2:] and one.dtype == series.dtype]
    if len(tif.series) > 1 and len(alike) == len(tif.series):
        return list(tif.pages), False
    if len(tif.series) > 1:
        faults.append(Fault.bad_dataset(f"there are {len(tif.series)} image series: only the first is used"))
    if len(series.pages) < len(tif.pages) < chained:
        return [page for page in tif.pages if page.shape == tif.pages.first.shape], True
    return list(series.pages), True


def _check_mono(first: Any, series: Any, path: Path) -> None:
    axes, shape = series.axes, series.shape
    if first.samplesperpixel != 1 or "S" in axes or first.photometric not in (0, 1):
        detail = f"'{path.name}' holds colour images ({first.photometric.name}): one channel of raw DN is needed"
        raise RecordingError(RecordingReason.BAD_DATASET, detail, 0)
    if not axes.endswith("YX") or len(shape) > 3 or (len(shape) == 3 and axes[0] == "C"):
        detail = f"'{path.name}' has axes {axes} of {shape} instead of frames x height x width"
        raise RecordingError(RecordingReason.BAD_DATASET, detail)


def _declared(tif: tifffile.TiffFile, series: Any) -> int:
    """Frames the file says it has; of an ImageJ stack the first page tells, whatever became of the others."""
    count = int(series.shape[0]) if len(series.shape) == 3 else 1
    if tif.is_imagej and tif.imagej_metadata:
        images = tif.imagej_metadata.get("images", 1)
        count = max(count, images) if isinstance(images, int) else count
    return count


def _whole_contiguous(
    tif: tifffile.TiffFile, offset: int, shape: tuple[int, int], dtype: np.dtype, declared: int
) -> np.ndarray:
    frame_bytes = shape[0] * shape[1] * dtype.itemsize
    return np.arange(min(declared, max(tif.filehandle.size - offset, 0) // frame_bytes))


def _whole_pages(pages: list[Any], file_bytes: int) -> np.ndarray:
    """Indices of the pages whose pixels are in the file; what is cut off is cut off at the end."""
    last = len(pages)
    while last and not _is_whole(pages[last - 1], file_bytes):
        last -= 1
    return np.array([i for i in range(last) if pages[i] is not None], dtype=np.int64)


def _is_whole(page: Any, file_bytes: int) -> bool:
    if page is None:
        return False
    ends = (offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False))
    return max(ends, default=file_bytes + 1) <= file_bytes


def _note_missing(path: Path, declared: int, stored: np.ndarray, faults: list[Fault]) -> None:
    whole = len(stored)
    if whole == 0:
        raise RecordingError(RecordingReason.TRUNCATED, f"'{path.name}' ends within its first frame", 0)
    if whole < declared:
        gaps = np.flatnonzero(stored != np.arange(whole))
        first = int(gaps[0]) if len(gaps) else whole
        faults.append(Fault.truncated(f"'{path.name}' holds {whole} of its {declared} frames, none at {first}", first))


def _page_chain(tif: tifffile.TiffFile) -> int:
    """Pages of the chain that the file names, one more when it names one that is not there.

    Raises `RecordingError` when the chain runs in a circle, which tifffile would follow for ever.
    """
    layout, file = tif.tiff, tif.filehandle
    seen: set[int] = set()
    offset = tif.pages.first.offset
    while offset:
        if offset in seen:
            detail = f"the chain of pages runs in a circle after page {len(seen) - 1}"
            raise RecordingError(RecordingReason.BAD_DATASET, detail, len(seen))
        seen.add(offset)
        try:
            file.seek(offset)
            (tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
            file.seek(tags * layout.tagsize, os.SEEK_CUR)
            (offset,) = struct.unpack(layout.offsetformat, file.read(layout.offsetsize))
        except (struct.error, ValueError, OverflowError):  # the file ends within the page's own directory
            break
    return len(seen)


def _times(
    stored: np.ndarray, declared: int, facts: TiffFacts, values: RecordingValues, faults: list[Fault]
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the frames to use and their times in seconds."""
    if values.frame_interval_s is not None:
        return stored, stored * values.frame_interval_s
    if facts.t_s is not None and len(facts.t_s) == declared:
        kept = advancing(facts.t_s[stored], "DeltaT", faults)
        return stored[kept], facts.t_s[stored[kept]]
    detail = "the file does not say its frame interval: 'frame_interval_s' must be given"
    if faults:
        detail += f" ({faults[0].detail})"
    raise RecordingError(RecordingReason.MISSING_VALUE, detail)
