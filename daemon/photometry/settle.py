"""What an abrupt change was: held for a moment after its onset, then told with its kind and size, or explained away.

A crack, a passing bubble and an avalanche look alike in a particle's flux for the first frames. Within a second of the
onset the plateau, the neighbours and the particle's own parts tell them apart.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np

from daemon.engine.measures import Detection, MaskSet
from daemon.photometry.classify import FrameFacts
from daemon.photometry.fracture import Anatomy, Leftover, anatomy
from daemon.photometry.lookback import Lookback, Step
from daemon.photometry.secondlook import SecondLook

TYPED_AFTER_S = 0.7
"""After the onset: late enough to see a passing object's neighbours follow, and well within a second."""
TYPED_FRAMES = 14
"""Or so many frames, where they are fewer a second: a plateau must have its frames."""
SIZED_AFTER_S = 5.0
"""At most; a small step's size needs long means."""
SIZE_SHARE = 0.03
"""A size known this well is good enough."""
SIZE_FRAMES = 500
CRACK_CONTRAST = -0.03
LARGE_CONTRAST = 0.01
"""Beyond this an object that passes is looked for."""
EDGE_FRAMES, PLATEAU_FRAMES = 2, 10
SHARP_SHARE, SHARP_SIGMAS = 0.25, 6.0
BACK_SHARE = 0.4
"""A change of which less than this is left when it is settled has passed."""
NEIGHBOURS = 2
NEAR_SPACINGS = 4.0
"""Of the typical distance to the nearest particle."""
TOGETHER_S = 1.0
SLOW_FRAME_S = 0.1
"""Between frames this far apart, something can pass over a particle unseen: whatever it does then looks sharp."""
ALIKE = 5.0
"""Changes by one passing object are alike within this factor."""
APART_SPREADS = 8.0
PART_FRAMES = 20
DOMAIN_LEFT, DOMAIN_OF_UNIFORM, DOMAIN_LEAST = 0.02, 0.04, 3e-5
CRACK_BETTER = 2.0
MOVING_SHARE = 0.15
"""Of the square of what is uneven in a change: what the parts go on changing by, when it is something that passes."""
KEPT_ONSETS = 12
KEPT_ANATOMIES = 16  # a megabyte each of particles of 12 px radius; the latest suspects are asked for again and again
KEPT_SUSPECTS, KEPT_S = 256, 30.0
"""Older ones have no suspect left to stand beside: of slow recordings a few, else of this long."""


@dataclass(frozen=True)
class Suspect:
    """A detection that waits to be settled."""

    detection: Detection
    onset_t_s: float
    facts: FrameFacts
    """Of the frame that raised it."""
    due_t_s: float


@dataclass(frozen=True)
class Settled:
    """What a suspect turned out to be."""

    suspect: Suspect
    facts: FrameFacts
    """Of the frame that settled it."""
    step: Step
    passing: bool
    """An object passed: nothing of the particle's own."""
    near_passing: bool
    """An object was seen to pass nearby."""
    apart: bool
    """Unlike what the other particles did at that instant."""
    sharp: bool
    """Over within a frame or two."""
    shapes: Leftover | None
    change: np.ndarray
    """(FEATURES,), NaN where unknown."""


