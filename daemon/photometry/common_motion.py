"""How far all particles seem to move together: what registration got wrong.

A drift is measured by all that the frame shows. A crack that darkens or parts a particle pulls at it where few
others are in the field; what is compared with a particle's own outline has to allow for that.
"""

from __future__ import annotations

import numpy as np

LEAST_PARTICLES = 5
"""Of fewer, what they share is not known from what one of them does."""


class CommonMotion:
    """Adds up, from look to look, the median of what each particle's light moved by."""

    def __init__(self) -> None:
        self._last = np.empty((0, 2))
        self.px = np.zeros(2)
        """(2,) y, x since the first look."""

    def add(self, centroid_px: np.ndarray) -> None:
        """Take the (P, 2) places of all particles' light at a look; NaN where unknown, more particles than before."""
        moved = centroid_px[: len(self._last)] - self._last
        self._last = centroid_px
        known = moved[np.isfinite(moved).all(axis=1)]
        if len(known) >= LEAST_PARTICLES:
            self.px = self.px + np.median(known, axis=0)
