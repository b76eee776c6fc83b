"""How long the baseline of a run is."""

from __future__ import annotations

BASELINE_FRACTION = 0.01
BASELINE_LEAST_S = 1.0


def baseline_seconds(asked_s: float | None, duration_s: float | None) -> float:
    """The asked length, or the first 1 % of the run's duration (when known), at least a second."""
    if asked_s is not None:
        return asked_s
    return max(BASELINE_LEAST_S, BASELINE_FRACTION * (duration_s or 0.0))
