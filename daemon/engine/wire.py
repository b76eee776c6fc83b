"""Measures and operators as messages of the link."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import numpy as np

from daemon.engine.link import Message
from daemon.engine.measures import Clip, Detection, MeasureBatch
from daemon.engine.operator import Operator
from daemon.engine.pipeline import PipelineSettings
from hw.camera.contract import CameraIdentity, PixelFormat

BATCH_SCALARS = ("camera_t0_s", "mask_version", "baseline_end_frame")
BATCH_LISTS = ("detections", "clips")
BATCH_ARRAYS = tuple(f.name for f in fields(MeasureBatch) if f.name not in (*BATCH_LISTS, *BATCH_SCALARS))
CLIP_ARRAYS = ("t_s", "pixels")
OPTIONAL_MAPS = ("dark_map", "flat_map")


def batch_message(batch: MeasureBatch) -> Message:
    """A batch, ready to cross to the daemon."""
    arrays = {name: getattr(batch, name) for name in BATCH_ARRAYS if getattr(batch, name) is not None}
    detections = [asdict(detection) for detection in batch.detections]
    scalars = {name: getattr(batch, name) for name in BATCH_SCALARS}
    clips = [{f.name: getattr(clip, f.name) for f in fields(clip) if f.name not in CLIP_ARRAYS} for clip in batch.clips]
    for number, clip in enumerate(batch.clips):
        arrays |= {f"clip.{number}.{name}": getattr(clip, name) for name in CLIP_ARRAYS}
    return Message("batch", {"detections": detections, "clips": clips, **scalars}, arrays)


def batch_from(message: Message) -> MeasureBatch:
    """Inverse of `batch_message`; arrays are read-only."""
    detections = [Detection(**row) for row in message.fields["detections"]]
    scalars: dict[str, Any] = {name: message.fields[name] for name in BATCH_SCALARS}
    clips = [
        Clip(t_s=message.arrays[f"clip.{number}.t_s"], pixels=message.arrays[f"clip.{number}.pixels"], **row)
        for number, row in enumerate(message.fields["clips"])
    ]
    arrays = {name: array for name, array in message.arrays.items() if not name.startswith("clip.")}
    return MeasureBatch(**(arrays | scalars), detections=detections, clips=clips)


def measure_message(
    operator: Operator,
    settings: PipelineSettings,
    *,
    baseline: tuple[np.ndarray, np.ndarray] | None = None,
    first_frame: int = 0,
    first_t_s: float | None = None,
    last_stamp: tuple[float, float] | None = None,
    rewind: bool = True,
    mask_version: int = 1,
    camera: CameraIdentity | None = None,
) -> Message:
    """The order to measure a run; `rewind` false goes on from the next frame, after a restart. `camera`: the only one
    whose frames may be measured; None: any.
    """
    plain: dict[str, Any] = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in OPTIONAL_MAPS}
    arrays = _operator_arrays(operator)
    for name in OPTIONAL_MAPS:
        if getattr(settings, name) is not None:
            arrays[name] = getattr(settings, name)
    if baseline is not None:
        arrays["baseline.flux"], arrays["baseline.layers"] = baseline
    order = {
        "settings": plain, "first_frame": first_frame, "first_t_s": first_t_s, "last_stamp": last_stamp,
        "rewind": rewind, "mask_version": mask_version, "camera": None if camera is None else asdict(camera),
    }  # fmt: skip
    return Message("measure", order, arrays)


def measure_order(message: Message) -> dict[str, Any]:
    """Inverse of `measure_message`: the keyword arguments of `Pipeline`."""
    arrays = message.arrays
    maps: dict[str, Any] = {name: arrays[name] for name in OPTIONAL_MAPS if name in arrays}
    baseline = (arrays["baseline.flux"], arrays["baseline.layers"]) if "baseline.flux" in arrays else None
    last_stamp = message.fields["last_stamp"]
    return {
        "operator": _operator_from(arrays),
        "settings": PipelineSettings(**message.fields["settings"], **maps),
        "baseline": baseline,
        "first_frame": message.fields["first_frame"],
        "first_t_s": message.fields["first_t_s"],
        "last_stamp": tuple(last_stamp) if last_stamp is not None else None,
        "mask_version": message.fields["mask_version"],
    }


def measured_camera(message: Message) -> CameraIdentity | None:
    """The `camera` of `measure_message`."""
    told = message.fields["camera"]
    return None if told is None else CameraIdentity(**{**told, "pixel_format": PixelFormat(told["pixel_format"])})


def masks_message(operator: Operator, kept: np.ndarray, mask_version: int) -> Message:
    """The order to go on with other masks from the next frame; see `Pipeline.with_masks`."""
    return Message("masks", {"mask_version": mask_version}, {"kept": kept, **_operator_arrays(operator)})


def masks_order(message: Message) -> dict[str, Any]:
    """Inverse of `masks_message`: the keyword arguments of `Pipeline.with_masks`."""
    arrays = message.arrays
    version = message.fields["mask_version"]
    return {"operator": _operator_from(arrays), "kept": arrays["kept"], "mask_version": version}


def _operator_arrays(operator: Operator) -> dict[str, np.ndarray]:
    return {f"operator.{name}": array for name, array in operator.arrays().items()}


def _operator_from(arrays: dict[str, np.ndarray]) -> Operator:
    own = {name.removeprefix("operator."): array for name, array in arrays.items() if name.startswith("operator.")}
    return Operator.from_arrays(own)
