"""Detections and flags become typed events; what all particles do together is the instrument, said once."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from daemon.engine.measures import Detection, FrameFlag, ParticleFlag
from daemon.events import Event, EventKind
from daemon.photometry.blocks import grown

if TYPE_CHECKING:
    from daemon.photometry.settle import Settled

TOGETHER_S = 0.3
TOGETHER_FRAMES = 3
"""Two things this close, by time or by frames, are one: an accelerated clock has fewer frames a second."""
COMMON_FRACTION = 0.25
COMMON_COUNT = 3
"""Steps of at least this many particles, and this share of all, within a tenth of a second are the instrument's."""
FOCUS_LEAST = 0.02
ILLUMINATION_LEAST = 0.003
"""Smallest relative changes of focus and illumination that explain a common step; below, it was the cell."""
LEVEL_FRAMES = 10
KEPT_FRAMES = 2048
KEPT_JUMPS = 64
"""Of focus, light and drift: a weak step is seen seconds after its onset."""
SATURATED_GAP_S = 10.0
"""An episode of saturation ends after this long without."""
LOST_FRAMES = 10
DROPS_EVERY_S = 1.0
BURST_EVENTS, BURST_PER_PARTICLE = 200, 4
"""Particle events at once: every particle may begin and end a transformation twice within a few frames."""
EVENTS_PER_FRAME = 2
"""What may follow for long: 200 events a second at 100 frames a second."""

NOTHING = FrameFlag.CONSTANT | FrameFlag.REPEATED | FrameFlag.DARK
FLAG_KINDS = {
    FrameFlag.DRIFT_JUMP: EventKind.DRIFT_JUMP,
    FrameFlag.ILLUMINATION_STEP: EventKind.ILLUMINATION_STEP,
    FrameFlag.FOCUS_JUMP: EventKind.FOCUS_JUMP,
}
JUMPS = FrameFlag.DRIFT_JUMP | FrameFlag.ILLUMINATION_STEP | FrameFlag.FOCUS_JUMP


@dataclass(frozen=True)
class FrameFacts:
    """What is known of one frame besides its particles."""

    frame: int
    block_id: int
    t_s: float
    host_t_s: float
    drift_y_px: float
    drift_x_px: float
    illumination: float
    focus: float
    flags: int


