"""Cracks seen beside a passing object: held until they are seen to have stayed, told then or not at all.

The rim of an object that stands over a particle for a frame or two is a dark line with one side darker, as a crack is,
and so is what it has just left when it covers all. An object moves on, and was elsewhere before: the particle differs
from what it was some seconds ago as it did across the onset only if it has cracked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from daemon.photometry.classify import FrameFacts
from daemon.photometry.fracture import Anatomy
from daemon.photometry.lookback import Lookback
from daemon.photometry.settle import PART_FRAMES, TYPED_FRAMES, Settled
from kernels.photometry import AXIAL_BINS

HELD_S, HELD_FRAMES = 2.0, TYPED_FRAMES
"""After the onset, at least: an object of 10 px/s has moved its rim across a particle by then."""
MOST_S = 10.0
"""What an object has covered for so long is not told any more."""
EVERY_S = 0.5
LOOKS = 2
"""In a row that must agree: for one a rim may stand alike again."""
MEAN_FRAMES = 10
ALIKE_SHARE = 0.1
"""Of the square of what is uneven in the change: what may differ from it later, beside noise."""


@dataclass(frozen=True)
class Scar:
    """A crack beside its particle's parts."""

    crack: Settled
    body: Anatomy | None
    before: np.ndarray
    """(FEATURES,) e and e px, just before it."""
    early: np.ndarray
    """(FEATURES,) some seconds before it."""
    noise: float
    """Square of what noise alone makes of a change of such means."""

    def stays(self, lookback: Lookback) -> bool:
        """Whether the particle now differs from what it was early as it did across the onset, all of it alike aside."""
        if self.body is None:
            return True
        change = lookback.newest(self.crack.suspect.detection.index, MEAN_FRAMES) - self.early
        change /= self.early[:AXIAL_BINS].sum()
        change[-2:] /= self.body.radius_px
        if not np.isfinite(change).all():
            return False
        first = self.crack.change
        return self.body.uneven(change - first) - self.noise <= ALIKE_SHARE * self.body.uneven(first)


@dataclass
class _Held:
    scar: Scar
    again_t_s: float
    alike: int = 0


class HeldCracks:
    """Those of one run that wait; as many as are seen beside objects within `MOST_S`."""

    def __init__(self) -> None:
        self._held: list[_Held] = []

    def add(self, scar: Scar) -> None:
        """Hold a crack from the frame on that settled it."""
        crack = scar.crack
        onset_t_s, facts = crack.step.t_s, crack.facts
        frames = max(facts.frame - crack.suspect.detection.onset_frame, 1)
        least_s = HELD_FRAMES * (facts.t_s - onset_t_s) / frames
        self._held.append(_Held(scar, onset_t_s + max(HELD_S, least_s)))

    def due(self, facts: FrameFacts, lookback: Lookback) -> tuple[list[Scar], list[Settled]]:
        """Those that have stayed, as settled by this frame, and those that have not; the lookback has taken it."""
        stayed: list[Scar] = []
        gone: list[Settled] = []
        for each in [held for held in self._held if held.again_t_s <= facts.t_s]:
            crack = each.scar.crack
            each.again_t_s = facts.t_s + EVERY_S
            each.alike = each.alike + 1 if each.scar.stays(lookback) else 0
            if each.alike >= LOOKS:
                stayed.append(_settled_by(each.scar, facts))
            elif not each.alike and facts.t_s - crack.step.t_s > MOST_S:
                gone.append(crack)
            else:
                continue
            self._held.remove(each)
        return stayed, gone

    def flush(self, facts: FrameFacts, lookback: Lookback) -> list[Scar]:
        """Those that look as they did: the run ends."""
        held, self._held = self._held, []
        return [_settled_by(each.scar, facts) for each in held if each.scar.stays(lookback)]


def scar(crack: Settled, body: Anatomy | None, lookback: Lookback) -> Scar:
    """A crack with what is known of its particle, by the frame that settled it."""
    index, onset_t_s = crack.suspect.detection.index, crack.step.t_s
    _, noise = lookback.going_on(index, onset_t_s, PART_FRAMES, 1.0 if body is None else body.radius_px)
    before, early = lookback.before(index, onset_t_s), lookback.early(index, onset_t_s)
    return Scar(crack, body, before, early, float(np.nan_to_num(noise)))


def _settled_by(each: Scar, facts: FrameFacts) -> Scar:
    return replace(each, crack=replace(each.crack, facts=facts))
