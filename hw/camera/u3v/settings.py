"""Options of the driver `u3v`, and how they reach the camera."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hw.camera.contract import PixelFormat
from hw.camera.u3v.nodes import Nodes
from hw.errors import CameraError, CameraReason

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Pixels = Annotated[int, Field(ge=1)]

PFNC = {0x01080001: "Mono8", 0x010A0046: "Mono10p", 0x01100005: "Mono12", 0x010C0047: "Mono12p", 0x01100007: "Mono16"}
"""Codes of the Pixel Format Naming Convention for the formats of `PixelFormat`."""
CODES = {name: code for code, name in PFNC.items()}
RATES = ("AcquisitionFrameRate", "AcquisitionFrameRateAbs")
RESULTING_RATES = ("AcquisitionResultingFrameRate", "ResultingFrameRate", "ResultingFrameRateAbs")
EXPOSURES = ("ExposureTime", "ExposureTimeAbs")


class U3vSettings(BaseModel):
    """Which camera, and what it is set to. What is absent stays as the camera has it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    serial: str = ""
    """Its serial number, GUID or user name; empty: the only camera on the bus."""
    width_px: Pixels | None = None
    height_px: Pixels | None = None
    """Of the region that is read; the whole sensor when absent."""
    offset_x_px: int = Field(default=0, ge=0)
    offset_y_px: int = Field(default=0, ge=0)
    binning: int | None = Field(default=None, ge=1, le=8)
    pixel_format: Literal["Mono8", "Mono10p", "Mono12", "Mono12p", "Mono16"] | None = None
    exposure_us: Positive | None = None
    frame_rate_hz: Positive | None = None
    gain: float | None = None
    """In the camera's own unit, dB with most."""
    black_level: float | None = None
    gain_e_per_dn: Positive | None = None
    read_noise_e: NotNegative | None = None
    dark_dn: NotNegative | None = None
    pixel_size_nm: Positive | None = None
    """Object-side size of a pixel as it is read, binning included."""
    trigger_source: str = ""
    """Line that triggers each frame (`Line0`); empty: the camera runs freely."""
    trigger_activation: Literal["RisingEdge", "FallingEdge", "AnyEdge", "LevelHigh", "LevelLow"] = "RisingEdge"
    trigger_delay_us: NotNegative = 0.0
    output_line: str = ""
    """Line that is driven by `output_source` (`Line1`)."""
    output_source: str = "ExposureActive"
    features: dict[str, bool | int | float | str] = {}
    """Further features by their standard names, set last and in this order."""
    chunks: bool = False
    """Have the camera send each frame's exposure with it, and date the frame by that."""
    timestamp_at: Literal["start", "middle", "end"] = "start"
    """Which moment of the exposure the camera stamps."""
    queue_frames: int = Field(default=8, ge=2, le=128)
    transfer_mb: Annotated[float, Field(gt=0, le=8)] = 8.0
    """Largest single transfer."""
    halt_first: bool = True
    """Stall the stream's endpoint before clearing it."""
    frozen_after_s: Positive = 2.0
    """How long one picture may repeat."""
    cache: str = ""
    """Directory for cameras' descriptions; the service's cache directory when empty."""


def apply(nodes: Nodes, settings: U3vSettings) -> None:
    """Set format, geometry, lines and light, in the order in which they depend on each other.

    Raises `CameraError` (BAD_SETTING) naming the option, `UsbError`.
    """
    if settings.binning is not None:
        for name in ("BinningHorizontal", "BinningVertical"):
            option(nodes, "binning", name, settings.binning)
    if settings.pixel_format is not None:
        option(nodes, "pixel_format", "PixelFormat", settings.pixel_format)
    _geometry(nodes, settings)
    for name, value in (("gain", settings.gain), ("black_level", settings.black_level)):
        if value is not None:
            option(nodes, name, "Gain" if name == "gain" else "BlackLevel", value)
    if settings.exposure_us is not None:
        set_exposure(nodes, settings.exposure_us)
    if settings.trigger_source:
        _trigger(nodes, settings)
    elif settings.frame_rate_hz is not None:
        set_frame_rate(nodes, settings.frame_rate_hz)
    if settings.output_line:
        option(nodes, "output_line", "LineSelector", settings.output_line)
        if nodes.writable("LineMode"):
            option(nodes, "output_line", "LineMode", "Output")
        option(nodes, "output_source", "LineSource", settings.output_source)
    if settings.chunks:
        option(nodes, "chunks", "ChunkModeActive", True)
        option(nodes, "chunks", "ChunkSelector", "ExposureTime")
        option(nodes, "chunks", "ChunkEnable", True)
    for name, given in settings.features.items():
        option(nodes, f"features.{name}", name, given)