class Settling:
    """Suspects of one run, settled in the order of their onsets' due times."""

    def __init__(self, masks: MaskSet) -> None:
        self.lookback = Lookback(masks.count)
        self._second = SecondLook(masks.count)
        self._suspects: list[Suspect] = []
        self._passings: deque[Suspect] = deque(maxlen=256)
        self._recent: deque[Suspect] = deque(maxlen=4096)
        self._onsets: dict[int, deque[float]] = {}
        self.change_masks(masks)

    def change_masks(self, masks: MaskSet) -> None:
        """Go on with other masks of the same run."""
        self._masks = masks
        self._anatomies: OrderedDict[int, Anatomy | None] = OrderedDict()
        self._near_px = NEAR_SPACINGS * _spacing_px(masks)
        self.lookback.grow(masks.count)
        self._second.grow(masks.count)

    def places(self, index: int) -> tuple[float, float]:
        """y and x of a particle's centre, px."""
        return float(self._masks.y_px[index]), float(self._masks.x_px[index])

    def anatomy(self, index: int) -> Anatomy | None:
        """Shapes of a particle; None without an outline."""
        if index not in self._anatomies:
            self._anatomies[index] = anatomy(self._masks, index)
        self._anatomies.move_to_end(index)
        if len(self._anatomies) > KEPT_ANATOMIES:
            self._anatomies.popitem(last=False)
        return self._anatomies[index]

    def look_again(self, facts: FrameFacts) -> list[tuple[Detection, float]]:
        """Weak steps that the detector did not see, and their onsets; by the frame that the lookback has just taken."""
        relative, scene = self.lookback.last
        if not self._second.add(facts.frame, facts.t_s, relative):
            return []
        return self._second.look(facts.frame, scene, self._onsets)

    def add(self, detection: Detection, onset_t_s: float, facts: FrameFacts) -> None:
        """Hold a particle's own detection until enough is known."""
        frame_s = (facts.t_s - onset_t_s) / max(detection.detected_frame - detection.onset_frame, 1)
        sigma = detection.magnitude_sigma * np.sqrt(max(detection.detected_frame - detection.onset_frame + 1, 1))
        wanted = min(2.0 * (sigma / (SIZE_SHARE * max(abs(detection.magnitude), 1e-12))) ** 2, SIZE_FRAMES)
        typed_s = max(TYPED_AFTER_S, TYPED_FRAMES * frame_s)
        wait_s = max(typed_s, min(wanted * frame_s, SIZED_AFTER_S))
        if detection.magnitude <= CRACK_CONTRAST / 2:
            wait_s = typed_s
        due_t_s = onset_t_s + wait_s - 0.5 * frame_s
        suspect = Suspect(detection, onset_t_s, facts, due_t_s if frame_s < TYPED_AFTER_S / 2 else facts.t_s)
        self._suspects.append(suspect)
        self._remember(suspect, facts.t_s)
        self._onsets.setdefault(detection.index, deque(maxlen=KEPT_ONSETS)).append(onset_t_s)

    def _remember(self, suspect: Suspect, t_s: float) -> None:
        self._recent.append(suspect)
        while len(self._recent) > KEPT_SUSPECTS and self._recent[0].onset_t_s < t_s - KEPT_S:
            self._recent.popleft()

    def due(self, facts: FrameFacts) -> list[Settled]:
        """What is settled by this frame, which the lookback has taken already."""
        if not self._suspects:
            return []
        ripe = [suspect for suspect in self._suspects if suspect.due_t_s <= facts.t_s]
        if ripe:
            self._suspects = [suspect for suspect in self._suspects if suspect.due_t_s > facts.t_s]
        return [self._settle(suspect, facts) for suspect in ripe]

    def flush(self, facts: FrameFacts) -> list[Settled]:
        """All that still wait: the run ends."""
        ripe, self._suspects = self._suspects, []
        return [self._settle(suspect, facts) for suspect in ripe]

    def _settle(self, suspect: Suspect, facts: FrameFacts) -> Settled:
        found = suspect.detection
        others = [t for t in self._onsets[found.index] if t != suspect.onset_t_s]
        step = self.lookback.step(found.index, suspect.onset_t_s, others)
        # the fit is the better of two measurements of the same step, or it is of something else
        likely = 6.0 * found.magnitude_sigma + 0.25 * abs(found.magnitude)
        if step is None or abs(step.size - found.magnitude) > likely:
            step = Step(suspect.onset_t_s, found.magnitude, found.magnitude_sigma)
        size = step.size
        large = abs(size) >= LARGE_CONTRAST
        sharp, left = self._plateau(found.index, step.t_s) if large else (True, 1.0)
        frame_s = (facts.t_s - suspect.onset_t_s) / max(facts.frame - found.onset_frame, 1)
        slow = not sharp or frame_s > SLOW_FRAME_S
        passing = large and (left < BACK_SHARE or (slow and self._follow_each_other(suspect, sharp)))
        change = np.full(1, np.nan)
        shapes = None
        if large and (body := self.anatomy(found.index)) is not None:
            change = self.lookback.change(found.index, step.t_s, PART_FRAMES, body.radius_px)
            told = size <= CRACK_CONTRAST / 2 and np.isfinite(change).all() and change.any()
            shapes = body.explain(change) if told else None
            if shapes is not None and looks_cracked(shapes, change):
                passing = passing or self._moves_on(body, found.index, step.t_s, change)
        if passing:
            self._passings.append(suspect)
        near, apart = self._near_passing(suspect), self._apart(found.index, step)
        return Settled(suspect, facts, step, passing, near, apart, sharp, shapes, change)

    def _moves_on(self, body: Anatomy, index: int, onset_t_s: float, change: np.ndarray) -> bool:
        """Whether the parts change before and after as they do under an edge that passes: a crack comes and stays."""
        halves, noise = self.lookback.going_on(index, onset_t_s, PART_FRAMES, body.radius_px)
        if not np.isfinite(noise):
            return False
        return max(map(body.uneven, halves)) - noise > MOVING_SHARE * body.uneven(change)

    def _apart(self, index: int, step: Step) -> bool:
        """Whether the particle changed by far more than the others differ in what they did at that instant."""
        change, spread = self.lookback.spread(step.t_s, PLATEAU_FRAMES)
        return bool(abs(step.size) >= LARGE_CONTRAST and abs(change[index]) > APART_SPREADS * spread)

    def _plateau(self, index: int, onset_t_s: float) -> tuple[bool, float]:
        """(whether the change was over within a frame or two, how much of it is left now)."""
        t_s, values = self.lookback.trace(index)
        split = int(np.searchsorted(t_s, onset_t_s - 1e-9))
        before, after = values[:split], values[split:]
        if len(before) < PLATEAU_FRAMES or len(after) < PLATEAU_FRAMES:
            return True, 1.0
        old, new = np.median(before[-PLATEAU_FRAMES:]), np.median(after[EDGE_FRAMES : EDGE_FRAMES + PLATEAU_FRAMES])
        noise = float(np.std(np.diff(values[max(split - 30, 0) : split]))) / np.sqrt(2) * SHARP_SIGMAS
        allowed = max(SHARP_SHARE * abs(new - old), noise)
        # frames beside the onset lie on either plateau already, one of them may be half-way
        edge = [values[split - EDGE_FRAMES] - old, after[EDGE_FRAMES - 1] - new, after[EDGE_FRAMES] - new]
        sharp = bool(np.max(np.abs(edge)) <= allowed)
        last = float(np.median(after[-max(PLATEAU_FRAMES // 2, 3) :]))
        step = new - old
        return sharp, float((last - old) / step) if abs(step) > noise / SHARP_SIGMAS else 0.0

    def _follow_each_other(self, suspect: Suspect, sharp: bool) -> bool:
        """Whether neighbours changed alike shortly before or after, as something passes over them one by one."""
        own = suspect.detection
        near = {
            other.detection.index
            for other in self._recent
            if self._beside(other, suspect) and 1 / ALIKE <= abs(other.detection.magnitude / own.magnitude) <= ALIKE
        }
        return len(near) >= (NEIGHBOURS if not sharp else NEIGHBOURS + 1)

    def _near_passing(self, suspect: Suspect) -> bool:
        return any(self._beside(other, suspect) for other in self._passings)

    def _beside(self, other: Suspect, suspect: Suspect) -> bool:
        """Whether another particle changed at about the same time not far away."""
        i, j = other.detection.index, suspect.detection.index
        if i == j or abs(other.onset_t_s - suspect.onset_t_s) > TOGETHER_S:
            return False
        y_px, x_px = self._masks.y_px, self._masks.x_px
        return bool(np.hypot(y_px[i] - y_px[j], x_px[i] - x_px[j]) <= self._near_px)


def is_crack(settled: Settled, expected_sign: int) -> bool:
    """A sharp darkening by 3 % or more whose parts changed as a crack's do; of a particle without parts, one that no
    transformation under way (`expected_sign`) explains.
    """
    if settled.step.size > CRACK_CONTRAST or not settled.sharp:
        return False
    left = settled.shapes
    if left is None:
        return expected_sign >= 0
    return looks_cracked(left, settled.change)


def looks_cracked(left: Leftover, change: np.ndarray) -> bool:
    """Whether a line and a moved piece explain a `change` (FEATURES,) of parts, and nothing else does."""
    square = float(change @ change)
    unlike_domain = left.domain > min(DOMAIN_LEFT, DOMAIN_OF_UNIFORM * left.uniform)
    return unlike_domain and left.domain * square > DOMAIN_LEAST and left.domain > CRACK_BETTER * left.crack


def _spacing_px(masks: MaskSet) -> float:
    """Typical distance from a particle to its nearest, px."""
    y, x = np.asarray(masks.y_px, float), np.asarray(masks.x_px, float)
    there = np.flatnonzero(np.isfinite(y) & np.isfinite(x))[:2000]
    if len(there) < 2:
        return 0.0
    from scipy.spatial import cKDTree

    places = np.column_stack([y[there], x[there]])
    return float(np.median(cKDTree(places).query(places, k=2)[0][:, 1]))
