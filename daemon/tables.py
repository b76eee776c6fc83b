"""The tables other programs rely on: names and columns of every export, in one place (Parquet names = CSV names)."""

from __future__ import annotations

PARTICLES = (
    "particle_id", "parent_id", "y_px", "x_px", "area_px", "equivalent_diameter_um", "major_um", "minor_um",
    "aspect_ratio", "solidity", "nearest_neighbour_um", "neighbours_within_10um", "brightness_e", "front_mode",
    "calibration", "state",
)  # fmt: skip
FRAMES = ("frame", "t_s", "drift_y_px", "drift_x_px", "drift_sigma_px", "illumination", "focus", "flags")
TRACES = (
    "particle_id", "frame", "t_s", "contrast", "contrast_sigma", "soc", "soc_lo", "soc_hi", "gradient",
    "gradient_sigma", "transformed_fraction", "front_px", "front_sigma_px", "flags",
)  # fmt: skip
EVENTS = ("event_id", "particle_id", "kind", "t_s", "detected_t_s", "magnitude", "magnitude_sigma", "score")
CYCLES = (
    "particle_id", "cycle", "half", "swing", "soc_start", "soc_end", "onset_t_s", "duration_s", "rate_per_h", "lag_s",
    "hysteresis_v", "retention", "swing_sigma", "rate_sigma_per_h", "lag_sigma_s", "retention_sigma", "asymmetry",
    "asymmetry_sigma", "unknown_why",
)  # fmt: skip
HEALTH = (
    "particle_id", "cycle", "t_s", "retention", "loss", "loss_trend", "loss_trend_sigma", "lag", "lag_trend",
    "lag_trend_sigma", "asymmetry", "asymmetry_trend", "asymmetry_trend_sigma", "risk_score", "risk", "lead_cycles",
    "lead_lo_cycles", "lead_hi_cycles", "warned", "failed",
)  # fmt: skip
RATES = (
    "particle_id", "cycle", "half", "step", "t_s", "voltage_v", "overpotential_v", "soc_from", "soc_to", "rate_per_h",
    "rate_sigma_per_h",
)  # fmt: skip
ENSEMBLE = ("t_s", "soc_mean", "soc_std", "active_fraction", "rate_cv")
ECHEM = ("Test Time / s", "Voltage / V", "Current / A", "Cycle Count / 1", "Step Index / 1")

EXPORT_TABLES: dict[str, tuple[str, ...]] = {
    "particles": PARTICLES,
    "frames": FRAMES,
    "traces": TRACES,
    "events": EVENTS,
    "cycles": CYCLES,
    "ensemble": ENSEMBLE,
    "echem": ECHEM,
}

FRONT_MODES = ("core", "axial", "none")
CALIBRATIONS = ("monotone", "end_members", "folded", "none")
PARTICLE_STATES = ("active", "partial", "dead", "lost")
HALVES = ("charge", "discharge")

CHUNK_FRAME_COLUMNS: dict[str, str] = {
    "frame": "i8", "block_id": "i8", "t_s": "f8", "host_t_s": "f8", "drift_y_px": "f4", "drift_x_px": "f4",
    "drift_sigma_px": "f4", "illumination": "f4", "focus": "f4", "flags": "u4",
}  # fmt: skip
"""Per-frame columns of a chunk, (N,), little-endian."""
CHUNK_PARTICLE_COLUMNS: dict[str, str] = {
    "contrast": "f4", "contrast_sigma": "f4", "layer_surface": "f4", "layer_outer": "f4", "layer_inner": "f4",
    "layer_core": "f4", "centroid_y_px": "f4", "centroid_x_px": "f4", "flags": "u2",
}  # fmt: skip
"""Per-frame-and-particle columns of a chunk, (N, P). `layer_*` are contrasts of the four layers."""
