"""From what a file holds to what a camera would say of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hw.camera.contract import CameraInfo, PixelFormat
from hw.errors import RecordingError
from hw.recording.cell_record import CellRecord
from hw.recording.faults import Fault
from hw.recording.recording import FrameSource, Recording
from hw.recording.values import RecordingValues


@dataclass
class Contents:
    """What a file's reader found. `t_s` and the cell's times still have their own zeros."""

    path: Path
    source: FrameSource
    values: RecordingValues
    t_s: np.ndarray
    frame_index: np.ndarray
    block_id: np.ndarray
    cell: CellRecord | None
    dark: np.ndarray | None
    flat: np.ndarray | None
    extras: dict[str, np.ndarray]
    faults: list[Fault]
    notes: list[str]


def clock_id(path: Path) -> str:
    """Name of the clock that frames and cell of one recording share."""
    return f"recording:{path.resolve()}"


def assemble(contents: Contents) -> Recording:
    """The recording of these contents. Raises `RecordingError` when not one sampled frame can be read."""
    samples = _sampled_frames(contents)
    bit_depth = _bit_depth(contents, samples)
    values = contents.values
    return Recording(
        contents.path,
        contents.source,
        _camera_info(contents, bit_depth),
        contents.t_s - contents.t_s[0],
        contents.frame_index,
        contents.block_id,
        bit_depth=bit_depth,
        cell=_cell_on_camera_clock(contents),
        electrode=values.electrode,
        capacity_mah=values.capacity_mah,
        extras=contents.extras,
        faults=contents.faults,
        notes=contents.notes,
    )


def _camera_info(contents: Contents, bit_depth: int) -> CameraInfo:
    values, source = contents.values, contents.source
    return CameraInfo(
        model="recording",
        serial=contents.path.name,
        height_px=source.height_px,
        width_px=source.width_px,
        pixel_format=_pixel_format(source.dtype, bit_depth),
        frame_rate_hz=1.0 / _interval_s(contents),
        exposure_us=values.exposure_us,
        gain_e_per_dn=values.gain_e_per_dn,
        read_noise_e=values.read_noise_e,
        dark_dn=values.dark_dn,
        pixel_size_nm=values.pixel_size_nm,
        clock_id=clock_id(contents.path),
        dark=_finite(contents.dark, "dark", contents.faults),
        flat=_relative(contents.flat, contents.faults),
        significant_bits=bit_depth,
    )


def _pixel_format(dtype: np.dtype, bit_depth: int) -> PixelFormat:
    if dtype.itemsize == 1:
        return PixelFormat.MONO8
    return PixelFormat.MONO12 if bit_depth == 12 else PixelFormat.MONO16


def _interval_s(contents: Contents) -> float:
    if len(contents.t_s) > 1:
        return float(np.median(np.diff(contents.t_s)))
    return contents.values.frame_interval_s or 1.0


def _sampled_frames(contents: Contents) -> np.ndarray:
    """First, middle and last frame, those that can be read."""
    source, places = contents.source, contents.frame_index
    frames = np.empty((3, source.height_px, source.width_px), source.dtype)
    good = []
    failures: list[RecordingError] = []
    for i, place in enumerate((places[0], places[len(places) // 2], places[-1])):
        try:
            source.read_into(frames[i : i + 1], int(place))
            good.append(i)
        except RecordingError as error:
            failures.append(error)
    if not good:
        raise failures[0]
    return frames[good]


def _bit_depth(contents: Contents, samples: np.ndarray) -> int:
    """Given, or what saturated pixels show, or the full width of the type."""
    container = 8 * contents.source.dtype.itemsize
    given, brightest = contents.values.bit_depth, int(samples.max())
    if given is not None:
        if given > container or brightest >= 1 << given:
            contents.faults.append(Fault.bad_dataset(f"'movie' has {brightest} DN, beyond bit_depth {given}"))
            return container
        return given
    for depth in (10, 12, 14):
        if container == 16 and brightest == (1 << depth) - 1 and np.count_nonzero(samples == brightest) > 1:
            contents.notes.append(f"bit depth {depth} estimated: sampled pixels saturate at {brightest} DN")
            return depth
    if container == 16:
        contents.notes.append("bit depth unknown: saturation is looked for at 65535 DN")
    return container


def _cell_on_camera_clock(contents: Contents) -> CellRecord | None:
    if contents.cell is None:
        return None
    offset_s = (contents.values.potentiostat_offset_s or 0.0) - float(contents.t_s[0])
    cell = contents.cell.shifted(offset_s)
    movie_s = float(contents.t_s[-1] - contents.t_s[0])
    if cell.t_s[-1] < 0 or cell.t_s[0] > movie_s:
        what = f"the cell's record covers {cell.t_s[0]:.6g} to {cell.t_s[-1]:.6g} s of the camera's clock"
        contents.faults.append(
            Fault.bad_dataset(f"{what}, the frames 0 to {movie_s:.6g} s: give 'potentiostat_offset_s'")
        )
    return cell


def _finite(image: np.ndarray | None, name: str, faults: list[Fault]) -> np.ndarray | None:
    if image is None or np.isfinite(image).all():
        return image
    y, x = np.argwhere(~np.isfinite(image))[0]
    faults.append(Fault.bad_dataset(f"'{name}' is not a number at ({y}, {x}): left out"))
    return None


def _relative(flat: np.ndarray | None, faults: list[Fault]) -> np.ndarray | None:
    """The flat field scaled to mean 1."""
    flat = _finite(flat, "flat", faults)
    if flat is None:
        return None
    if flat.min() <= 0:
        y, x = np.unravel_index(int(flat.argmin()), flat.shape)
        faults.append(Fault.bad_dataset(f"'flat' is {flat[y, x]:.3g} at ({y}, {x}), not above 0: left out"))
        return None
    return (flat / flat.mean(dtype=np.float64)).astype(np.float32)
