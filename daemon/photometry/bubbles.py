"""Objects that pass over particles: one event for each when it has passed, with how large it was as far as is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from daemon.engine.measures import MaskSet
from daemon.events import Event, EventKind
from daemon.photometry.classify import TOGETHER_FRAMES, FrameFacts
from daemon.photometry.lookback import Lookback
from daemon.photometry.patches import EDGE_PX, GROW_SIGMA, RING_GAP_PX, RING_WIDTH_PX
from daemon.photometry.settle import Settled

QUIET_S = 3.0
"""An object touches one particle after another: what it does within this long of the last is one event."""
MOST_S = 30.0
"""An event is held no longer than this."""
GAP_S = 0.5
"""Between dark and bright parts of an edge a particle may look untouched for less than this."""
LEVEL_FRAMES, LEAST_FRAMES, EDGE_FRAMES = 20, 5, 2
"""Before the onset, without the last of them."""
TOUCHED, TOUCHED_SIGMAS = 0.015, 6.0
"""Contrast that a touched particle differs by from before."""
AROUND_S, MOMENT_FRAMES = 3.0, 3
"""Others are held at that moment against what they were this long before and after."""
MOST_SHARE = 0.4
"""Of the particles: where more differ, those that are dimmed and those that are lifted cannot be told apart."""
WRONG_SHARE = 0.34
"""Of the touched: more that fit no disc are something else."""
CENTRES, RADII = 40, 36
LEAST_RADIUS_PX = 3.0
MOST_PARTICLES = 128
"""The nearest to what was touched tell how large it was."""


@dataclass
class Touch:
    """One particle under the object."""

    index: int
    onset_t_s: float
    until_t_s: float
    level: float
    """Contrast before."""
    limit: float
    """Difference from it that is a touch."""


@dataclass
class Passage:
    """One object, as long as it passes."""

    onset_t_s: float
    last: FrameFacts
    touches: list[Touch] = field(default_factory=list)
    unknown: set[int] = field(default_factory=set)
    """Particles it touched that were not seen well enough before."""
    told: bool = False


class Bubbles:
    """Passing objects of a run, one at a time: what passes at the same time elsewhere is the same event."""

    def __init__(self, masks: MaskSet) -> None:
        self._passage: Passage | None = None
        self.change_masks(masks)

    def change_masks(self, masks: MaskSet) -> None:
        """Go on with other masks of the same run."""
        self._masks = masks
        area_px = np.asarray(masks.table.get("area_px", np.ones(masks.count)), float)
        self._radius_px = np.sqrt(np.where(area_px > 0, area_px, 1.0) / np.pi)
        self._ring_px = GROW_SIGMA * masks.psf_sigma_px + EDGE_PX + RING_GAP_PX + RING_WIDTH_PX

    def touch(self, settled: Settled, lookback: Lookback) -> None:
        """One particle that it passed over, `settled` by the frame that the lookback has just taken; where a particle
        changed beside one that it passed over, that is no object by itself.
        """
        if self._passage is None and settled.passing:
            self._passage = Passage(settled.suspect.onset_t_s, settled.facts)
        passage = self._passage
        if passage is None:
            return
        passage.last = settled.facts if settled.passing else passage.last
        self._follow(passage, lookback)
        index, onset_t_s = settled.suspect.detection.index, settled.suspect.onset_t_s
        if any(each.index == index and onset_t_s <= each.until_t_s + GAP_S for each in passage.touches):
            return  # it leaves
        fresh = _touched(index, onset_t_s, lookback)
        if fresh is None:
            passage.unknown.add(index)
        else:
            passage.touches.append(fresh)

    def due(self, facts: FrameFacts, lookback: Lookback) -> list[Event]:
        """The event of an object that has passed by this frame, or has been passing for too long to wait."""
        passage = self._passage
        if passage is None:
            return []
        over = facts.t_s - passage.last.t_s > QUIET_S and facts.frame - passage.last.frame > TOGETHER_FRAMES
        told = over or facts.t_s - passage.onset_t_s > MOST_S
        events = self._tell(passage, facts, lookback) if told and not passage.told else []
        if over:
            self._passage = None
        return events

    def finish(self, facts: FrameFacts, lookback: Lookback) -> list[Event]:
        """The event not told yet: the run ends with the frame of `facts`."""
        passage = self._passage
        return [] if passage is None or passage.told else self._tell(passage, facts, lookback)

    def _follow(self, passage: Passage, lookback: Lookback) -> None:
        """Until when each particle has been touched, as far as is known now."""
        for each in passage.touches:
            t_s, values = lookback.trace(each.index)
            dark = t_s[(t_s > each.until_t_s) & (np.abs(values - each.level) > each.limit)]
            together = np.diff(np.concatenate([[each.until_t_s], dark])) <= GAP_S
            if (count := int(np.logical_and.accumulate(together).sum())) > 0:
                each.until_t_s = float(dark[count - 1])

    def _tell(self, passage: Passage, facts: FrameFacts, lookback: Lookback) -> list[Event]:
        passage.told = True
        self._follow(passage, lookback)
        radius_px, sigma_px, detail = self._size(passage, lookback)
        return [
            Event(
                EventKind.BUBBLE, passage.onset_t_s, facts.t_s, magnitude=radius_px, magnitude_sigma=sigma_px,
                detail=detail, detected_host_t_s=facts.host_t_s,
            )
        ]  # fmt: skip

    def _size(self, passage: Passage, lookback: Lookback) -> tuple[float, float, str]:
        """Radius and its standard deviation, px, NaN where they cannot be told; and what they rest on."""
        nan = float("nan")
        if not passage.touches:
            return nan, nan, "radius not known: too few frames were seen before it"
        t_s, at_once = _largest(passage.touches)
        touched = np.zeros(self._masks.count, bool)
        touched[at_once] = True
        if touched.sum() < 2:
            return nan, nan, "radius not known: only one particle was touched at a time"
        more, known = _differ(lookback, t_s)
        known[list(passage.unknown)] = False
        known |= touched
        touched |= more & known
        count = int(touched.sum())
        if count > MOST_SHARE * int(known.sum()):
            return (
                nan,
                nan,
                f"radius not known: {count} of {int(known.sum())} particles differ, too many to tell by whom",
            )
        radius_px, sigma_px, wrong, beside = self._fitted(touched, known)
        if wrong > WRONG_SHARE * count:
            return nan, nan, f"radius not known: {wrong} particles fit no disc over the {count} that were touched"
        detail = (
            f"radius from {count} particles and their rings touched at {t_s:.2f} s and {beside} beside "
            "them that were not, its centre taken to lie in the frame"
        )
        return radius_px, sigma_px, detail + (f"; {wrong} of them fit no disc" if wrong else "")

    def _fitted(self, touched: np.ndarray, known: np.ndarray) -> tuple[float, float, int, int]:
        """Median and half of the central 68 % of the radii of all discs that touch what was touched and nothing else,
        each place and each factor of the radius as likely; how many particles the best discs contradict, and how many
        of those used were not touched.

        A touched particle lies at most its own radius and its ring's width beyond the disc's edge; one that was not
        touched lies beyond it with all of its outline, its ring may reach over.
        """
        height, width = self._masks.labels.shape
        places = np.column_stack([self._masks.y_px, self._masks.x_px]).astype(float)
        centre = places[touched].mean(axis=0)
        far = np.hypot(*(places - centre).T)
        used = np.flatnonzero(known & np.isfinite(far))
        used = used[np.argsort(far[used], kind="stable")][:MOST_PARTICLES]
        y, x = np.meshgrid(np.linspace(0, height - 1, CENTRES), np.linspace(0, width - 1, CENTRES), indexing="ij")
        distance = np.hypot(y.ravel()[:, None] - places[used, 0], x.ravel()[:, None] - places[used, 1])
        distance -= self._radius_px[used]
        inside = touched[used]
        radii_px = np.geomspace(LEAST_RADIUS_PX, max(np.hypot(height, width), 2 * LEAST_RADIUS_PX), RADII)
        wrong = np.stack(
            [
                (distance[:, inside] > r + self._ring_px).sum(axis=1) + (distance[:, ~inside] < r).sum(axis=1)
                for r in radii_px
            ]
        )
        discs = (wrong == wrong.min()).sum(axis=1)
        share = (np.cumsum(discs) - 0.5 * discs) / discs.sum()
        low, middle, high = np.interp([0.16, 0.5, 0.84], share, radii_px)
        step = float(np.log(radii_px[1] / radii_px[0])) / np.sqrt(12.0)
        sigma = float(np.hypot((high - low) / 2.0, step * middle))
        return float(middle), sigma, int(wrong.min()), int((~inside).sum())


def _touched(index: int, onset_t_s: float, lookback: Lookback) -> Touch | None:
    """A touch that has just begun; None when too few frames were seen before."""
    t_s, values = lookback.trace(index)
    before = values[t_s < onset_t_s][:-EDGE_FRAMES][-LEVEL_FRAMES:]
    if len(before) < LEAST_FRAMES:
        return None
    noise = float(np.diff(before).std()) / np.sqrt(2.0)
    limit = max(TOUCHED, TOUCHED_SIGMAS * noise)
    return Touch(index, onset_t_s, onset_t_s, float(np.median(before)), limit)


def _differ(lookback: Lookback, t_s: float) -> tuple[np.ndarray, np.ndarray]:
    """(P,) bool each: differs at that instant from what it was before and after, unlike the others; known to or not.

    An object so large that it dims what the light is told by lifts all that it does not touch: the median goes off.
    """
    times, values = lookback.around(t_s, AROUND_S)
    if len(times) < LEAST_FRAMES:
        return np.zeros(values.shape[1], bool), np.zeros(values.shape[1], bool)
    now = np.argsort(np.abs(times - t_s), kind="stable")[:MOMENT_FRAMES]
    known = np.isfinite(values).all(axis=0)
    away = np.where(known, np.median(values[now], axis=0) - np.median(values, axis=0), 0.0)
    noise = np.diff(values, axis=0).std(axis=0) / np.sqrt(2.0)
    common = float(np.median(away[known])) if known.any() else 0.0
    return known & (np.abs(away - common) > np.fmax(TOUCHED, TOUCHED_SIGMAS * noise)), known


def _largest(touches: list[Touch]) -> tuple[float, list[int]]:
    """When the most particles were touched at once, and their indices."""
    under = [[other for other in touches if other.onset_t_s <= each.onset_t_s <= other.until_t_s] for each in touches]
    most = max(under, key=len)
    t_s = max(each.onset_t_s for each in most) / 2.0 + min(each.until_t_s for each in most) / 2.0
    return t_s, [each.index for each in most]