def option(nodes: Nodes, name: str, feature: str, value: Any) -> None:
    """Set a feature for an option; a refusal names both."""
    try:
        nodes.set(feature, value)
    except CameraError as error:
        told = f"{name}: {error.detail}"
        if isinstance(value, str) and (known := nodes.entries(feature)):
            told += f" (known: {', '.join(known)})"
        raise CameraError(CameraReason.BAD_SETTING, told) from error


def _geometry(nodes: Nodes, settings: U3vSettings) -> None:
    """Offsets to nought first: they bound the size."""
    for name in ("OffsetX", "OffsetY"):
        if nodes.writable(name):
            nodes.set(name, 0)
    sizes = (("width_px", "Width", "OffsetX"), ("height_px", "Height", "OffsetY"))
    for name, feature, offset in sizes:
        size = getattr(settings, name)
        if size is None and nodes.writable(feature):
            size = int(nodes.limits(feature)[1])
        if size is not None and size != nodes.get(feature):
            option(nodes, name, feature, size)
        place = settings.offset_x_px if offset == "OffsetX" else settings.offset_y_px
        if place:
            option(nodes, name.replace("width", "offset_x").replace("height", "offset_y"), offset, place)


def _trigger(nodes: Nodes, settings: U3vSettings) -> None:
    if "FrameStart" in nodes.entries("TriggerSelector"):
        nodes.set("TriggerSelector", "FrameStart")
    option(nodes, "trigger_source", "TriggerSource", settings.trigger_source)
    if nodes.writable("TriggerActivation"):
        option(nodes, "trigger_activation", "TriggerActivation", settings.trigger_activation)
    if settings.trigger_delay_us:
        option(nodes, "trigger_delay_us", "TriggerDelay", settings.trigger_delay_us)
    option(nodes, "trigger_source", "TriggerMode", "On")


def set_exposure(nodes: Nodes, exposure_us: float) -> None:
    """Raises `CameraError` (BAD_SETTING)."""
    _bounded(nodes, "exposure_us", _first(nodes, EXPOSURES), exposure_us)


def set_frame_rate(nodes: Nodes, frame_rate_hz: float) -> None:
    """Switch the camera's own pace on, whatever its maker calls that, and set it. Raises as `set_exposure`."""
    for name, value in (
        ("AcquisitionFrameRateAuto", "Off"),
        ("AcquisitionFrameRateEnable", True),
        ("AcquisitionFrameRateEnabled", True),
    ):
        if nodes.writable(name):
            nodes.set(name, value)
    _bounded(nodes, "frame_rate_hz", _first(nodes, RATES), frame_rate_hz)


def frame_rate(nodes: Nodes) -> float | None:
    """Frames a second that the camera will send, as far as it says."""
    return nodes.number(*RESULTING_RATES, *RATES)


def exposure(nodes: Nodes) -> float | None:
    """Exposure in microseconds."""
    return nodes.number(*EXPOSURES)


def pixel_format(nodes: Nodes) -> PixelFormat:
    """Raises `CameraError` (BAD_SETTING) for one that this software does not measure in."""
    found = nodes.get("PixelFormat")
    if found not in CODES:
        usable = [one for one in nodes.entries("PixelFormat") if one in CODES]
        detail = f"pixel_format: the camera is set to {found}; it also has {', '.join(usable) or 'none that is known'}"
        raise CameraError(CameraReason.BAD_SETTING, detail)
    return PixelFormat(found)


def _first(nodes: Nodes, names: tuple[str, ...]) -> str:
    return next((name for name in names if nodes.readable(name)), names[0])


def _bounded(nodes: Nodes, name: str, feature: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CameraError(CameraReason.BAD_SETTING, f"{name} = {value!r} is no number")
    low, high = nodes.limits(feature)
    if not low <= value <= high or value <= 0:
        raise CameraError(CameraReason.BAD_SETTING, f"{name} = {value:g} is outside of {low:g} to {high:g}")
    option(nodes, name, feature, float(value))
