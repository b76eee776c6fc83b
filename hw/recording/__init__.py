"""Recordings of this field's instruments: HDF5 and TIFF, with the cell's record beside the frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hw.errors import RecordingError, RecordingReason
from hw.recording.cell_record import CellRecord
from hw.recording.faults import Fault, refused_as
from hw.recording.recording import Recording
from hw.recording.values import VALUE_NAMES, RecordingValues, checked_overrides

__all__ = ["VALUE_NAMES", "CellRecord", "Fault", "Recording", "RecordingValues", "open_recording"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_USER_BLOCKS = (0, 512, 1024, 2048, 4096)  # HDF5 may begin behind a user block of these sizes


def open_recording(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recording:
    """The recording at `path`, recognised by its content; `overrides` (names of `VALUE_NAMES`) win over the file.

    Raises `RecordingError` that names the dataset and the index at fault; what can be survived is in `faults`.
    """
    import numpy as np

    path = Path(path)
    given = checked_overrides(overrides or {})
    kind = _kind(path)
    with np.errstate(all="ignore"), refused_as(RecordingReason.UNREADABLE, f"'{path.name}' cannot be read"):
        if kind == "hdf5":
            from hw.recording.hdf5 import open_hdf5

            return open_hdf5(path, given)
        from hw.recording.tiff import open_tiff

        return open_tiff(path, given)


def _kind(path: Path) -> str:
    try:
        if not path.is_file():
            what = "is a directory" if path.is_dir() else "does not exist"
            raise RecordingError(RecordingReason.UNREADABLE, f"'{path}' {what}")
        with path.open("rb") as file:
            head = file.read(_USER_BLOCKS[-1] + len(_HDF5))
    except OSError as error:
        raise RecordingError(RecordingReason.UNREADABLE, f"'{path}' cannot be read: {error.strerror}") from error
    if any(head[at : at + len(_HDF5)] == _HDF5 for at in _USER_BLOCKS):
        return "hdf5"
    if head[:4] in _TIFF:
        return "tiff"
    what = "is empty" if not head else "is neither HDF5 nor TIFF"
    raise RecordingError(RecordingReason.UNREADABLE, f"'{path}' {what}")
