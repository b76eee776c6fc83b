"""What becomes of a cracked particle: its line may close, one of its pieces may follow the cell no more, and again.

Since the crack each particle's parts are compared, twice a second, with what a fading line, moved pieces and two pieces
that brighten apart would make of them (least squares on the particle's own mask). What all particles in the field seem
to move by is taken off the pieces first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from daemon.events import Event, EventKind
from daemon.photometry.common_motion import CommonMotion
from daemon.photometry.fracture import Anatomy
from daemon.photometry.lookback import Lookback
from daemon.photometry.settle import Settled
from kernels.photometry import AXIAL_BINS

EVERY_S = 0.5
MEAN_S = 1.0
CLOSED_SHARE = 0.35
"""Of the line's first darkness; below, it has closed."""
CLOSED_TIMES = 6
"""Looks in a row."""
STILL_SHARE = 0.2
"""A piece that moves by less than this share of the other does not follow the cell."""
AGAIN_SHARE = 0.5
LEFT_SHARE, LINE_LEFT_SHARE = 0.12, 0.05
"""Of a change that the pieces' brightness, or a line's, does not explain; above, they are not judged by it."""
STILL_TIMES = 2
LEAST_MOVE = 0.012
"""Relative brightness that the other must have moved by before a piece is judged."""
LEAST_LINE = 0.01
"""Contrast that a line must have cost for its fading to be told."""
LEAST_PIECE = 0.15
"""Of the particle's area: smaller pieces are not judged."""


@dataclass
class Wound:
    """One crack of one particle."""

    index: int
    particle_id: int
    t_s: float
    size: float
    """Change of contrast."""
    radius_px: float
    before: np.ndarray
    """(FEATURES,) of its parts just before the crack, e and e px."""
    columns: np.ndarray
    """(FEATURES, K) shapes: all of it, the line, one piece moved in y and x, and tilts and a bowl of brightness."""
    pieces: np.ndarray
    """(FEATURES, 4) shapes: either piece by itself as the crack left it, and both moved together in y and x; `healed`
    once the line has closed."""
    healed: np.ndarray
    """The same without the line's darkness."""
    line: float
    """Amount of the line when it was new, below zero."""
    centres_px: np.ndarray
    """(2, 2) y, x of either piece from the particle's centre."""
    areas_px: np.ndarray
    """(2,)"""
    since: np.ndarray | None = None
    """(FEATURES,) what the pieces' motion is counted from."""
    since_px: np.ndarray = field(default_factory=lambda: np.zeros(2))
    """(2,) what all particles had moved by then."""
    closed: bool = False
    faded: int = 0
    quiet: int = 0
    slow: int = -1
    """How often in a row this piece was seen to lag."""
    still: int | None = None
    """The piece that follows no more."""
    parted: bool = False

    def __post_init__(self) -> None:
        self._by_crack, self._by_pieces = _Shapes(self.columns), _Shapes(self.pieces[:, :2])

    def close(self) -> None:
        """From now on both pieces shine where the line was."""
        self.closed, self.since, self.pieces = True, None, self.healed
        self._by_pieces = _Shapes(self.pieces[:, :2])

    def share_of_line(self, parts: np.ndarray) -> tuple[float, float]:
        """How much of the line is left, 1 when it was new, and the share of all changes that is not explained."""
        amount, left = self._by_crack.explained(self._relative(parts - self.before))
        return float(amount[1] / self.line), left

    def count_from(self, parts: np.ndarray, common_px: np.ndarray) -> None:
        """Count the pieces' motion from here."""
        self.since, self.since_px = parts, common_px

    def motion(self, parts: np.ndarray, common_px: np.ndarray) -> tuple[np.ndarray, float]:
        """(2,) relative brightness that each piece has gained since it was counted from, and the share of the change
        that this does not explain. `common_px` (2,) is what all particles have moved by.
        """
        together = self.pieces[:, 2:] @ (common_px - self.since_px)
        return self._by_pieces.explained(self._relative(parts - self.since) - together)

    def _relative(self, change: np.ndarray) -> np.ndarray:
        out = change / self.before[:AXIAL_BINS].sum()
        out[-2:] /= self.radius_px
        return out


class _Shapes:
    """Least squares by the same columns (FEATURES, n), solved once."""

    def __init__(self, columns: np.ndarray) -> None:
        self._columns = columns
        self._inverse = np.linalg.pinv(columns, rcond=np.finfo(float).eps * max(columns.shape))

    def explained(self, change: np.ndarray) -> tuple[np.ndarray, float]:
        """(n,) amounts of the columns in a change (FEATURES,), and the share of its square that they leave."""
        amount = self._inverse @ change
        left = change - self._columns @ amount
        return amount, float(left @ left / max(change @ change, 1e-30))


def closing_detail(sign: int, electrode: str) -> str:
    """How a closing crack goes with the cell's current: `sign` 1 while it charges, -1 while it discharges, 0 unknown.

    Cracks close when the particle takes lithium up (Parks 2025), a cathode's on discharge, an anode's on charge.
    """
    if not sign:
        return "the current's direction is not known"
    if sign == (-1 if electrode == "cathode" else 1):
        return "while the particle takes up lithium, as cracks close"
    return "while the particle gives up lithium, when cracks do not close by themselves: doubtful"


