"""Phase onset and completion, frame by frame, for particles whose end members are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from daemon.events import Event, EventKind
from daemon.photometry.blocks import grown

ONSET, COMPLETE = 0.05, 0.95
MARGIN_LEAST, MARGIN_MOST = 0.01, 0.04
"""Beyond its threshold by three sigma, within these, before an end counts as left: no chatter."""

UNKNOWN, LOW, RISING, HIGH, FALLING = range(5)


class PhaseTracker:
    """Follows each particle between its discharged and its charged end.

    Leaving an end gives `phase_onset`, reaching the other gives `phase_complete`; a particle that turns back gives
    nothing more. Directions come from the particle itself, not from the cell's record, which may lag behind.
    """

    def __init__(self, particle_id: np.ndarray) -> None:
        self._particle_id = particle_id
        self._side = np.full(len(particle_id), UNKNOWN, np.int8)
        self._left_t_s = np.full(len(particle_id), np.nan)
        self._span = np.zeros(len(particle_id))
        self.active = False
        """Whether any particle is followed."""

    def grow(self, particle_id: np.ndarray) -> None:
        """Go on with more particles, whose end members are not known yet."""
        count = len(particle_id)
        self._particle_id = particle_id
        self._side = grown(self._side, count, UNKNOWN)
        self._left_t_s = grown(self._left_t_s, count, np.nan)
        self._span = grown(self._span, count, 0.0)

    def calibrate(self, two_phase: np.ndarray, span: np.ndarray) -> None:
        """Follow the particles `two_phase` (P,), with `span` the contrast between discharged and charged end."""
        self._span = np.where(two_phase, span, 0.0)
        self.active = bool(two_phase.any())

    def expected_sign(self, index: int) -> int:
        """Sign of the contrast change that the transformation under way brings; 0 when none is under way."""
        toward = {RISING: 1, FALLING: -1}.get(int(self._side[index]), 0)
        return toward * int(np.sign(self._span[index]))

    def add(self, t_s: float, host_t_s: float, fraction: np.ndarray, contrast_sigma: np.ndarray) -> list[Event]:
        """Take one frame: transformed fractions (P,), NaN where unknown, and the noise of the contrast."""
        with np.errstate(divide="ignore", invalid="ignore"):
            margin = np.clip(3.0 * contrast_sigma / np.abs(self._span), MARGIN_LEAST, MARGIN_MOST)
        side = self._side
        self._left_t_s[((side == LOW) & (fraction < ONSET)) | ((side == HIGH) & (fraction > COMPLETE))] = t_s
        rises = (side == LOW) & (fraction >= ONSET + margin)
        falls = (side == HIGH) & (fraction <= COMPLETE - margin)
        up, down = fraction >= COMPLETE, fraction <= ONSET
        arrives_high, arrives_low = (side == RISING) & up, (side == FALLING) & down
        side[down & ((side == UNKNOWN) | (side == FALLING))] = LOW
        side[up & ((side == UNKNOWN) | (side == RISING))] = HIGH
        side[(side == RISING) & (fraction < ONSET - margin)] = LOW
        side[(side == FALLING) & (fraction > COMPLETE + margin)] = HIGH
        side[rises], side[falls] = RISING, FALLING
        if not (rises.any() or falls.any() or arrives_high.any() or arrives_low.any()):
            return []
        onset = Event(EventKind.PHASE_ONSET, t_s, t_s, detected_host_t_s=host_t_s)
        complete = replace(onset, kind=EventKind.PHASE_COMPLETE)
        onsets = self._events(onset, rises | falls, np.where(rises, ONSET, -ONSET), contrast_sigma)
        completes = self._events(
            complete, arrives_high | arrives_low, np.where(arrives_high, COMPLETE, -COMPLETE), contrast_sigma
        )
        return [
            *(replace(event, t_s=self._left(t_s, index)) for index, event in onsets),
            *(event for _, event in completes),
        ]

    def _left(self, t_s: float, index: int) -> float:
        """When the particle was last seen at the end it left."""
        left_t_s = float(self._left_t_s[index])
        return left_t_s if np.isfinite(left_t_s) else t_s

    def _events(
        self, template: Event, where: np.ndarray, share: np.ndarray, sigma: np.ndarray
    ) -> list[tuple[int, Event]]:
        return [
            (
                index,
                replace(
                    template,
                    particle_id=int(self._particle_id[index]),
                    magnitude=float(share[index] * self._span[index]),
                    magnitude_sigma=float(sigma[index]),
                ),
            )
            for index in np.flatnonzero(where).tolist()
        ]
