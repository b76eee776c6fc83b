"""When particles change phase: the labels a detector of fronts is judged by."""

from __future__ import annotations

import numpy as np

from hw.twin.electrode import TruthEvent

ONSET, COMPLETE = 0.05, 0.95  # of the way from one phase to the other


class PhaseWatch:
    """Emits `phase_onset` and `phase_complete` as each particle's charged fraction passes 5 % and 95 % of its way.

    A particle that sets out and trembles about the 5 % has one onset; one that goes all the way back has no completion.
    """

    def __init__(self, charged: np.ndarray) -> None:
        self._origin = np.where(charged > 0.5, 1, 0)
        self._under_way = (charged > ONSET) & (charged < COMPLETE)

    def look(self, t_s: float, charged: np.ndarray) -> list[TruthEvent]:
        """Events since the last look; `charged` (P,) is NaN for solid solutions, which have none."""
        way = np.where(self._origin == 1, 1.0 - charged, charged)
        onset = ~self._under_way & (way >= ONSET)
        self._under_way |= onset
        complete = self._under_way & (way >= COMPLETE)
        back = self._under_way & (way <= 0.0)
        self._origin[complete] = 1 - self._origin[complete]
        self._under_way &= ~(complete | back)
        return [
            TruthEvent(t_s, kind, int(i))
            for kind, which in (("phase_onset", onset), ("phase_complete", complete))
            for i in np.flatnonzero(which)
        ]
