"""How much is measured: seeds and lengths, whole or quick."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Seeds that no test uses, and how long each scene is watched."""

    seeds: tuple[int, ...]
    static_frames: int
    """Single exposures of a static scene, for its noise."""
    means_frames: int
    """Single exposures averaged before and after a change."""
    step_s: float
    """Watched before and after a change that must leave less than 1e-4."""
    long_s: float
    """Watched for the Allan deviation at a third of it."""
    plain_seeds: int
    """Seeds for which the plain pipeline watches the long run too: it is slow."""
    references: int
    """One-frame references for registration, a seed."""


WHOLE = Effort((1001, 1002, 1003, 1004, 1005), 800, 200, 100.0, 3000.0, 2, 12)
QUICK = Effort((1001, 1002), 250, 100, 40.0, 300.0, 1, 4)
