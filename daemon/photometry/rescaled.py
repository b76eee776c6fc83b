"""Steps of brightness that no event told: a crack scales a particle's light, a lost contact only what it follows.

Light scaled by 1 + s moves contrasts by about s and scales the curve by 1 + s; a part that follows no more scales the
curve and moves contrasts by a share of the swing only; a lag moves both halves apart and scales nothing.
"""

from __future__ import annotations

import numpy as np

from daemon.photometry.blocks import grown
from daemon.photometry.likeness import Likeness

LEAST = 0.006
"""Contrasts must move by this much,"""
SIGMAS = 5.0
"""and by as many standard deviations of what is known of the move."""
ALIKE = (0.5, 2.0)
"""The curve's scale over that of the light; nearer to 1 than to 0."""


def rescaled_within(charge: Likeness, discharge: Likeness) -> np.ndarray:
    """(P,) bool: the light stepped between the halves of a cycle."""
    with np.errstate(all="ignore"):
        moved = discharge.offset - charge.offset
        sigma = np.hypot(discharge.offset_sigma, charge.offset_sigma)
        return _rescaled(moved, sigma, np.log(discharge.gain / charge.gain))


class Scales:
    """What contrasts and curves were like the last time at each rate."""

    def __init__(self, particles: int) -> None:
        self._particles = particles
        self._last: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def grow(self, particles: int) -> None:
        """Go on with more particles."""
        self._particles = particles
        self._last = {
            key: (grown(loss, particles, np.nan), grown(offset, particles, np.nan), grown(segment, particles, 0))
            for key, (loss, offset, segment) in self._last.items()
        }

    def stepped(
        self, key: tuple[int, int], loss: np.ndarray, halves: tuple[Likeness, Likeness], segment: np.ndarray
    ) -> np.ndarray:
        """(P,) bool: the light stepped since the last cycle of this rate; `segment` (P,) int counts steps known."""
        offset = (halves[0].offset + halves[1].offset) / 2.0
        sigma = np.hypot(halves[0].offset_sigma, halves[1].offset_sigma) / np.sqrt(2.0)
        unknown = np.full(self._particles, np.nan)
        last_loss, last_offset, last_segment = self._last.get(key, (unknown, unknown, np.zeros(self._particles, int)))
        with np.errstate(all="ignore"):
            found = _rescaled(offset - last_offset, sigma, last_loss - loss) & (segment == last_segment)
        known = np.isfinite(loss)
        self._last[key] = (
            np.where(known, loss, last_loss), np.where(known, offset, last_offset),
            np.where(known, segment + found, last_segment),
        )  # fmt: skip
        return found


def _rescaled(moved: np.ndarray, sigma: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    share = scaled / np.log1p(np.maximum(moved, -0.99))
    return (np.abs(moved) >= np.maximum(LEAST, SIGMAS * sigma)) & (share >= ALIKE[0]) & (share <= ALIKE[1])
