"""The tables other programs rely on: names and columns of every export, in one place (Parquet names = CSV names)."""

from __future__ import annotations

from dataclasses import dataclass

PARTICLES = (
    "particle_id", "parent_id", "y_px", "x_px", "area_px", "equivalent_diameter_um", "major_um", "minor_um",
    "aspect_ratio", "solidity", "nearest_neighbour_um", "neighbours_within_10um", "brightness_e", "front_mode",
    "calibration", "state",
)  # fmt: skip
AXIS = ("axis_deg", "axial_unknown_why", "shift_unknown_why")
"""Further columns of the `particles` export: of the table `axes`."""
FRAMES = ("frame", "t_s", "drift_y_px", "drift_x_px", "drift_sigma_px", "illumination", "focus", "flags")
TRACES = (
    "particle_id", "frame", "t_s", "contrast", "contrast_sigma", "soc", "soc_lo", "soc_hi", "gradient",
    "gradient_sigma", "transformed_fraction", "front_px", "front_sigma_px", "flags", "axial_gradient",
    "axial_gradient_sigma", "centroid_shift_px", "centroid_shift_sigma_px", "centroid_shift_nm", "dipole_px",
)  # fmt: skip
EVENTS = (
    "event_id", "particle_id", "kind", "t_s", "detected_t_s", "magnitude", "magnitude_sigma", "score", "detail",
)  # fmt: skip
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
FRONTS = (
    "particle_id", "cycle", "half", "mode", "reason", "begin", "explained", "speed_px_per_s", "speed_sigma_px_per_s",
    "speed_nm_per_s", "speed_sigma_nm_per_s", "onset_t_s", "end_t_s",
)  # fmt: skip
CLIPS = (
    "clip_id", "particle_id", "onset_frame", "t0_s", "t1_s", "y0_px", "x0_px", "looks", "height", "width",
)  # fmt: skip
CALIBRATION_CURVES = (
    "particle_id", "kind", "contrast_knots", "soc_knots", "soc_sigma", "soc_sigma_knots", "layer_sigma_ratio", "layers",
)  # fmt: skip
ENSEMBLE = ("t_s", "soc_mean", "soc_std", "active_fraction", "rate_cv")
ECHEM = ("Test Time / s", "Voltage / V", "Current / A", "Cycle Count / 1", "Step Index / 1")


@dataclass(frozen=True)
class RowTable:
    """A table of a run's file that is read, served over HTTP, shown and exported row by row, once it stands here."""

    columns: tuple[str, ...]
    title: str
    """What its rows are, for people."""
    when: str | None
    """The time by which exports select rows; None: all belong."""
    order: tuple[str, ...]
    """Of the rows of a page. Pages are in the order written: a row that is measured anew comes again."""
    page: int | None = 1000
    """Most rows answered when nobody says; None: all."""


_HALF_ORDER = ("cycle", "half", "particle_id")
ROW_TABLES: dict[str, RowTable] = {
    "cycles": RowTable(CYCLES, "Half cycles of the particles", "onset_t_s", _HALF_ORDER, page=None),
    "health": RowTable(HEALTH, "How the particles age, cycle by cycle", "t_s", ("cycle", "particle_id")),
    "rates": RowTable(RATES, "Reaction rates after potential steps", "t_s", ("t_s", "particle_id")),
    "fronts": RowTable(FRONTS, "Phase fronts of the particles' halves", "onset_t_s", _HALF_ORDER),
    "clips": RowTable(CLIPS, "Clips: particles before and after steps", "t0_s", ("t0_s", "clip_id"), page=None),
    "calibrations": RowTable(
        CALIBRATION_CURVES, "What turns each particle's contrast into charge", None, ("particle_id",)
    ),
}

EXPORT_TABLES: dict[str, tuple[str, ...]] = {
    "particles": (*PARTICLES, *AXIS),
    "frames": FRAMES,
    "traces": TRACES,
    "events": EVENTS,
    "cycles": CYCLES,
    "ensemble": ENSEMBLE,
    "echem": ECHEM,
} | {name: table.columns for name, table in ROW_TABLES.items() if name != "cycles"}

INT_COLUMNS = frozenset({
    "particle_id", "parent_id", "neighbours_within_10um", "frame", "flags", "event_id", "cycle", "Cycle Count / 1",
    "Step Index / 1", "step", "warned", "failed", "clip_id", "onset_frame", "y0_px", "x0_px", "looks", "height",
    "width",
})  # fmt: skip
TEXT_COLUMNS = frozenset({
    "front_mode", "calibration", "state", "kind", "half", "unknown_why", "mode", "reason", "begin",
    "axial_unknown_why", "shift_unknown_why", "detail",
})  # fmt: skip
JSON_COLUMNS = frozenset({"contrast_knots", "soc_knots", "soc_sigma_knots", "layer_sigma_ratio", "layers"})
"""Lists and mappings; JSON text where a cell holds one value only."""
SINGLE_COLUMNS = frozenset({
    "drift_y_px", "drift_x_px", "drift_sigma_px", "illumination", "focus", "contrast", "contrast_sigma", "soc",
    "soc_lo", "soc_hi", "gradient", "gradient_sigma", "transformed_fraction", "front_px", "front_sigma_px",
    "axial_gradient", "axial_gradient_sigma", "centroid_shift_px", "centroid_shift_sigma_px", "centroid_shift_nm",
    "dipole_px",
})  # fmt: skip
"""Columns measured in single precision; every other number is float64."""

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
