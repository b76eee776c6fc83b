"""What a crack looks like: each follows from the seed, the particle and how many it had before."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hw.twin.sample import stream

MAX_CRACKS = 3
_CRACKS = 7  # sub-stream of the seed


@dataclass(frozen=True)
class Crack:
    """One crack: a straight dark line across the particle; the part on its positive side is the fragment."""

    angle_rad: float
    """Direction of the line's normal, from +x towards +y."""
    offset: float
    """Distance of the line from the centre, in radii."""
    width_px: float
    depth: float
    """Loss of brightness on the line, 0 to 1."""
    shift_y_px: float
    shift_x_px: float
    """How far the fragment moves, away from the rest."""
    step: float
    """Relative change of the particle's brightness, negative."""
    disconnects: bool
    """Electrical contact is lost: the particle keeps its lithium from now on."""
    heals: bool
    """The line fades when lithium comes back."""
    next_threshold: float
    """Hazard the particle stands until its next crack."""


def crack(seed: int, particle: int, number: int) -> Crack:
    """The `number`-th crack (from 1) of `particle`."""
    rng = stream(seed, _CRACKS, particle, number)
    angle, shift = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 1.0)
    return Crack(
        angle_rad=angle,
        offset=rng.uniform(0.0, 0.45),
        width_px=rng.uniform(1.0, 2.0),
        depth=rng.uniform(0.4, 0.7),
        shift_y_px=shift * math.sin(angle),
        shift_x_px=shift * math.cos(angle),
        step=-rng.uniform(0.03, 0.25),
        disconnects=bool(rng.random() < 0.3),
        heals=bool(rng.random() < 0.3),
        next_threshold=rng.exponential(),
    )
