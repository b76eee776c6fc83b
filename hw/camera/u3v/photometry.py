"""What a camera must be set to so that its pixels count light, and what of it could not be set."""

from __future__ import annotations

from typing import Any

from hw.camera.u3v.nodes import Nodes
from hw.errors import CameraError

PLAIN: tuple[tuple[str, Any], ...] = (
    ("ExposureMode", "Timed"),
    ("ExposureAuto", "Off"),
    ("GainAuto", "Off"),
    ("BlackLevelAuto", "Off"),
    ("BalanceWhiteAuto", "Off"),
    ("GammaEnable", False),
    ("Gamma", 1.0),
    ("LUTEnable", False),
    ("SharpnessEnable", False),
    ("SharpeningEnable", False),
    ("SharpnessAuto", "Off"),
    ("NoiseReductionEnable", False),
    ("SaturationEnable", False),
    ("ContrastEnable", False),
    ("DefectCorrectionEnable", False),
    ("DefectCorrectStaticEnable", False),
    ("PixelCorrectionEnable", False),
    ("TestPattern", "Off"),
    ("TestImageSelector", "Off"),
    ("ImageCompressionMode", "Off"),
    ("GenDCStreamingMode", "Off"),
    ("ReverseX", False),
    ("ReverseY", False),
    ("DecimationHorizontal", 1),
    ("DecimationVertical", 1),
    ("AcquisitionMode", "Continuous"),
)
"""Features (SFNC and common names of makers) and the value at which they leave the pixels alone. Features that a camera
has not are passed over."""


def leave_pixels_alone(nodes: Nodes) -> list[str]:
    """Switch off everything that changes pixels by itself; sentences on what stayed on. Raises `UsbError`.

    Only what is read back counts as set.
    """
    notes = [one for name, value in PLAIN if (one := _set(nodes, name, value)) is not None]
    return notes + _free_run(nodes)


def _set(nodes: Nodes, name: str, value: Any) -> str | None:
    """None when it is `value` now, or is not there; else why not."""
    found = nodes.get(name)
    if found is None or found == value:
        return None
    if isinstance(value, str) and value not in nodes.entries(name):
        return f"{name} cannot be {value}: it is {found}"
    try:
        nodes.set(name, value)
    except CameraError as error:
        return f"{name} stays {found}: {error.detail}"
    found = nodes.get(name)
    return None if found == value or found is None else f"{name} stays {found} where {value} was asked for"


def _free_run(nodes: Nodes) -> list[str]:
    """Triggers off, for each selector: a burst trigger that is left on looks like a camera that sends nothing."""
    notes = []
    selectable = nodes.entries("TriggerSelector") if nodes.writable("TriggerSelector") else []
    for entry in selectable or [""]:
        if entry:
            nodes.set("TriggerSelector", entry)
        if (note := _set(nodes, "TriggerMode", "Off")) is not None:
            notes.append(f"{note} ({entry})" if entry else note)
    return notes
