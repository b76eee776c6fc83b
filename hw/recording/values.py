"""The values a recording may carry beside its frames, and that the command line may give in their place."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hw.errors import RecordingError, RecordingReason
from hw.recording.faults import Fault

Positive = Annotated[float, Field(gt=0, lt=1e15)]
TimingUnit = Literal["s", "ms", "us"]


class RecordingValues(BaseModel):
    """Root attributes of an HDF5 recording, and what overrides them. `None` is unknown: nothing is guessed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pixel_size_nm: Positive | None = None
    """Object-side size of a pixel."""
    exposure_us: Positive | None = None
    bit_depth: Annotated[int, Field(ge=8, le=16)] | None = None
    """Significant bits of a pixel; full scale is 2**bit_depth - 1 DN."""
    gain_e_per_dn: Positive | None = None
    read_noise_e: Annotated[float, Field(ge=0, lt=1e9)] | None = None
    dark_dn: Annotated[float, Field(ge=0, lt=65536)] | None = None
    electrode: Literal["cathode", "anode"] | None = None
    capacity_mah: Positive | None = None
    potentiostat_offset_s: Annotated[float, Field(gt=-1e12, lt=1e12)] | None = None
    """Camera time = potentiostat time + offset."""
    frame_interval_s: Positive | None = None
    """Replaces the recording's own time axis."""
    camera_timing_unit: TimingUnit | None = None
    """Unit of `camera_timing`; recognised from the data when absent."""


VALUE_NAMES = frozenset(RecordingValues.model_fields)
"""Every name that `open_recording` accepts as an override."""


def checked_overrides(overrides: Mapping[str, Any]) -> RecordingValues:
    """The overrides (numbers, or text as typed). Raises `RecordingError` with the nearest known name."""
    try:
        return RecordingValues.model_validate(dict(overrides))
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, VALUE_NAMES, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f" (known: {', '.join(sorted(VALUE_NAMES))})"
            detail = f"a recording has no value '{name}'{hint}"
        else:
            detail = f"the value given for '{name}': {problem['msg']}"
        raise RecordingError(RecordingReason.BAD_VALUE, detail) from None


def read_values(found: Mapping[str, Any], given: RecordingValues, faults: list[Fault]) -> RecordingValues:
    """`found` checked name by name, what is impossible left out with a fault, then `given` on top."""
    merged: dict[str, Any] = {}
    for name in sorted(VALUE_NAMES & found.keys()):
        value = _plain(found[name])
        try:
            merged[name] = getattr(RecordingValues.model_validate({name: value}), name)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            faults.append(Fault.bad_dataset(f"attribute '{name}' is {str(value)[:60]!r}, left out: {message}"))
    merged.update(given.model_dump(exclude_none=True))
    return RecordingValues(**merged)


def _plain(value: Any) -> Any:
    """An HDF5 attribute as plain Python: text decoded, arrays of one element unwrapped, NaN as unknown."""
    if isinstance(value, np.ndarray | np.generic) and np.size(value) == 1:
        value = value.item() if isinstance(value, np.generic) else value.reshape(-1)[0]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
