"""What OME-XML, ImageJ and tifffile's own descriptions say beside the pixels of a TIFF."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from hw.recording.values import VALUE_NAMES

_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "µs": 1e-6, "μs": 1e-6,
            "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}  # fmt: skip
_NANOMETRES = {"nm": 1.0, "µm": 1e3, "μm": 1e3, "um": 1e3, "micron": 1e3, "microns": 1e3, "\\u00b5m": 1e3, "mm": 1e6}


@dataclass
class TiffFacts:
    """`values` by the names of `RecordingValues`; `t_s` (N,) one time a frame, where each plane carries one."""

    values: dict[str, Any] = field(default_factory=dict)
    t_s: np.ndarray | None = None


def tiff_facts(tif: tifffile.TiffFile, notes: list[str]) -> TiffFacts:
    """Everything the file says of itself; what cannot be understood is noted and left unknown."""
    if tif.is_ome and tif.ome_metadata:
        return _ome_facts(tif.ome_metadata, notes)
    if tif.is_imagej and tif.imagej_metadata:
        return _imagej_facts(tif)
    shaped = tif.shaped_metadata
    described = shaped[0] if shaped else {}
    return TiffFacts({name: value for name, value in described.items() if name in VALUE_NAMES})


def _ome_facts(xml: str, notes: list[str]) -> TiffFacts:
    try:
        pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    except ElementTree.ParseError as error:
        notes.append(f"OME-XML cannot be parsed ({error}): its values are unknown")
        return TiffFacts()
    if pixels is None:
        return TiffFacts()
    facts = TiffFacts()
    planes = pixels.findall("{*}Plane")
    _put(facts, "frame_interval_s", _quantity(pixels, "TimeIncrement", _SECONDS, "s"))
    _put(facts, "pixel_size_nm", _ome_pixel_size(pixels, notes))
    _put(facts, "bit_depth", pixels.get("SignificantBits"))
    if planes:
        exposure_s = _quantity(planes[0], "ExposureTime", _SECONDS, "s")
        _put(facts, "exposure_us", None if exposure_s is None else 1e6 * exposure_s)
        facts.t_s = np.array([_quantity(plane, "DeltaT", _SECONDS, "s") or 0.0 for plane in planes])
        if not facts.t_s.any():
            facts.t_s = None
    if facts.t_s is not None:  # measured times say more than a nominal interval
        facts.values.pop("frame_interval_s", None)
        notes.append("times from the planes' DeltaT")
    return facts


def _ome_pixel_size(pixels: ElementTree.Element, notes: list[str]) -> float | None:
    x_nm, y_nm = (_quantity(pixels, f"PhysicalSize{axis}", _NANOMETRES, "µm") for axis in "XY")
    if x_nm and y_nm and abs(x_nm / y_nm - 1) > 0.01:
        notes.append(f"pixels of {x_nm:.4g} x {y_nm:.4g} nm are not square: pixel size unknown")
        return None
    return x_nm


def _imagej_facts(tif: tifffile.TiffFile) -> TiffFacts:
    described = tif.imagej_metadata or {}
    facts = TiffFacts()
    interval, unit = described.get("finterval"), str(described.get("tunit", "sec")).strip().lower()
    if isinstance(interval, int | float) and interval > 0 and unit in _SECONDS:
        facts.values["frame_interval_s"] = interval * _SECONDS[unit]
    length = _NANOMETRES.get(str(described.get("unit", "")).strip().lower())
    resolution = tif.pages.first.tags.valueof("XResolution")
    if length and isinstance(resolution, tuple) and len(resolution) == 2 and all(resolution):
        facts.values["pixel_size_nm"] = length * resolution[1] / resolution[0]
    return facts


def _put(facts: TiffFacts, name: str, value: Any) -> None:
    if value is not None:
        facts.values[name] = value


def _quantity(element: ElementTree.Element, name: str, units: dict[str, float], default: str) -> float | None:
    """An attribute that is a number with its unit beside it; None when absent or in a unit we do not know."""
    unit = units.get(element.get(f"{name}Unit", default))
    try:
        number = float(element.get(name, ""))
    except ValueError:
        return None
    return number * unit if unit and np.isfinite(number) and number > 0 else None
