"""What becomes of a cracked particle: its line may close, one of its pieces may follow the cell no more and follow again.

Since the crack each particle's parts are compared, twice a second, with what a fading line, moved pieces and two pieces
that brighten apart would make of them (least squares on the particle's own mask).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from daemon.events import Event, EventKind
from daemon.photometry.fracture import Anatomy
from daemon.photometry.lookback import Lookback
from daemon.photometry.settle import Settled
from kernels.photometry import AXIAL_BINS

EVERY_S = 0.5
MEAN_S = 1.0
CLOSED_SHARE = 0.4
"""Of the line's first darkness; below, it has closed."""
CLOSED_TIMES = 3
"""Looks in a row."""
STILL_SHARE = 0.2
"""A piece that moves by less than this share of the other does not follow the cell."""
AGAIN_SHARE = 0.5
LEAST_MOVE = 0.015
"""Relative brightness that the other must have moved by before a piece is judged."""
LEAST_PIECE = 0.1
"""Of the particle's light: smaller pieces are not judged."""


@dataclass
class Wound:
    """One crack of one particle."""

    index: int
    particle_id: int
    t_s: float
    size: float
    """Change of contrast."""
    body: Anatomy
    before: np.ndarray
    """(FEATURES,) of its parts just before the crack, e and e px."""
    columns: np.ndarray
    """(FEATURES, K) shapes: all of it, the line, one piece moved in y and x, and tilts and a bowl of brightness."""
    pieces: np.ndarray
    """(FEATURES, 2) shapes: either piece by itself."""
    line: float
    """Amount of the line when it was new, below zero."""
    since: np.ndarray | None = None
    """(FEATURES,) what the pieces' motion is counted from."""
    closed: bool = False
    faded: int = 0
    still: int | None = None
    """The piece that follows no more."""
    parted: bool = False

    def share_of_line(self, parts: np.ndarray) -> float:
        """How much of the line is left, 1 when it was new."""
        change = self._relative(parts - self.before)
        amount = np.linalg.lstsq(self.columns, change, rcond=None)[0]
        return float(amount[1] / self.line)

    def motion(self, parts: np.ndarray) -> np.ndarray:
        """(2,) relative brightness that each piece has gained since it was counted from."""
        if self.since is None:
            return np.zeros(2)
        change = self._relative(parts - self.since)
        moved: np.ndarray = np.linalg.lstsq(self.pieces, change, rcond=None)[0]
        return moved

    def _relative(self, change: np.ndarray) -> np.ndarray:
        out = change / self.before[:AXIAL_BINS].sum()
        out[-2:] /= self.body.radius_px
        return out


class Aftermath:
    """All cracked particles of a run."""

    def __init__(self) -> None:
        self.wounds: list[Wound] = []
        self._looked_t_s = -np.inf

    def add(self, crack: Settled, particle_id: int, body: Anatomy | None, lookback: Lookback) -> None:
        """Follow a particle from its crack on; without shapes there is nothing to follow."""
        left, index = crack.shapes, crack.suspect.detection.index
        if left is None or body is None:
            return
        before = lookback.before(index, crack.step.t_s)
        columns, pieces, light = body.of_crack(left.normal, left.offset_px)
        amount = np.linalg.lstsq(columns, crack.change, rcond=None)[0]
        if amount[1] >= 0 or not np.isfinite(before).all() or light.min() < LEAST_PIECE:
            return
        self.wounds = [wound for wound in self.wounds if wound.index != index]
        self.wounds.append(
            Wound(index, particle_id, crack.step.t_s, crack.step.size, body, before, columns, pieces, float(amount[1]))
        )

    def closes(self, step: Settled) -> bool:
        """Whether a step of a cracked particle is its line that closed at once."""
        for wound in self.wounds:
            if wound.index == step.suspect.detection.index and not wound.closed and np.isfinite(step.change).all():
                amount = np.linalg.lstsq(wound.columns, step.change, rcond=None)[0]
                if amount[1] / wound.line < CLOSED_SHARE - 1.0:
                    wound.closed = True
                    wound.since = None
                    return True
        return False

    def look(self, t_s: float, host_t_s: float, lookback: Lookback) -> list[Event]:
        """Look at every cracked particle, twice a second."""
        if not self.wounds or t_s - self._looked_t_s < EVERY_S:
            return []
        self._looked_t_s = t_s
        events: list[Event] = []
        for wound in self.wounds:
            parts = lookback.latest(wound.index, max(t_s - MEAN_S, wound.t_s))
            if np.isfinite(parts).all() and t_s - wound.t_s >= MEAN_S:
                template = Event(
                    EventKind.CRACK_CLOSED, t_s, t_s, particle_id=wound.particle_id, detected_host_t_s=host_t_s
                )
                events += self._closed(wound, parts, template) + self._apart(wound, parts, template)
        return events

    def _closed(self, wound: Wound, parts: np.ndarray, template: Event) -> list[Event]:
        if wound.closed:
            return []
        share = wound.share_of_line(parts)
        wound.faded = wound.faded + 1 if share < CLOSED_SHARE else 0
        if wound.faded < CLOSED_TIMES:
            return []
        wound.closed = True
        lost = float(wound.line * wound.columns[:AXIAL_BINS, 1].sum())
        return [replace(template, magnitude=(share - 1.0) * lost, t_s=template.t_s - (CLOSED_TIMES - 1) * EVERY_S)]

    def _apart(self, wound: Wound, parts: np.ndarray, template: Event) -> list[Event]:
        """Compare what the pieces did; the smaller motion against the larger."""
        if wound.since is None:
            wound.since = parts
            return []
        moved = wound.motion(parts)
        slow = int(np.abs(moved).argmin()) if wound.still is None else wound.still
        most, least = moved[1 - slow], moved[slow]
        if abs(most) < LEAST_MOVE:
            return []
        share, wound.since = float(least / most), parts
        if wound.still is None and abs(share) < STILL_SHARE:
            wound.still = slow
            lag = float((least - most) * wound.pieces[:AXIAL_BINS, slow].sum())
            gone = replace(template, kind=EventKind.DISCONNECTED, magnitude=lag)
            if wound.parted:
                return [gone]
            wound.parted = True
            return [replace(template, kind=EventKind.FRAGMENT, magnitude=wound.size), gone]
        if wound.still is not None and share > AGAIN_SHARE:
            wound.still = None
            back = float(least * wound.pieces[:AXIAL_BINS, slow].sum())
            return [replace(template, kind=EventKind.RECONNECTED, magnitude=back)]
        return []
