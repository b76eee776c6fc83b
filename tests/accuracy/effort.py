"""How much is measured: seeds and lengths, whole or quick."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Seeds that no test uses, and how long each scene is watched."""

    seeds: tuple[int, ...]
    aftermath_seeds: tuple[int, ...]
    """Scenes in which all particles crack: fragments are few in each, and none of these chose a threshold."""
    static_frames: int
    """Single exposures of a static scene, for its noise."""
    means_frames: int
    """Single exposures averaged before and after a change."""
    step_s: float
    """Watched before and after a change that must leave less than 1e-4."""
    long_s: float
    """Watched for the Allan deviation at a third of it."""
    alone_s: float
    """Watched for what one disturbance makes alone."""
    plain_seeds: int
    """Seeds for which the plain pipeline watches the long run too: it is slow."""
    references: int
    """Noisy references for registration, a seed."""


WHOLE = Effort(
    seeds=(1001, 1002, 1003, 1004, 1005),
    aftermath_seeds=tuple(range(3001, 3017)),
    static_frames=800,
    means_frames=200,
    step_s=60.0,
    long_s=3000.0,
    alone_s=200.0,
    plain_seeds=2,
    references=24,
)
QUICK = Effort(
    seeds=(1001, 1002),
    aftermath_seeds=(3001, 3002),
    static_frames=250,
    means_frames=100,
    step_s=40.0,
    long_s=300.0,
    alone_s=60.0,
    plain_seeds=1,
    references=8,
)
