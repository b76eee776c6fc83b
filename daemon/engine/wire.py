"""Measures and operators as messages of the link."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import numpy as np

from daemon.engine.link import Message
from daemon.engine.measures import Detection, MeasureBatch
from daemon.engine.operator import Operator
from daemon.engine.pipeline import PipelineSettings

BATCH_ARRAYS = tuple(f.name for f in fields(MeasureBatch) if f.name not in ("detections", "camera_t0_s"))
OPTIONAL_MAPS = ("dark_map", "flat_map")


def batch_message(batch: MeasureBatch) -> Message:
    """A batch, ready to cross to the daemon."""
    arrays = {name: getattr(batch, name) for name in BATCH_ARRAYS if getattr(batch, name) is not None}
    detections = [asdict(detection) for detection in batch.detections]
    return Message("batch", {"detections": detections, "camera_t0_s": batch.camera_t0_s}, arrays)


def batch_from(message: Message) -> MeasureBatch:
    """Inverse of `batch_message`; arrays are read-only."""
    detections = [Detection(**row) for row in message.fields["detections"]]
    return MeasureBatch(**message.arrays, detections=detections, camera_t0_s=message.fields["camera_t0_s"])


def measure_message(
    operator: Operator,
    settings: PipelineSettings,
    *,
    baseline: tuple[np.ndarray, np.ndarray] | None = None,
    first_frame: int = 0,
    first_t_s: float | None = None,
    last_stamp: tuple[float, float] | None = None,
    rewind: bool = True,
) -> Message:
    """The order to measure a run; `rewind` false goes on from the next frame, after a restart."""
    plain: dict[str, Any] = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in OPTIONAL_MAPS}
    arrays = {f"operator.{name}": array for name, array in operator.arrays().items()}
    for name in OPTIONAL_MAPS:
        if getattr(settings, name) is not None:
            arrays[name] = getattr(settings, name)
    if baseline is not None:
        arrays["baseline.flux"], arrays["baseline.layers"] = baseline
    order = {
        "settings": plain, "first_frame": first_frame, "first_t_s": first_t_s, "last_stamp": last_stamp,
        "rewind": rewind,
    }  # fmt: skip
    return Message("measure", order, arrays)


def measure_order(message: Message) -> dict[str, Any]:
    """Inverse of `measure_message`: the keyword arguments of `Pipeline`."""
    arrays = message.arrays
    operator = {name.removeprefix("operator."): array for name, array in arrays.items() if name.startswith("operator.")}
    maps: dict[str, Any] = {name: arrays[name] for name in OPTIONAL_MAPS if name in arrays}
    baseline = (arrays["baseline.flux"], arrays["baseline.layers"]) if "baseline.flux" in arrays else None
    last_stamp = message.fields["last_stamp"]
    return {
        "operator": Operator.from_arrays(operator),
        "settings": PipelineSettings(**message.fields["settings"], **maps),
        "baseline": baseline,
        "first_frame": message.fields["first_frame"],
        "first_t_s": message.fields["first_t_s"],
        "last_stamp": tuple(last_stamp) if last_stamp is not None else None,
    }
