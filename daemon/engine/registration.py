"""Where the scene stands relative to the reference, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from daemon.engine.collector import Collector
from daemon.engine.operator import BLUR_ANCHOR, MARGIN_PX, Operator
from daemon.engine.photometer import Photometer, leak_of
from daemon.engine.shift import Shift
from kernels.drift import solve_scene
from kernels.functionals import correlation_map
from kernels.photometry import AXIAL_BINS

RECENTRE_PX = 0.6  # the cubic series is exact to 1e-3 px inside
SIMILARITY_DROP = 0.08  # a sudden loss of likeness: the scene jumped beyond the series' reach
SIMILARITY_LEAST = 0.3  # below this the frame does not show the reference's scene at all
MOST_BLUR = 1.5  # of the PSF's variance: twice as wide is another scene
LEAST_PIXELS = 100
SHIFT_FACTORS = np.array([1.0, 1.0, -1 / 2, -1.0, -1 / 2, 1 / 6, 1 / 2, 1 / 2, 1 / 6])


@dataclass(frozen=True)
class Scene:
    """What a scene of the particles in the frame is expected to do: sums over them, see `kernels.photometry`."""

    series: np.ndarray
    """(4, 9) float64: the functionals' Taylor series in the shift; change of the first two is minus that."""
    blur: tuple[float, float]
    """s and c of the blur functional ``s b / (1 + c b)`` in the change b of the PSF's variance."""
    likeness: float
    """The template functional of the reference."""
    sigma_px: float
    """Of the shift, from the frame's noise; NaN when nothing tells it."""

    @classmethod
    def of(cls, operator: Operator, inside: np.ndarray) -> Scene:
        """For the particles `inside` (P,) bool."""
        total = operator.taylor[inside, :, :AXIAL_BINS].sum(axis=2, dtype=np.float64)
        own = operator.shift_taylor[inside].sum(axis=0, dtype=np.float64).T
        terms = own - np.einsum("pk,pt->kt", leak_of(operator)[inside], total)
        series = terms[:, :9] * SHIFT_FACTORS
        noise = operator.shift_noise[inside].sum(axis=0)
        sigma_px = np.nan
        if np.linalg.matrix_rank(noise) == 2:
            inverse = np.linalg.pinv(series[:2, :2])
            sigma_px = float(np.sqrt(np.mean(np.diag(inverse @ noise @ inverse.T))))
        anchor = BLUR_ANCHOR * operator.psf_sigma_px**2
        slope = 0.5 * float(terms[2, 9])
        response = slope * anchor + float(terms[2, 10]) * anchor**2
        bend = (slope * anchor / response - 1.0) / anchor if response > 0.0 else 0.0
        return cls(series, (slope, max(bend, 0.0)), float(operator.reference_shift[inside, 3].sum()), sigma_px)


class Registration:
    """Follows the drift; remembers only the last shift and the last likeness."""

    def __init__(self, operator: Operator, collector: Collector, photometer: Photometer) -> None:
        self._operator, self._collector, self._photometer = operator, collector, photometer
        self._width = int(operator.shape[1])
        self._solution = np.empty(4)
        self._last = Shift(0, 0, 0.0, 0.0, 0.0, known=True, jumped=False)
        self._similarity = np.nan
        self._inside = np.ones(operator.particles, bool)
        self._told: np.ndarray | None = None
        self._scene = Scene.of(operator, self._inside)
        self.sigma_px = self._scene.sigma_px
        self.usable = bool(np.isfinite(self.sigma_px)) and operator.search_index.size >= LEAST_PIXELS
        """False for a scene without enough structure to register."""

    def go_on_from(self, before: Registration) -> None:
        """Begin at the drift where another operator of the same reference left off."""
        self._last = replace(before._last, known=True, jumped=False)

    @property
    def drift_px(self) -> tuple[float, float]:
        """Latest drift (y, x)."""
        return self._last.y_px, self._last.x_px

    def locate(self, frame: np.ndarray) -> Shift:
        """The shift of a frame that the collector opened; not known when it does not show the reference's scene."""
        if not self.usable:
            return self._last
        shift, similarity = self._refine(frame, self._last.base_y, self._last.base_x)
        if self._photometer.dark:
            return self._lost()
        suspicious = not similarity > self._similarity - SIMILARITY_DROP if isfinite(self._similarity) else False
        if shift is None or suspicious:
            coarse_y, coarse_x = self._coarse(frame)
            again, likeness = self._refine(frame, coarse_y, coarse_x)
            if again is not None and (shift is None or likeness > similarity + SIMILARITY_DROP / 2):
                shift, similarity = again, likeness
        if shift is None or not similarity > SIMILARITY_LEAST:
            return self._lost()
        moved = max(abs(shift.y_px - self._last.y_px), abs(shift.x_px - self._last.x_px))
        self._similarity = similarity
        self._last = replace(shift, jumped=True) if moved > 1.0 else shift
        return self._last

    def _lost(self) -> Shift:
        """The last shift, as one that is not known."""
        self._last = replace(self._last, known=False, jumped=False)
        return self._last

    def _refine(self, frame: np.ndarray, y: int, x: int) -> tuple[Shift | None, float]:
        """Solve at the integer shift (y, x), re-centring while the answer lies outside the series' reach."""
        similarity = -1.0
        for _ in range(5):
            if max(abs(y), abs(x)) > MARGIN_PX:
                return None, similarity
            found = self._photometer.look(frame, y, x)
            scene = self._scene_of(self._photometer.inside)
            out = self._solution
            solved = solve_scene(found, scene.series, scene.likeness, SIMILARITY_LEAST, out)
            rest_y, rest_x, similarity, gained = out.tolist()
            if not solved:
                return None, similarity
            if max(abs(rest_y), abs(rest_x)) <= RECENTRE_PX:
                blur = self._blur(scene, gained)
                return Shift(y, x, rest_y, rest_x, blur, known=True, jumped=False), similarity
            y, x = y + round(rest_y), x + round(rest_x)
        return None, similarity

    def _scene_of(self, inside: np.ndarray) -> Scene:
        """The expectation for the particles that are in the frame: summed anew only when others are."""
        if inside is not self._told:
            self._told = inside
            if not np.array_equal(inside, self._inside):
                self._inside = inside.copy()
                self._scene = Scene.of(self._operator, inside)
        return self._scene

    def _blur(self, scene: Scene, value: float) -> float:
        """Change of the PSF's variance, px**2, from what the blur functional gained."""
        slope, bend = scene.blur
        most = MOST_BLUR * self._operator.psf_sigma_px**2
        room = slope - bend * value
        if not slope > 0.0 or not room > 0.0:
            return most if slope > 0.0 else 0.0
        return float(min(max(value / room, -most), most))

    def _coarse(self, frame: np.ndarray) -> tuple[int, int]:
        """Best integer shift within the margin by normalised correlation with the template."""
        operator = self._operator
        likeness = np.empty((2 * MARGIN_PX + 1, 2 * MARGIN_PX + 1))
        image = self._collector.whole(frame).reshape(-1)
        correlation_map(image, self._width, operator.search_index, operator.search_template, MARGIN_PX, likeness)
        best = np.unravel_index(int(np.argmax(likeness)), likeness.shape)
        return int(best[0]) - MARGIN_PX, int(best[1]) - MARGIN_PX
