"""The last frames of every particle, to look back on when an event is settled; memory bounded by the particle count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daemon.photometry.blocks import finite_mean, grown
from daemon.photometry.contrast import Contrasts
from daemon.photometry.fracture import FEATURES
from kernels.photometry import AXIAL_BINS

FRAMES = 1024
"""Of contrast: ten seconds at 100 frames/s. A small step needs long means for its size."""
PART_FRAMES = 160
"""Of axial bins, layers and moments."""
CENTROID_SAMPLES = 20_000
"""Of a mean over all particles: more frames than these allow tell no more of what they share."""
COMMON_LEAST = 20
"""Particles: of fewer, what they share is not known from what one of them does."""
LEAP_SIGMAS = 8.0
WINDOWS_S = (10.0, 5.0, 2.5, 1.0, 0.5)
BEND_SIGMAS = 1.5
"""A fit whose next power of time stands out by more spans too much."""
DATING_FRAMES = 16
"""How far from where the detector saw it an onset is looked for."""
SETTLED_FRAMES = 2
"""After an onset that is dated a frame too early, or is half-way in one."""
EARLY_S, EARLY_FRAMES = 6.0, 20
LEAST_SIDE = 3
"""Frames on either side of a step."""


@dataclass(frozen=True)
class Step:
    """A step of contrast, its onset fitted."""

    t_s: float
    size: float
    sigma: float


class Lookback:
    """Rings of frames: contrasts with what all share taken off, and the sums that shapes are told by."""

    def __init__(self, particles: int) -> None:
        self._contrast = np.full((FRAMES, particles), np.nan, np.float32)
        self._parts = np.full((PART_FRAMES, particles, FEATURES), np.nan, np.float32)
        self._t_s = np.full(FRAMES, np.nan)
        self._scene = np.ones(FRAMES)
        self._count = 0
        self._last = np.full(particles, np.nan)
        self._common = 1.0

    def grow(self, particles: int) -> None:
        """Go on with more particles, unknown until now."""
        self._contrast = grown(self._contrast, particles, np.nan, axis=1)
        self._parts = grown(self._parts, particles, np.nan, axis=1)
        self._last = grown(self._last, particles, np.nan)

    def add(self, part: Contrasts, k: int, t_s: float) -> None:
        """Take frame `k` of a batch."""
        row, batch = self._count % FRAMES, part.batch
        relative = 1.0 + part.values[k, :, 0]
        self._follow_common(relative, part.sigma[k])
        self._contrast[row] = relative / self._common
        self._t_s[row], self._scene[row] = t_s, self._common
        parts = self._parts[self._count % PART_FRAMES]
        parts[:] = np.nan
        if batch.axial_flux_e is not None:
            flux = batch.flux_e[k]
            parts[:, :AXIAL_BINS] = batch.axial_flux_e[k]
            parts[:, AXIAL_BINS:-2] = batch.layer_flux_e[k]
            parts[:, -2], parts[:, -1] = flux * batch.centroid_y_px[k], flux * batch.centroid_x_px[k]
        self._count += 1

    def _follow_common(self, relative: np.ndarray, sigma: np.ndarray) -> None:
        """The brightness that all share: the mean of what each changed since the frame before, without single leaps.

        Sums of such means are means of the brightness itself: their noise does not add up.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            change = relative / self._last - 1.0
        known = np.isfinite(change) & np.isfinite(sigma)
        self._last = np.where(np.isfinite(relative) & (relative > 0), relative, self._last)
        if known.sum() < COMMON_LEAST:
            return
        change, most = change[known], LEAP_SIGMAS * sigma[known]
        middle = float(np.median(change))
        self._common *= 1.0 + middle + float(np.mean(np.clip(change - middle, -most, most)))

    @property
    def last(self) -> tuple[np.ndarray, float]:
        """(P,) brightness in the last frame without what all share, NaN where unknown; and what they share."""
        row = (self._count - 1) % FRAMES
        return self._contrast[row], float(self._scene[row])

    def _rows(self, frames: int) -> np.ndarray:
        """(n,) numbers of the last frames kept, oldest first."""
        return np.arange(max(self._count - frames, 0), self._count)

    def around(self, t_s: float, reach_s: float) -> tuple[np.ndarray, np.ndarray]:
        """(n,) times of the frames kept within `reach_s` and (n, P) relative brightness without what all share."""
        rows = self._rows(FRAMES) % FRAMES
        rows = rows[np.abs(self._t_s[rows] - t_s) <= reach_s]
        return self._t_s[rows], self._contrast[rows].astype(float)

    def trace(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(n,) times and (n,) relative brightness without what all share, where measured; oldest first."""
        rows = self._rows(FRAMES) % FRAMES
        t_s, values = self._t_s[rows], self._contrast[rows, index].astype(float)
        known = np.isfinite(values) & np.isfinite(t_s)
        return t_s[known], values[known]

    def change(self, index: int, onset_t_s: float, frames: int, radius_px: float) -> np.ndarray:
        """(FEATURES,) change of a particle's parts at `onset_t_s` relative to its flux before, of the means over at
        most `frames` on either side; NaN where one side has none.
        """
        rows = self._rows(PART_FRAMES)
        t_s, parts = self._t_s[rows % FRAMES], self._parts[rows % PART_FRAMES, index].astype(float)
        known = np.isfinite(parts).all(axis=1)
        before, after = parts[known & (t_s < onset_t_s)][-frames:], parts[known & (t_s >= onset_t_s)][:frames]
        if len(before) < LEAST_SIDE or len(after) < LEAST_SIDE:
            return np.full(FEATURES, np.nan)
        level = before.mean(axis=0)
        found = (after.mean(axis=0) - level) / level[:AXIAL_BINS].sum()
        found[-2:] /= radius_px
        return found

    def going_on(self, index: int, onset_t_s: float, frames: int, radius_px: float) -> tuple[np.ndarray, float]:
        """(2, FEATURES) changes of a particle's parts in the last `frames` until `onset_t_s` and since soon after it,
        one half to the other, as `change` has them; and the square that noise alone gives them. NaN when too few
        frames are there.
        """
        rows = self._rows(PART_FRAMES)
        t_s, parts = self._t_s[rows % FRAMES], self._parts[rows % PART_FRAMES, index].astype(float)
        known = np.isfinite(parts).all(axis=1)
        before, after = parts[known & (t_s < onset_t_s)], parts[known & (t_s >= onset_t_s)]
        sides = [before[-frames - SETTLED_FRAMES : len(before) - SETTLED_FRAMES], after[SETTLED_FRAMES:]]
        many = min(len(side) // 2 for side in sides)
        if many < LEAST_SIDE:
            return np.full((2, FEATURES), np.nan), np.nan
        scale = before[-frames:].mean(axis=0)[:AXIAL_BINS].sum() * np.r_[np.ones(FEATURES - 2), radius_px, radius_px]
        halves = [(side[-many:].mean(axis=0) - side[:many].mean(axis=0)) / scale for side in sides]
        # successive frames differ by noise alone, and by more where something leapt: the calmer side counts
        noise = min(float((np.diff(side, axis=0) / scale).var(axis=0).sum()) for side in sides) / many
        return np.array(halves), noise

    def before(self, index: int, onset_t_s: float) -> np.ndarray:
        """(FEATURES,) mean of a particle's parts in the last frames before `onset_t_s`; NaN without any."""
        rows = self._rows(PART_FRAMES)
        parts = self._parts[rows % PART_FRAMES, index].astype(float)
        known = (self._t_s[rows % FRAMES] < onset_t_s) & np.isfinite(parts).all(axis=1)
        return parts[known][-20:].mean(axis=0) if known.any() else np.full(FEATURES, np.nan)

    def early(self, index: int, onset_t_s: float) -> np.ndarray:
        """(FEATURES,) mean of a particle's parts some seconds before `onset_t_s`, as far as frames are kept: not of
        the last ones, over which an object's rim may have stood already; NaN without any.
        """
        rows = self._rows(PART_FRAMES)
        parts, t_s = self._parts[rows % PART_FRAMES, index].astype(float), self._t_s[rows % FRAMES]
        known = parts[(t_s >= onset_t_s - EARLY_S) & (t_s < onset_t_s) & np.isfinite(parts).all(axis=1)]
        count = min((len(known) + 1) // 2, EARLY_FRAMES)
        return known[:count].mean(axis=0) if count else np.full(FEATURES, np.nan)

    def latest(self, index: int, since_t_s: float) -> np.ndarray:
        """(FEATURES,) mean of a particle's parts since then, in electrons and electrons times px; NaN without any."""
        rows = self._rows(PART_FRAMES)
        rows = rows[self._t_s[rows % FRAMES] >= since_t_s]
        parts = self._parts[rows % PART_FRAMES, index].astype(float)
        recent = parts[np.isfinite(parts).all(axis=1)]
        return recent.mean(axis=0) if len(recent) else np.full(FEATURES, np.nan)

    def centroids(self, since_t_s: float) -> np.ndarray:
        """(P, 2) mean y, x of each particle's light from its centre since then, px; NaN without any."""
        rows = self._rows(PART_FRAMES)
        rows = rows[self._t_s[rows % FRAMES] >= since_t_s]
        thinned = rows[:: 1 + len(rows) * self._parts.shape[1] // CENTROID_SAMPLES]
        parts = finite_mean(self._parts[thinned % PART_FRAMES])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(parts[:, -2:] / parts[:, :AXIAL_BINS].sum(axis=1, keepdims=True))

    def newest(self, index: int, frames: int) -> np.ndarray:
        """(FEATURES,) mean of a particle's parts over the last `frames`, as `latest`; NaN where one is not known."""
        return self._parts[self._rows(frames) % PART_FRAMES, index].mean(axis=0, dtype=float)

    def step(self, index: int, onset_t_s: float, others_t_s: list[float]) -> Step | None:
        """A particle's step near `onset_t_s`: a straight line, or a parabola, with a step there, and with steps at
        `others_t_s`.

        The simplest over the longest window counts whose next power does not stand out. None when too few frames
        are kept.
        """
        t_s, values = self.trace(index)
        found, scene = None, self._scene_at(onset_t_s)
        for window_s in WINDOWS_S:
            inside = np.abs(t_s - onset_t_s) <= window_s
            for power in (1, 2):
                fitted = _step_of(t_s[inside], values[inside], onset_t_s, others_t_s, power)
                if fitted is None:
                    continue
                step, bend = fitted
                # of F0, as contrasts are: all of them may be far brighter by now than they were
                found = Step(step.t_s, step.size * scene, step.sigma * scene)
                if abs(bend) <= BEND_SIGMAS:
                    return found
        return found

    def _scene_at(self, t_s: float) -> float:
        """The brightness that all shared then, relative to when the run began."""
        rows = self._rows(FRAMES) % FRAMES
        place = int(np.searchsorted(self._t_s[rows], t_s - 1e-9))
        return float(self._scene[rows[min(place, len(rows) - 1)]]) if len(rows) else 1.0

    def spread(self, onset_t_s: float, frames: int) -> tuple[np.ndarray, float]:
        """(P,) change of each particle's contrast over that instant, of means over `frames` on either side, and how
        much such changes differ among the particles (a robust standard deviation); NaN where unknown.
        """
        rows = self._rows(FRAMES)
        t_s = self._t_s[rows % FRAMES]
        split = int(np.searchsorted(t_s, onset_t_s - 1e-9))
        before = self._contrast[rows[max(split - frames, 0) : split] % FRAMES].astype(float)
        after = self._contrast[rows[split : split + frames] % FRAMES].astype(float)
        change = finite_mean(after) - finite_mean(before)
        known = change[np.isfinite(change)]
        if len(known) < 3:
            return change, np.nan
        return change, 1.4826 * float(np.median(np.abs(known - np.median(known))))


def _step_of(
    t_s: np.ndarray, values: np.ndarray, onset_t_s: float, others_t_s: list[float], power: int
) -> tuple[Step, float] | None:
    """The step that a polynomial of time with it explains best, and the next power of time in its sigmas."""
    first = int(np.searchsorted(t_s, onset_t_s - 1e-9))
    places = np.arange(max(first - DATING_FRAMES, LEAST_SIDE), min(first + DATING_FRAMES, len(t_s) - LEAST_SIDE) + 1)
    if not len(places) or not LEAST_SIDE <= first <= len(t_s) - LEAST_SIDE or len(t_s) <= power + 6 + len(others_t_s):
        return None
    time = (t_s - onset_t_s) / max(np.abs(t_s - onset_t_s).max(), 1e-9)
    columns = [time**k for k in range(power + 2)]
    for other in others_t_s:
        later = int(np.searchsorted(t_s, other - 1e-9))
        if LEAST_SIDE <= later <= len(t_s) - LEAST_SIDE and abs(later - first) > DATING_FRAMES:
            columns.append(np.arange(len(t_s)) >= later)
    order = [k for k in range(len(columns)) if k != power + 1]
    base, _ = np.linalg.qr(np.stack(columns, axis=1)[:, order].astype(float))
    steps = (np.arange(len(t_s))[:, None] >= places).astype(float)
    steps -= base @ (base.T @ steps)
    left = values - base @ (base.T @ values)
    norm = np.maximum((steps**2).sum(axis=0), 1e-12)
    size = (left @ steps) / norm
    best = int((size**2 * norm).argmax())
    left = left - size[best] * steps[:, best]
    noise = float(np.sqrt(left @ left / (len(values) - base.shape[1] - 1)))
    bend = columns[power + 1] - base @ (base.T @ columns[power + 1])
    bend -= steps[:, best] * (bend @ steps[:, best]) / norm[best]
    told = float(bend @ left / max(noise * np.sqrt(bend @ bend), 1e-30))
    return Step(float(t_s[places[best]]), float(size[best]), noise / float(np.sqrt(norm[best]))), told
