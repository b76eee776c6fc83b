"""Objects that pass over particles: one event for each when it has passed, with how large it was as far as is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from daemon.engine.measures import MaskSet
from daemon.events import Event, EventKind
from daemon.photometry.blocks import grown
from daemon.photometry.classify import TOGETHER_FRAMES, FrameFacts
from daemon.photometry.lookback import Lookback
from daemon.photometry.patches import EDGE_PX, GROW_SIGMA, RING_GAP_PX, RING_WIDTH_PX
from daemon.photometry.settle import Settled

QUIET_S = 3.0
"""An object touches one particle after another: what it does within this long of the last is one event."""
MOST_S = 30.0
"""An event is held no longer than this."""
LEAD_S = 0.5
"""A touch begins this long before its onset, at most."""
LEVEL_FRAMES, LEAST_FRAMES = 50, 5
TOUCHED, TOUCHED_SIGMAS = 0.015, 6.0
"""Contrast that a touched particle differs by from before."""
CENTRES, RADII = 40, 36
LEAST_RADIUS_PX = 3.0
MOST_PARTICLES = 128
"""The nearest to what was touched tell how large it was."""


@dataclass
class Passage:
    """One object, as long as it passes."""

    onset_t_s: float
    last: FrameFacts
    level: np.ndarray | None
    """(P,) contrast before it came; None when too few frames were seen."""
    limit: np.ndarray
    """(P,) difference from it that is a touch."""
    seen_t_s: float
    """Frames until then have been looked at."""
    told: bool = False
    most: tuple[int, float] = (0, 0.0)
    """Particles touched at once, and the sum of what they changed by."""
    most_t_s: float = field(default=float("nan"))
    touched: np.ndarray | None = None
    """(P,) bool in the frame with the most."""
    known: np.ndarray | None = None
    """(P,) bool: measured in that frame."""


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
        passage = self._passage
        if passage is not None and passage.level is not None:
            passage.level = grown(passage.level, masks.count, np.nan)
            passage.limit = grown(passage.limit, masks.count, np.nan)
            if passage.touched is not None and passage.known is not None:
                passage.touched = grown(passage.touched, masks.count, False)
                passage.known = grown(passage.known, masks.count, False)

    def touch(self, settled: Settled, lookback: Lookback) -> None:
        """One particle that it passed over, `settled` by the frame that the lookback has just taken."""
        if self._passage is None:
            self._passage = _opened(settled, lookback)
        self._passage.last = settled.facts
        self._look(self._passage, lookback)

    def due(self, facts: FrameFacts) -> list[Event]:
        """The event of an object that has passed by this frame, or has been passing for too long to wait."""
        passage = self._passage
        if passage is None:
            return []
        over = facts.t_s - passage.last.t_s > QUIET_S and facts.frame - passage.last.frame > TOGETHER_FRAMES
        told = [] if passage.told or not (over or facts.t_s - passage.onset_t_s > MOST_S) else self._tell(facts)
        if over:
            self._passage = None
        return told

    def finish(self, facts: FrameFacts) -> list[Event]:
        """The event not told yet: the run ends with the frame of `facts`."""
        return [] if self._passage is None or self._passage.told else self._tell(facts)

    def _look(self, passage: Passage, lookback: Lookback) -> None:
        """Find the frame, of those not looked at yet, in which it touched the most."""
        if passage.level is None:
            return
        t_s, contrast = lookback.since(passage.seen_t_s)
        if not len(t_s):
            return
        passage.seen_t_s = float(t_s[-1])
        away = np.abs(contrast - passage.level)
        touched = away > passage.limit
        counts, sums = touched.sum(axis=1), np.where(touched, away, 0.0).sum(axis=1)
        k = int(np.lexsort((sums, counts))[-1])
        most = int(counts[k]), float(sums[k])
        if most > passage.most:
            passage.most, passage.most_t_s, passage.touched = most, float(t_s[k]), touched[k]
            passage.known = np.isfinite(away[k])

    def _tell(self, facts: FrameFacts) -> list[Event]:
        assert self._passage is not None
        self._passage.told = True
        radius_px, sigma_px, detail = self._size(self._passage)
        return [
            Event(
                EventKind.BUBBLE, self._passage.onset_t_s, facts.t_s, magnitude=radius_px, magnitude_sigma=sigma_px,
                detail=detail, detected_host_t_s=facts.host_t_s,
            )
        ]  # fmt: skip

    def _size(self, passage: Passage) -> tuple[float, float, str]:
        """Radius and its standard deviation, px, NaN where they cannot be told; and what they rest on."""
        nan = float("nan")
        if passage.level is None:
            return nan, nan, "radius not known: too few frames were seen before it"
        touched, known = passage.touched, passage.known
        if touched is None or known is None or touched.sum() < 2:
            return nan, nan, "radius not known: only one particle was touched at a time"
        count = int(touched.sum())
        if not (known & ~touched).any():
            return nan, nan, f"radius not known: all {count} particles were touched at {passage.most_t_s:.2f} s"
        radius_px, sigma_px, wrong, beside = self._fitted(touched, known)
        detail = (
            f"radius from {count} particles and their rings touched at {passage.most_t_s:.2f} s and {beside} beside "
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


def _opened(settled: Settled, lookback: Lookback) -> Passage:
    """An object's first touch, and what the particles were like before it."""
    onset_t_s = settled.suspect.onset_t_s
    t_s, contrast = lookback.since(-np.inf)
    before = contrast[t_s < onset_t_s - LEAD_S][-LEVEL_FRAMES:]
    nothing = np.full(contrast.shape[1], np.nan)
    if len(before) < LEAST_FRAMES:
        return Passage(onset_t_s, settled.facts, None, nothing, onset_t_s)
    known = np.isfinite(before).all(axis=0)
    level = np.where(known, np.median(np.where(known, before, 0.0), axis=0), np.nan)
    noise = np.diff(before, axis=0).std(axis=0) / np.sqrt(2.0)
    limit = np.where(known, np.fmax(TOUCHED, TOUCHED_SIGMAS * noise), np.nan)
    return Passage(onset_t_s, settled.facts, level, limit, onset_t_s - LEAD_S)
