"""Options of the simulated instrument: what lies under the microscope, and how the microscope looks at it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Options(BaseModel):
    """Base of all options: unknown names and non-finite numbers are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SampleOptions(Options):
    """The electrode in view, which stands for the whole cell. The same options and seed give the same sample."""

    seed: int = Field(default=1, ge=0, le=2**31 - 1)
    particles: int = Field(default=300, ge=1, le=5000)
    height_px: int = Field(default=600, ge=64, le=4096)
    width_px: int = Field(default=960, ge=64, le=4096)
    pixel_size_nm: Positive = 96.0
    material: Literal["nmc", "lfp", "lco", "graphite"] = "nmc"
    """`nmc` and `lco` are solid solutions, `lfp` is two-phase (moving fronts), `graphite` is an anode."""
    capacity_mah: Positive = 0.5
    """Charge between the discharged and charged end of the material's window: what 1C means."""
    initial_soc: Fraction = 0.0
    """State of charge of the cell at the start: 0 discharged."""
    radius_um: Positive = 1.35
    """Median of the lognormal particle radius."""
    radius_sigma: NotNegative = 0.3
    kinetics_sigma: NotNegative = 0.4
    """Spread of ln(rate constant) from particle to particle, beside a part shared by neighbours."""
    kinetics_field_sigma: NotNegative = 0.25
    """Spread of the part of ln(rate constant) that neighbours share (correlation length 15 um)."""
    rate_per_h: Positive | None = None
    """Median exchange rate; the material's own when absent."""
    dead_fraction: Fraction = 0.05
    """Particles that never react; the nearest whole number of them."""
    folded_fraction: Fraction = 0.04
    """Thin particles whose brightness turns back half-way through charging; the nearest whole number."""
    series_resistance_ohm: NotNegative = 20.0
    cracks_per_h: NotNegative = 0.02
    """Cracks of a median particle per hour of simulated time at an inner contrast of 0.05 while it delithiates."""


class OpticsOptions(Options):
    """Microscope and camera. Every disturbance has its own switch (0 is off); `static` turns all of them off."""

    psf_sigma_px: Annotated[float, Field(gt=0.5, le=4)] = 1.5
    background_e: Positive = 6000.0
    """Electrons a pixel of the empty window at `reference_exposure_us`."""
    background_texture: NotNegative = 0.03
    """Relative rms of the fixed structure of binder and carbon; it moves with the sample."""
    particle_e: Positive = 10500.0
    """Mean electrons a pixel that a discharged particle adds to the background."""
    reference_exposure_us: Positive = 2000.0
    exposure_us: Positive = 2000.0
    pixel_format: Literal["Mono8", "Mono12", "Mono12p", "Mono16"] = "Mono12"
    gain_e_per_dn: Positive = 8.0
    """At 12 bits; other formats spread the same full scale (4096 times this) over their own range."""
    read_noise_e: NotNegative = 7.0
    dark_dn: NotNegative = 64.0
    """At 12 bits, as `gain_e_per_dn`."""
    noise: Literal["pool", "poisson", "none"] = "pool"
    """`pool` draws from a large pool of normal noise (fast); `poisson` draws every photon (slow, for acceptance)."""
    illumination_falloff: Fraction = 0.15
    """Loss of illumination in the frame's corners; belongs to the camera's field, not to the sample."""
    pixel_gain_sigma: NotNegative = 0.004
    """Relative rms of the pixels' own gains."""
    publish_flat: bool = False
    """Hand the true flat field to the consumer, as a calibrated camera would."""
    static: bool = False
    """Switch every disturbance off."""
    drift_rms_nm: NotNegative = 20.0
    """Wandering of the stage around its place (30 s correlation time)."""
    drift_walk_nm_per_h: NotNegative = 100.0
    """Random walk of that place: rms after one hour."""
    drift_jumps_per_h: NotNegative = 0.0
    """Jumps of the stage by 1 to 3 px."""
    focus_rms_px: NotNegative = 0.3
    """Rms of the additional blur's sigma (120 s correlation time)."""
    focus_jumps_per_h: NotNegative = 0.0
    """Jumps of the focus that add up to 0.8 px of blur and stay."""
    led_warmup: NotNegative = 0.005
    """Relative brightening from start to warm (600 s time constant)."""
    led_rms: NotNegative = 0.001
    """Relative wandering of the LED (60 s correlation time)."""
    led_ripple: NotNegative = 0.0005
    """Amplitude of the mains ripple, aliased to 0.37 of the frame rate."""
    led_steps_per_h: NotNegative = 0.0
    """Steps of the LED by 0.5 to 2 %."""
    hot_pixels: int = Field(default=20, ge=0)
    dropped_fraction: Fraction = 0.0
    """Frames the camera loses by itself; its block ids tell."""
    timestamp_jitter_us: NotNegative = 20.0
    patch_tolerance_dn: NotNegative = 0.25
    """A particle is drawn anew when it is off by more than this (at 12 bits)."""


class TwinOptions(SampleOptions, OpticsOptions):
    """A whole simulated instrument."""

    frame_rate_hz: Positive = 100.0
    speed: Positive = 1.0
    """Simulated seconds that pass in one second of the camera's host."""
