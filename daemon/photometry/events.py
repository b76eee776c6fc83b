"""All events of a run, frame by frame, in one order however frames were batched."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from daemon.engine.measures import Detection, MeasureBatch
from daemon.events import Event
from daemon.photometry.classify import (
    EventBudget,
    FrameFacts,
    InstrumentEvents,
    ParticleEpisodes,
    is_common,
    step_event,
)
from daemon.photometry.contrast import Contrasts
from daemon.photometry.derive import SocTable
from daemon.photometry.phases import PhaseTracker


class EventReader:
    """Instrument events, particles' episodes, phases and steps; particle events within a budget."""

    def __init__(self, particle_id: np.ndarray, lost_after_s: float) -> None:
        self._particle_id = particle_id
        self._instrument = InstrumentEvents()
        self._episodes = ParticleEpisodes(particle_id, lost_after_s)
        self._budget = EventBudget(len(particle_id))
        self._facts: list[FrameFacts] = []
        self._detections: dict[int, list[Detection]] = {}
        self.phases = PhaseTracker(particle_id)

    def grow(self, particle_id: np.ndarray) -> None:
        """Go on with more particles."""
        self._particle_id = particle_id
        self._episodes.grow(particle_id)
        self._budget.grow(len(particle_id))
        self.phases.grow(particle_id)

    @property
    def lost(self) -> np.ndarray:
        """(P,) bool."""
        return self._episodes.lost

    @property
    def suppressed(self) -> int:
        """Particle events beyond the budget so far."""
        return self._budget.suppressed

    def begin(self, batch: MeasureBatch) -> None:
        """Look at a batch before its frames are taken one by one."""
        columns = (
            batch.frame, batch.block_id, batch.t_s, batch.host_t_s, batch.drift_y_px, batch.drift_x_px,
            batch.illumination, batch.focus, batch.flags,
        )  # fmt: skip
        self._facts = [
            FrameFacts(*row) for row in zip(*(np.asarray(column).tolist() for column in columns), strict=True)
        ]
        self._detections = _by_place(batch)

    def frame(self, part: Contrasts, k: int, table: SocTable) -> list[Event]:
        """The events that frame `k` of the batch settled; a frame without a time settles none."""
        facts = self._facts[k]
        if not math.isfinite(facts.t_s):
            return []
        self._budget.frame()
        events = self._instrument.add(facts)
        own = self._episodes.add(facts, part.batch.particle_flags[k])
        for detection in self._detections.get(k, ()):
            onset_t_s = self._instrument.onset_t_s(detection.onset_frame, facts)
            if is_common(detection, len(self._particle_id)):
                events += self._instrument.common(detection, facts, onset_t_s)
            elif not self._instrument.explains(onset_t_s, detection.onset_frame):
                own.append(self._step(detection, onset_t_s, facts))
        if self.phases.active:
            fraction = np.where(table.two_phase, table.soc(part.values[k, :, 0]), np.nan)
            own += self.phases.add(facts.t_s, facts.host_t_s, fraction, part.sigma[k])
        return events + self._budget.admit(own)

    def finish(self) -> list[Event]:
        """Events still being gathered."""
        return self._instrument.finish()

    def _step(self, detection: Detection, onset_t_s: float, facts: FrameFacts) -> Event:
        identity = int(self._particle_id[detection.index])
        return step_event(detection, identity, onset_t_s, facts, self.phases.expected_sign(detection.index))


def _by_place(batch: MeasureBatch) -> dict[int, list[Detection]]:
    """Detections by the batch's frame that settled them; those of earlier frames count for the first one."""
    places: dict[int, list[Detection]] = defaultdict(list)
    frames = np.asarray(batch.frame)
    for detection in sorted(batch.detections, key=lambda found: (found.detected_frame, found.index)):
        if 0 <= detection.index < batch.flux_e.shape[1] and len(frames):
            places[min(int(np.searchsorted(frames, detection.detected_frame)), len(frames) - 1)].append(detection)
    return places