class Aftermath:
    """All cracked particles of a run."""

    def __init__(self) -> None:
        self.wounds: list[Wound] = []
        self._looked_t_s = -np.inf
        self._common = CommonMotion()

    def add(self, crack: Settled, particle_id: int, body: Anatomy | None, before: np.ndarray) -> None:
        """Follow a particle from its crack on, `before` (FEATURES,) it its parts; without shapes there is nothing to
        follow.
        """
        left, index = crack.shapes, crack.suspect.detection.index
        if left is None or body is None:
            return
        columns = body.of_crack(left.normal, left.offset_px)
        centres_px, areas_px = body.sides(left.normal, left.offset_px)
        amount = np.linalg.lstsq(columns, crack.change, rcond=None)[0]
        if (
            amount[1] * columns[:AXIAL_BINS, 1].sum() > -LEAST_LINE
            or not np.isfinite(before).all()
            or areas_px.min() < LEAST_PIECE * areas_px.sum()
        ):
            return
        healed = amount.copy()
        healed[1] = 0.0
        self.wounds = [wound for wound in self.wounds if wound.index != index]
        self.wounds.append(
            Wound(
                index,
                particle_id,
                crack.step.t_s,
                crack.step.size,
                body.radius_px,
                before,
                columns,
                body.of_pieces(left.normal, left.offset_px, amount),
                body.of_pieces(left.normal, left.offset_px, healed),
                float(amount[1]),
                centres_px,
                areas_px,
            )
        )

    @property
    def apart(self) -> list[int]:
        """Indices of the particles of which a piece follows no more."""
        return [wound.index for wound in self.wounds if wound.still is not None]

    def closes(self, step: Settled) -> bool:
        """Whether a step of a cracked particle is its line that closed at once."""
        for wound in self.wounds:
            if wound.index == step.suspect.detection.index and not wound.closed and np.isfinite(step.change).all():
                amount = np.linalg.lstsq(wound.columns, step.change, rcond=None)[0]
                if amount[1] / wound.line < CLOSED_SHARE - 1.0:
                    wound.close()
                    return True
        return False

    def look(self, t_s: float, host_t_s: float, lookback: Lookback) -> list[Event]:
        """Look at every cracked particle, twice a second."""
        if not self.wounds or t_s - self._looked_t_s < EVERY_S:
            return []
        self._looked_t_s = t_s
        self._common.add(lookback.centroids(t_s - MEAN_S))
        events: list[Event] = []
        for wound in self.wounds:
            parts = lookback.latest(wound.index, max(t_s - MEAN_S, wound.t_s))
            if np.isfinite(parts).all() and t_s - wound.t_s >= MEAN_S:
                template = Event(
                    EventKind.CRACK_CLOSED, t_s, t_s, particle_id=wound.particle_id, detected_host_t_s=host_t_s
                )
                events += self._closed(wound, parts, template) + self._apart(wound, parts, template)
        return events

    def pieces(self, first_id: int, place_of: Callable[[int], tuple[float, float]]) -> list[dict[str, Any]]:
        """Rows of `particles` for both pieces of each that parted: where they were cut, and whether they follow."""
        rows: list[dict[str, Any]] = []
        for wound in self.wounds:
            for side in range(2) if wound.parted else ():
                y_px, x_px = place_of(wound.index)
                row = {"particle_id": first_id + len(rows), "parent_id": wound.particle_id}
                off_y, off_x = wound.centres_px[side]
                row |= {"y_px": y_px + off_y, "x_px": x_px + off_x, "area_px": wound.areas_px[side]}
                rows.append(row | {"state": "dead" if wound.still == side else "active"})
        return rows

    def _closed(self, wound: Wound, parts: np.ndarray, template: Event) -> list[Event]:
        if wound.closed:
            return []
        share, left = wound.share_of_line(parts)
        wound.faded = wound.faded + 1 if share < CLOSED_SHARE and left < LINE_LEFT_SHARE else 0
        if wound.faded < CLOSED_TIMES:
            return []
        wound.close()
        lost = float(wound.line * wound.columns[:AXIAL_BINS, 1].sum())
        return [replace(template, magnitude=(share - 1.0) * lost, t_s=template.t_s - (CLOSED_TIMES - 1) * EVERY_S)]

    def _apart(self, wound: Wound, parts: np.ndarray, template: Event) -> list[Event]:
        """Compare what the pieces did; the smaller motion against the larger."""
        if wound.since is None:
            wound.count_from(parts, self._common.px)
            return []
        moved, left = wound.motion(parts, self._common.px)
        slow = int(np.abs(moved).argmin()) if wound.still is None else wound.still
        most, least = float(moved[1 - slow]), float(moved[slow])
        if abs(most) < LEAST_MOVE:
            return []
        wound.count_from(parts, self._common.px)
        if left > LEFT_SHARE:
            return []  # something else happened meanwhile
        light = float(wound.pieces[:AXIAL_BINS, slow].sum())
        if wound.still is not None:
            if least / most <= AGAIN_SHARE:
                return []
            wound.still = None
            return [replace(template, kind=EventKind.RECONNECTED, magnitude=least * light)]
        return self._stopped(wound, slow, least / most, replace(template, magnitude=(least - most) * light))

    def _stopped(self, wound: Wound, slow: int, share: float, template: Event) -> list[Event]:
        """Whether the slower piece, which moved by `share` of the other, was seen to lag often enough."""
        lags = abs(share) < STILL_SHARE
        wound.quiet = (wound.quiet + 1 if slow == wound.slow else 1) if lags else 0
        wound.slow = slow
        if wound.quiet < STILL_TIMES:
            return []
        wound.still, wound.quiet = slow, 0
        events = [replace(template, kind=EventKind.DISCONNECTED)]
        if not wound.parted:
            events.insert(0, replace(template, kind=EventKind.FRAGMENT, magnitude=wound.size))
        wound.parted = True
        return events