class InstrumentEvents:
    """The instrument's own events from frame flags and common steps: each cause said once."""

    def __init__(self) -> None:
        self._frames: deque[FrameFacts] = deque(maxlen=KEPT_FRAMES)
        self._said: dict[EventKind, FrameFacts] = {}
        self._jumps: deque[FrameFacts] = deque(maxlen=KEPT_JUMPS)
        self._dropped = 0
        self._dropped_since: FrameFacts | None = None
        self._drops_said_t_s = -np.inf

    def add(self, facts: FrameFacts) -> list[Event]:
        """Take the next frame."""
        events = self._drops(facts)
        for flag, kind in FLAG_KINDS.items():
            if facts.flags & flag:
                events += self._say(kind, facts, self._change(kind, facts), facts.t_s, np.nan)
        self._frames.append(facts)
        return events

    def finish(self) -> list[Event]:
        """Drops not yet told."""
        return self._tell_drops(self._frames[-1]) if self._dropped and self._frames else []

    def onset_t_s(self, frame: int, facts: FrameFacts) -> float:
        """Time of an earlier frame; extrapolated when it is no longer kept."""
        oldest = self._frames[0] if self._frames else facts
        if frame < oldest.frame:
            span = max(facts.frame - oldest.frame, 1)
            return max(oldest.t_s - (oldest.frame - frame) * (facts.t_s - oldest.t_s) / span, 0.0)
        back = len(self._frames) - 1 - max(facts.frame - frame, 0)
        for place in range(max(back, 0), len(self._frames)):
            if self._frames[place].frame >= frame:
                return self._frames[place].t_s
        return facts.t_s

    def explains(self, onset_t_s: float, onset_frame: int) -> bool:
        """Whether focus, illumination or drift jumped around that instant."""
        return any(
            abs(said.t_s - onset_t_s) <= TOGETHER_S or abs(said.frame - onset_frame) <= TOGETHER_FRAMES
            for said in self._jumps
        )

    def common(self, detection: Detection, facts: FrameFacts, onset_t_s: float) -> list[Event]:
        """The one event for a step that many particles share, unless its cause was said already."""
        if self.explains(onset_t_s, detection.onset_frame):
            return []
        before = [past for past in self._frames if past.frame < detection.onset_frame][-LEVEL_FRAMES:]
        focus = _relative(facts.focus, [past.focus for past in before])
        light = _relative(facts.illumination, [past.illumination for past in before])
        if abs(light) >= ILLUMINATION_LEAST:
            return self._say(EventKind.ILLUMINATION_STEP, facts, light, onset_t_s, detection.score)
        if abs(focus) >= FOCUS_LEAST:
            return self._say(EventKind.FOCUS_JUMP, facts, focus, onset_t_s, detection.score)
        return []  # the cell itself: a current that sets in moves all particles at once

    def _change(self, kind: EventKind, facts: FrameFacts) -> float:
        if kind is EventKind.DRIFT_JUMP:
            return self._moved_px(facts)
        if kind is EventKind.ILLUMINATION_STEP and facts.flags & FrameFlag.DARK:
            return -1.0
        if self._frames and self._frames[-1].flags & FrameFlag.DARK:
            return float("nan")  # nothing that the light that is back could be relative to
        restless = JUMPS | NOTHING | FrameFlag.DRIFT_UNKNOWN
        calm = [past for past in list(self._frames)[-LEVEL_FRAMES:] if not past.flags & restless]
        name = "focus" if kind is EventKind.FOCUS_JUMP else "illumination"
        return _relative(getattr(facts, name), [getattr(past, name) for past in calm])

    def _moved_px(self, facts: FrameFacts) -> float:
        """Since the last calm frame whose drift is known, however long ago: the scene may have been out of sight."""
        for past in reversed(self._frames):
            if not past.flags & JUMPS and np.isfinite(past.drift_y_px):
                return float(np.hypot(facts.drift_y_px - past.drift_y_px, facts.drift_x_px - past.drift_x_px))
        return float("nan")

    def _say(
        self,
        kind: EventKind,
        facts: FrameFacts,
        magnitude: float,
        onset_t_s: float,
        score: float,
    ) -> list[Event]:
        said = self._said.get(kind)
        self._said[kind] = facts
        if kind in FLAG_KINDS.values():
            self._jumps.append(facts)
        if said and (facts.t_s - said.t_s <= TOGETHER_S or facts.frame - said.frame <= TOGETHER_FRAMES):
            return []
        return [Event(kind, onset_t_s, facts.t_s, magnitude=magnitude, score=score, detected_host_t_s=facts.host_t_s)]

    def _drops(self, facts: FrameFacts) -> list[Event]:
        if facts.flags & FrameFlag.GAP_BEFORE:
            last = self._frames[-1].block_id if self._frames else facts.block_id
            self._dropped += max(facts.block_id - last - 1, 1)
            self._dropped_since = self._dropped_since or facts
        due = facts.t_s - self._drops_said_t_s >= DROPS_EVERY_S
        return self._tell_drops(facts) if self._dropped and due else []

    def _tell_drops(self, facts: FrameFacts) -> list[Event]:
        onset_t_s = self._dropped_since.t_s if self._dropped_since else facts.t_s
        event = Event(
            EventKind.FRAMES_DROPPED, onset_t_s, facts.t_s, magnitude=float(self._dropped), magnitude_sigma=0.0,
            detected_host_t_s=facts.host_t_s,
        )  # fmt: skip
        self._dropped, self._dropped_since, self._drops_said_t_s = 0, None, facts.t_s
        return [event]


