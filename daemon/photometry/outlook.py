"""What is told of particles at each half's end: the unusual ones, how they age, and which are expected to fail."""

from __future__ import annotations

from typing import Any

import numpy as np

from daemon.events import Event, EventKind
from daemon.photometry.cycles import HalfMeasures, SocOf
from daemon.photometry.fade import HealthBook
from daemon.photometry.outliers import OutlierBook
from daemon.photometry.update import ScienceUpdate
from daemon.photometry.warnings import WarningBook

STEPS = (EventKind.STEP, EventKind.CRACK, EventKind.CRACK_CLOSED, EventKind.FRAGMENT)
"""Events that change what a particle's contrast is worth."""


class Outlook:
    """Outliers, health and warnings of P particles; events go to the update as they happen."""

    def __init__(self, particle_id: np.ndarray) -> None:
        self._particle_id = particle_id
        self._outliers = OutlierBook()
        self._health = HealthBook(len(particle_id))
        self._warnings = WarningBook(particle_id)
        self._place = _places(particle_id)

    def grow(self, particle_id: np.ndarray) -> None:
        """Go on with more particles."""
        self._particle_id, self._place = particle_id, _places(particle_id)
        self._health.grow(len(particle_id))
        self._warnings.grow(particle_id)

    def note(self, events: list[Event]) -> None:
        """Remember which particles' brightness stepped."""
        for event in events:
            if event.kind in STEPS and event.particle_id is not None:
                self._health.step(self._place[event.particle_id])

    def add(
        self,
        measures: HalfMeasures,
        soc: SocOf,
        members: np.ndarray,
        alive: np.ndarray,
        detected_t_s: float,
        update: ScienceUpdate,
    ) -> None:
        """Take one half. `members` (P,) bool are compared with each other, `alive` (P,) bool may still fail."""
        update.events += self._outliers.add(measures, soc, self._particle_id, members, detected_t_s)
        health = self._health.add(measures, alive)
        if health is not None:
            warnings, rows = self._warnings.add(health, detected_t_s)
            update.events += warnings
            update.health += rows

    def summary(self) -> dict[str, Any]:
        """For the status."""
        return {"unusual": self._outliers.shown, **self._warnings.summary()}


def _places(particle_id: np.ndarray) -> dict[int, int]:
    return {identity: place for place, identity in enumerate(np.asarray(particle_id).tolist())}
