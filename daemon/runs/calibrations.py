"""Which dark and flat frames a run may use: the camera's own, or stored ones that fit it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daemon.store.reader import CatalogueReader
from hw.camera.contract import CameraInfo

LEAST_FLAT = 0.05  # a dead pixel cannot divide
SAME_EXPOSURE = 0.01  # cameras round what they are asked for


@dataclass(frozen=True)
class Calibrations:
    """(H, W) float32 maps, `dark` in DN and `flat` relative; None where there is none that fits."""

    dark: np.ndarray | None
    flat: np.ndarray | None
    notes: tuple[str, ...]
    """What was left out, or does not fit quite. Sentences."""


def calibrations_for(info: CameraInfo, catalogue: Path) -> Calibrations:
    """The camera's own maps; in place of missing ones the newest stored frames of its size and bit depth.

    Counts of another bit depth mean other light: such a frame, and one that does not tell its depth, is left out, and
    a note says so. Blocks. Raises `StoreError`.
    """
    notes: list[str] = []
    with CatalogueReader(catalogue) as reader:
        dark = info.dark if info.dark is not None else _stored("dark", info, reader, notes)
        if info.flat is not None:
            return Calibrations(dark, info.flat, tuple(notes))
        flat = _stored("flat", info, reader, notes)
    return Calibrations(dark, None if flat is None else _relative(flat, dark), tuple(notes))


def _stored(kind: str, info: CameraInfo, reader: CatalogueReader, notes: list[str]) -> np.ndarray | None:
    found = reader.instrument_calibration(kind)
    if found is None:
        return None
    frame, about = found
    if misfit := _misfit(frame, about, info):
        notes.append(f"the {kind} frame is left out: {misfit}; take it anew")
        return None
    if kind == "dark" and _differ(about.get("exposure_us"), info.exposure_us):
        notes.append(
            f"the dark frame was taken with an exposure of {about['exposure_us']:g} us, the run has"
            f" {info.exposure_us:g} us"
        )
    return frame


def _differ(taken_us: float | None, now_us: float | None) -> bool:
    return taken_us is not None and now_us is not None and not math.isclose(taken_us, now_us, rel_tol=SAME_EXPOSURE)


def _misfit(frame: np.ndarray, about: dict[str, Any], info: CameraInfo) -> str:
    """Why the frame is of no use to this camera; empty when it is."""
    height_px, width_px = frame.shape
    if (height_px, width_px) != (info.height_px, info.width_px):
        return f"it has {height_px} x {width_px} pixels, the camera's {info.height_px} x {info.width_px}"
    depth = about.get("bit_depth")
    if depth is None:
        return "it does not tell its bit depth"
    if depth != info.bit_depth:
        was = about.get("pixel_format", "")
        return f"it has {depth} bits ({was}), the camera's frames {info.bit_depth} ({info.pixel_format.value})"
    return ""


def _relative(flat: np.ndarray, dark: np.ndarray | None) -> np.ndarray:
    level = flat - (0.0 if dark is None else dark)
    return np.maximum(level / level.mean(), LEAST_FLAT).astype(np.float32)
