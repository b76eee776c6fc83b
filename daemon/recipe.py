"""What a run is asked to be: the body of `POST /runs` and of a recipe file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    """Base of everything read from outside: an unknown field or a wrong type is an error, never a conversion."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, strict=True, use_attribute_docstrings=True
    )


Positive = Annotated[float, Field(gt=0)]


class CellLimits(Strict):
    """Safety limits, checked on every sample; passing one switches the cell off. They win over the experiment."""

    min_voltage_v: float = 2.5
    """Lowest voltage of the cell."""
    max_voltage_v: float = 4.5
    """Highest voltage of the cell; above `min_voltage_v`."""
    max_current_ma: Positive = 10.0
    """Largest magnitude of the current."""
    max_time_s: Positive | None = None
    """Longest time of the whole experiment on the potentiostat's clock; no bound when absent."""
    max_capacity_mah: Positive | None = None
    """Largest charge passed in one direction within one step; no bound when absent."""

    @model_validator(mode="after")
    def _voltages_in_order(self) -> CellLimits:
        if self.min_voltage_v >= self.max_voltage_v:
            raise ValueError(
                f"min_voltage_v = {self.min_voltage_v:g} must be below max_voltage_v = {self.max_voltage_v:g}"
            )
        return self


class ExperimentSpec(Strict):
    """Steps in the wording PyBaMM made common, repeated `cycles` times."""

    steps: list[str] = Field(min_length=1, max_length=1000)
    """Sentences like 'Charge at 1C until 4.2 V', 'Hold at 4.2 V until C/50', 'Rest for 1 hour'."""
    cycles: int = Field(default=1, ge=1, le=100_000)
    """How often the list of steps is run."""
    capacity_mah: Positive | None = None
    """What 1C means; the cell's configured capacity when absent."""
    limits: CellLimits | None = None
    """Replaces the configured limits; may only be tighter."""


class MaskSettings(Strict):
    """How particles are found, once, when a run starts; edits keep to its bounds."""

    threshold_sigma: Positive = 5.0
    """A pixel belongs to a particle when it stands this many standard deviations above the local background."""
    min_area_px: int = Field(default=30, ge=5)
    """Smaller ones are dust or noise."""
    max_area_px: int = Field(default=50_000, ge=5)
    """Larger ones are agglomerates or binder; above `min_area_px`."""
    background_px: int = Field(default=64, ge=16)
    """Mesh of the background estimate; larger than the largest particle."""
    psf_sigma_px: Positive | None = None
    """Blur of the optics; measured from the sharpest edges when absent."""
    split_touching: bool = True
    """Cut particles that touch where they are narrowest."""
    polarity: Literal["auto", "bright", "dark", "both"] = "auto"
    """Whether particles are brighter or darker than their surroundings;
    `auto` looks for dark ones where none is bright."""

    @model_validator(mode="after")
    def _areas_in_order(self) -> MaskSettings:
        if self.min_area_px >= self.max_area_px:
            raise ValueError(f"min_area_px = {self.min_area_px} must be below max_area_px = {self.max_area_px}")
        return self


class Recipe(Strict):
    """A run: what to call it, how to look, what to do to the cell."""

    name: str = Field(default="", max_length=200)
    """For people; need not be unique."""
    experiment: ExperimentSpec | None = None
    """None measures without touching the cell."""
    masks: MaskSettings = MaskSettings()
    """How particles are found."""
    reference_frames: int = Field(default=50, ge=1, le=10_000)
    """Frames averaged into the fixed reference that masks and registration are made from."""
    baseline_s: Positive | None = None
    """Length of the baseline that F0 is the mean of; the first 1 % of the run, at least 1 s and 5 frames, if absent."""
    stop_with_experiment: bool = True
    """End the run when its experiment ends."""
