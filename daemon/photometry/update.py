"""What the run's science hands to the store, the event feed and the status after each batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daemon.events import Event


@dataclass
class ScienceUpdate:
    """New results; every list may be empty. Rows are dictionaries keyed by the column names of `daemon.tables`."""

    frame_columns: dict[str, np.ndarray] | None = None
    """(N,) arrays named as `CHUNK_FRAME_COLUMNS`; None while the baseline is still being measured."""
    particle_columns: dict[str, np.ndarray] | None = None
    """(N, P) arrays named as `CHUNK_PARTICLE_COLUMNS`."""
    events: list[Event] = field(default_factory=list)
    health: list[dict[str, Any]] = field(default_factory=list)
    """Completed cycles, one row a particle."""
    rates: list[dict[str, Any]] = field(default_factory=list)
    """Reaction rates after potential steps, one row a particle that has one."""
    cycles: list[dict[str, Any]] = field(default_factory=list)
    """Finished halves, one row a particle; a later row for the same (particle_id, cycle, half) replaces the earlier."""
    ensemble: list[dict[str, Any]] = field(default_factory=list)
    particles: list[dict[str, Any]] = field(default_factory=list)
    """Changes of `state`, `calibration`, `front_mode` or `brightness_e`: particle_id and the changed columns."""
    fragments: list[dict[str, Any]] = field(default_factory=list)
    """Rows of pieces of cracked particles, with `parent_id`, told when the run ends."""
    fronts: list[dict[str, Any]] = field(default_factory=list)
    """Finished halves' fronts, one row a particle, as `daemon.photometry.fronts` makes them; later replace earlier."""
    calibrations: list[dict[str, Any]] = field(default_factory=list)
    """particle_id, kind, contrast_knots (list), soc_knots (list), soc_sigma (float), layer_sigma_ratio (list of 4);
    further soc_sigma_knots (list) and layers: weights (4 x 4), tilt, and the knots of surface and core, or None.
    """
    axes: list[dict[str, Any]] = field(default_factory=list)
    """What is known of each particle's axis, as `daemon.photometry.axial_book` makes them; later replace earlier."""
    axial: list[dict[str, Any]] = field(default_factory=list)
    """Arrays of consecutive blocks: `t_s` (n,), `drift` (n, 5), `bins` (n, P, 8), `sigma` (n, P)."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What the end of the run adds to its metadata."""