class ParticleEpisodes:
    """Saturation and loss at the frame's edge: each told once an episode.

    A loss ends when the particle has been back for as long as it takes to be lost.
    """

    def __init__(self, particle_id: np.ndarray, lost_after_s: float) -> None:
        count = len(particle_id)
        self._particle_id = particle_id
        self._lost_after_s = lost_after_s
        self.lost = np.zeros(count, bool)
        """(P,) whether each particle is out of the frame now."""
        self._edge_t_s = np.full(count, np.nan)
        self._edge_frames = np.zeros(count, np.int64)
        self._told = np.zeros(count, bool)
        self._back_t_s = np.full(count, np.nan)
        self._back_frames = np.zeros(count, np.int64)
        self._saturated_t_s = np.full(count, -np.inf)
        self._quiet = True

    def grow(self, particle_id: np.ndarray) -> None:
        """Go on with more particles."""
        count = len(particle_id)
        self._particle_id = particle_id
        self.lost = grown(self.lost, count, False)
        self._edge_t_s = grown(self._edge_t_s, count, np.nan)
        self._edge_frames = grown(self._edge_frames, count, 0)
        self._told = grown(self._told, count, False)
        self._back_t_s = grown(self._back_t_s, count, np.nan)
        self._back_frames = grown(self._back_frames, count, 0)
        self._saturated_t_s = grown(self._saturated_t_s, count, -np.inf)

    def add(self, facts: FrameFacts, flags: np.ndarray) -> list[Event]:
        """Take one frame's particle flags (P,)."""
        if facts.flags & NOTHING or (self._quiet and not flags.any()):
            return []
        edge = (flags & ParticleFlag.EDGE) != 0
        saturated = (flags & ParticleFlag.SATURATED) != 0
        began = saturated & ~(facts.t_s - self._saturated_t_s < SATURATED_GAP_S)
        self._saturated_t_s[saturated] = facts.t_s
        self._edge_frames, self._edge_t_s = _counted(edge, self._edge_frames, self._edge_t_s, facts.t_s)
        self._back_frames, self._back_t_s = _counted(~edge, self._back_frames, self._back_t_s, facts.t_s)
        out = edge & (facts.t_s - self._edge_t_s >= self._lost_after_s) & (self._edge_frames >= LOST_FRAMES)
        back = (facts.t_s - self._back_t_s >= self._lost_after_s) & (self._back_frames >= LOST_FRAMES)
        gone = out & ~self._told
        self._told = (self._told | out) & ~back
        self.lost = edge & (self.lost | out)
        self._quiet = not (edge.any() or self._told.any())
        return [
            *(self._event(EventKind.SATURATED, index, facts.t_s, facts) for index in np.flatnonzero(began).tolist()),
            *(
                self._event(EventKind.LOST, index, self._edge_t_s[index], facts)
                for index in np.flatnonzero(gone).tolist()
            ),
        ]

    def _event(self, kind: EventKind, index: int, onset_t_s: float, facts: FrameFacts) -> Event:
        identity = int(self._particle_id[index])
        return Event(kind, float(onset_t_s), facts.t_s, particle_id=identity, detected_host_t_s=facts.host_t_s)


def _counted(holds: np.ndarray, frames: np.ndarray, since_t_s: np.ndarray, t_s: float) -> tuple[np.ndarray, np.ndarray]:
    """For how many frames, and since when, something holds; 0 and NaN where it does not."""
    frames = np.where(holds, frames + 1, 0)
    return frames, np.where(frames == 1, t_s, np.where(holds, since_t_s, np.nan))


class EventBudget:
    """Bounds particle events: a burst, then a few a frame. What is left out is counted and told with the next event."""

    def __init__(self, particles: int) -> None:
        self.burst = BURST_EVENTS + BURST_PER_PARTICLE * particles
        self._left = self.burst
        self.suppressed = 0
        self._untold = 0

    def grow(self, particles: int) -> None:
        """Go on with more particles."""
        self.burst = BURST_EVENTS + BURST_PER_PARTICLE * particles

    def frame(self) -> None:
        """One more frame has passed."""
        self._left = min(self._left + EVENTS_PER_FRAME, self.burst)

    def admit(self, events: list[Event]) -> list[Event]:
        """The events within the budget, in order."""
        kept = events[: self._left]
        if kept and self._untold:
            kept[0] = replace(kept[0], detail=f"{self._untold} further events before this one were not listed")
            self._untold = 0
        self._left -= len(kept)
        self.suppressed += len(events) - len(kept)
        self._untold += len(events) - len(kept)
        return kept


def is_common(detection: Detection, particles: int) -> bool:
    """Whether so many particles stepped together that it was the instrument."""
    return detection.common_fraction >= max(COMMON_FRACTION, COMMON_COUNT / max(particles, 1))


def step_event(settled: Settled, particle_id: int, kind: EventKind) -> Event:
    """A particle's own step, crack or closed crack: a step is known from its alarm on, others when told apart."""
    known = settled.suspect.facts if kind is EventKind.STEP else settled.facts
    return Event(
        kind,
        settled.step.t_s,
        known.t_s,
        particle_id=particle_id,
        magnitude=settled.step.size,
        magnitude_sigma=settled.step.sigma,
        score=settled.suspect.detection.score,
        detected_host_t_s=settled.facts.host_t_s,
    )


def _relative(value: float, before: list[float]) -> float:
    """Change of a positive quantity relative to its median before; NaN when either is unknown."""
    known = [past for past in before if np.isfinite(past)]
    level = float(np.median(known)) if known else float("nan")
    return value / level - 1.0 if np.isfinite(value) and np.isfinite(level) and level != 0 else float("nan")
