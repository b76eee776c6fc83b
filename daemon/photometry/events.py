"""All events of a run, frame by frame, in one order however frames were batched."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np

from daemon.engine.measures import Detection, MaskSet, MeasureBatch
from daemon.events import Event, EventKind
from daemon.photometry.aftermath import Aftermath
from daemon.photometry.bubbles import Bubbles
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
from daemon.photometry.held import HeldCracks, Scar, scar
from daemon.photometry.phases import PhaseTracker
from daemon.photometry.settle import Settled, Settling, is_crack

CRACK, STEP, CLOSED = EventKind.CRACK, EventKind.STEP, EventKind.CRACK_CLOSED


class EventReader:
    """Instrument events, particles' episodes, phases and steps; particle events within a budget."""

    def __init__(self, masks: MaskSet, lost_after_s: float) -> None:
        particle_id = self._particle_id = np.asarray(masks.particle_id)
        self._settling = Settling(masks)
        self._held = HeldCracks()
        self._aftermath = Aftermath()
        self._bubbles = Bubbles(masks)
        self._instrument = InstrumentEvents()
        self._episodes = ParticleEpisodes(particle_id, lost_after_s)
        self._budget = EventBudget(len(particle_id))
        self._facts: list[FrameFacts] = []
        self._detections: dict[int, list[Detection]] = {}
        self.phases = PhaseTracker(particle_id)
        self.cracks_t_s: dict[int, float] = {}
        """When the particles at these indices last cracked."""

    def change_masks(self, masks: MaskSet) -> None:
        """Go on with the next version of the masks: new particles are appended."""
        particle_id = self._particle_id = np.asarray(masks.particle_id)
        self._settling.change_masks(masks)
        self._bubbles.change_masks(masks)
        self._episodes.grow(particle_id)
        self._budget.grow(len(particle_id))
        self.phases.grow(particle_id)

    @property
    def lost(self) -> np.ndarray:
        """(P,) bool."""
        return self._episodes.lost

    @property
    def parted(self) -> np.ndarray:
        """(P,) bool: told that a piece follows no more, and not that it does again."""
        return np.isin(np.arange(len(self._particle_id)), self._aftermath.apart)

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
            self._settling.add(detection, onset_t_s, facts)
        self._settling.lookback.add(part, k, facts.t_s)
        for detection, onset_t_s in self._settling.look_again(facts):
            self._settling.add(detection, onset_t_s, facts)
        own += self._told(self._settling.due(facts)) + self._stayed(facts)
        events += self._bubbles.due(facts, self._settling.lookback)
        own += self._aftermath.look(facts.t_s, facts.host_t_s, self._settling.lookback)
        if self.phases.active:
            fraction = np.where(table.two_phase, table.soc(part.values[k, :, 0]), np.nan)
            own += self.phases.add(facts.t_s, facts.host_t_s, fraction, part.sigma[k])
        return events + self._budget.admit(own)

    def finish(self) -> list[Event]:
        """Events still being gathered."""
        if not self._facts:
            return self._instrument.finish()
        told = self._told(self._settling.flush(self._facts[-1]))
        told += [self._cracked(each) for each in self._held.flush(self._facts[-1], self._settling.lookback)]
        passing = self._bubbles.finish(self._facts[-1], self._settling.lookback)
        return passing + self._budget.admit(told) + self._instrument.finish()

    def fragments(self) -> list[dict[str, Any]]:
        """Rows of the pieces that cracked particles have come to, under ids of their own."""
        return self._aftermath.pieces(int(self._particle_id.max(initial=0)) + 1, self._settling.places)

    def _told(self, settled: list[Settled]) -> list[Event]:
        """Particles' events of what was settled; what passes is gathered."""
        own: list[Event] = []
        for each in settled:
            index, onset_t_s = each.suspect.detection.index, each.suspect.onset_t_s
            detection = each.suspect.detection
            crack = is_crack(each, self.phases.expected_sign(index))
            shaken = self._instrument.explains(onset_t_s, detection.onset_frame)
            common = is_common(detection, len(self._particle_id))
            # whatever shook all of them, or passed nearby, may have hidden one's crack, or caused it
            apart = each.apart and not ((shaken or each.near_passing) and not (crack and each.shapes))
            if each.passing or ((shaken or common or each.near_passing) and not apart):
                if not (shaken or common):
                    self._bubbles.touch(each, self._settling.lookback)
                continue
            body = self._settling.anatomy(index)
            if not crack:
                closes = each.step.size > 0 and self._aftermath.closes(each)
                own.append(step_event(each, int(self._particle_id[index]), CLOSED if closes else STEP))
            elif each.near_passing and body is not None:
                self._held.add(scar(each, body, self._settling.lookback))
            else:
                own.append(self._cracked(scar(each, body, self._settling.lookback)))
        return own

    def _stayed(self, facts: FrameFacts) -> list[Event]:
        """Cracks seen beside an object that have outlasted it by this frame; the others were the object."""
        stayed, gone = self._held.due(facts, self._settling.lookback)
        for each in gone:
            self._bubbles.touch(each, self._settling.lookback)
        return [self._cracked(each) for each in stayed]

    def _cracked(self, each: Scar) -> Event:
        crack = each.crack
        index = crack.suspect.detection.index
        identity = int(self._particle_id[index])
        self.cracks_t_s[index] = crack.step.t_s
        self._aftermath.add(crack, identity, each.body, each.before)
        return step_event(crack, identity, CRACK)


def _by_place(batch: MeasureBatch) -> dict[int, list[Detection]]:
    """Detections by the batch's frame that settled them; those of earlier frames count for the first one."""
    places: dict[int, list[Detection]] = defaultdict(list)
    frames = np.asarray(batch.frame)
    for detection in sorted(batch.detections, key=lambda found: (found.detected_frame, found.index)):
        if 0 <= detection.index < batch.flux_e.shape[1] and len(frames):
            places[min(int(np.searchsorted(frames, detection.detected_frame)), len(frames) - 1)].append(detection)
    return places
