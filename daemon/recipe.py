"""What a run is asked to be: the body of `POST /runs` and of a recipe file."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Base of everything read from outside: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Positive = Annotated[float, Field(gt=0)]


class CellLimits(Strict):
    """Safety limits, checked on every sample; passing one switches the cell off. They always win over the experiment."""

    min_voltage_v: float = 2.5
    max_voltage_v: float = 4.5
    max_current_ma: Positive = 10.0
    """Largest magnitude of the current."""
    max_time_s: Positive | None = None
    """Longest time of the whole experiment on the potentiostat's clock; no bound when absent."""
    max_capacity_mah: Positive | None = None
    """Largest charge passed in one direction within one step; no bound when absent."""


class ExperimentSpec(Strict):
    """Steps in the wording PyBaMM made common, repeated `cycles` times."""

    steps: list[str] = Field(min_length=1, max_length=1000)
    cycles: int = Field(default=1, ge=1, le=100_000)
    capacity_mah: Positive | None = None
    """What 1C means; the cell's configured capacity when absent."""
    limits: CellLimits | None = None
    """Replaces the configured limits; may only be tighter."""


class MaskSettings(Strict):
    """How particles are found, once, when a run starts."""

    threshold_sigma: Positive = 5.0
    """A pixel belongs to a particle when it stands this many standard deviations above the local background."""
    min_area_px: int = Field(default=30, ge=5)
    max_area_px: int = Field(default=50_000, ge=5)
    background_px: int = Field(default=64, ge=16)
    """Mesh of the background estimate; larger than the largest particle."""
    psf_sigma_px: Positive | None = None
    """Blur of the optics; measured from the sharpest edges when absent."""
    split_touching: bool = True
    polarity: str = Field(default="bright", pattern="^(bright|dark|both)$")
    """Whether particles are brighter or darker than their surroundings."""


class Recipe(Strict):
    """A run: what to call it, how to look, what to do to the cell."""

    name: str = Field(default="", max_length=200)
    experiment: ExperimentSpec | None = None
    """None measures without touching the cell."""
    masks: MaskSettings = MaskSettings()
    reference_frames: int = Field(default=50, ge=1, le=10_000)
    """Frames averaged into the fixed reference that masks and registration are made from."""
    baseline_s: Positive | None = None
    """Length of the baseline that F0 is the mean of; the first 1 % of the run (at least 1 s and 5 frames) when absent."""
    stop_with_experiment: bool = True
    """End the run when its experiment ends."""
