"""Particles that stop following the cell from one half to the next, all of them at once, and such that come back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from daemon.events import Event, EventKind
from daemon.photometry.activity import Swings
from daemon.photometry.blocks import grown
from daemon.photometry.curves import HalfCurves

CLEAR = 3.0
"""Of what noise and slow systematics reach now: a particle that swung by less before may merely have faded into it."""
AGAIN, AGAIN_SHARE = 2.0, 0.25
"""... and of that, and of its swing before: one that swings by both follows again."""
BACK_SHARE = 0.5
"""Of the swings of two halves: what lives comes back, a film that grows at a changing pace does not."""
SAME_CHARGE = 0.95
"""A half that passes less of the charge in which a particle swung may have left it out."""
FASTER = 1.5
"""So may one at more than this times the current."""
GOING_SHARE, GOING_LEAST = 0.5, 2
"""Of those that swung before: so many must go on."""
PART_SHARE = 0.5
"""Of its swing before: less is no whole half of its life."""
FAINT_HALVES = 2
"""In a row, neither so nor still: not abrupt. One may be the half within which a particle stopped."""


class Standstill:
    """What each particle did in its last halves, and who has been told to have stopped."""

    def __init__(self, particle_id: np.ndarray) -> None:
        count = len(particle_id)
        self._particle_id = particle_id
        self._lively = np.zeros(count, np.int8)
        """Halves in a row in which it clearly moved, there and back; two at most."""
        self._faint = np.zeros(count, np.int8)
        self._last = np.full((4, count), np.nan)
        """Swing, net change, charge and current of the last such half."""
        self._swing = np.full(count, np.nan)
        """The lesser of the last two."""
        self._charge_mah = np.full(count, np.nan)
        """The larger of the last two, as the current is."""
        self._current_ma = np.full(count, np.nan)
        self._told = np.zeros(count, bool)
        self._edited = False

    def grow(self, particle_id: np.ndarray) -> None:
        """Go on with more particles; what this half shows may be the masks' doing."""
        count = len(particle_id)
        self._particle_id, self._edited = particle_id, True
        self._lively, self._faint = grown(self._lively, count, 0), grown(self._faint, count, 0)
        self._last = grown(self._last, count, np.nan, axis=1)
        self._swing = grown(self._swing, count, np.nan)
        self._charge_mah = grown(self._charge_mah, count, np.nan)
        self._current_ma = grown(self._current_ma, count, np.nan)
        self._told = grown(self._told, count, False)

    def add(
        self,
        swings: Swings,
        curves: HalfCurves,
        out: np.ndarray,
        cracks_t_s: Mapping[int, float],
        detected_t_s: float,
    ) -> list[Event]:
        """The events of one half that passed enough charge. `out` (P,) bool: lost, or told disconnected otherwise;
        `cracks_t_s`: when the particles at these indices cracked.
        """
        half, swing, least = curves.half, swings.swing, swings.least
        known = swings.known & ~out
        comparable = known & (abs(half.passed_mah) >= SAME_CHARGE * self._charge_mah)
        comparable &= ~(half.mean_current_ma > FASTER * self._current_ma)
        before = known & (self._lively >= 2)
        going = before & (swing > least)
        alone = int(going.sum()) >= max(GOING_LEAST, GOING_SHARE * int(before.sum()))
        judged = alone and not self._edited
        stopped = before & comparable & ~self._told & (swing < least) & (self._swing > CLEAR * least) & judged
        again = self._told & known & (swing > AGAIN * least) & (swing > AGAIN_SHARE * self._swing)
        t_s = _when(curves, going)
        events = []
        for index in np.flatnonzero(stopped | again).tolist():
            kind = EventKind.RECONNECTED if again[index] else EventKind.DISCONNECTED
            about = f"{half.name} of cycle {half.cycle}"
            detail = f"swings by {100 * swing[index]:.2g} % again in the {about}" if again[index] else (
                f"{_cause(cracks_t_s.get(index))}: swung by {100 * self._swing[index]:.2g} %, by no more than "
                f"{100 * least[index]:.2g} % in the {about}, while {int(going.sum())} of {int(before.sum()) - 1} "
                "others went on"
            )  # fmt: skip
            change = swing[index] if again[index] else swing[index] - self._swing[index]
            events.append(
                Event(
                    kind, t_s, detected_t_s, particle_id=int(self._particle_id[index]), magnitude=float(change),
                    magnitude_sigma=float(swings.sigma[index]) * (1.0 if again[index] else np.sqrt(2.0)), detail=detail,
                )
            )  # fmt: skip
        self._remember(swings, curves, comparable & judged, known)
        self._told = (self._told | stopped) & ~again
        self._edited = False
        return events

    def _remember(self, swings: Swings, curves: HalfCurves, comparable: np.ndarray, known: np.ndarray) -> None:
        """Keep what this half showed; one that shows a particle still is no part of its life."""
        moves = known & (swings.swing > CLEAR * swings.least)
        moves &= ~(comparable & (self._lively >= 2) & (swings.swing < PART_SHARE * self._swing))
        net = curves.smooth[-1] - curves.smooth[0]
        mine = np.broadcast_to(
            np.array([abs(curves.half.passed_mah), curves.half.mean_current_ma])[:, None], (2, len(net))
        )
        fresh = np.concatenate([[swings.swing, net], mine])
        back = np.abs(net + self._last[1]) <= BACK_SHARE * (swings.swing + self._last[0])
        second = moves & (self._lively >= 1) & back
        self._swing = np.where(moves, np.where(second, np.fmin(swings.swing, self._last[0]), swings.swing), self._swing)
        larger = np.where(second, np.fmax(fresh[2:], self._last[2:]), fresh[2:])
        self._charge_mah = np.where(moves, larger[0], self._charge_mah)
        self._current_ma = np.where(moves, larger[1], self._current_ma)
        self._last = np.where(moves, fresh, self._last)
        self._faint = np.where(moves, 0, self._faint + comparable).astype(np.int8)
        over = comparable & ((swings.swing < swings.least) | (self._faint >= FAINT_HALVES))
        self._faint = np.where(over, 0, self._faint).astype(np.int8)
        self._lively = np.where(moves, np.where(second, 2, 1), np.where(over, 0, self._lively)).astype(np.int8)


def _when(curves: HalfCurves, going: np.ndarray) -> float:
    """When the others were half-way: that late at the latest a particle that follows would have moved."""
    middle_t_s = curves.crossing_s(curves.level(0.5))[going]
    middle_t_s = middle_t_s[np.isfinite(middle_t_s)]
    return float(np.median(middle_t_s)) if len(middle_t_s) else float(curves.t_s[0])


def _cause(crack_t_s: float | None) -> str:
    return "no crack seen" if crack_t_s is None else f"all of it, cracked at {crack_t_s:.1f} s"
