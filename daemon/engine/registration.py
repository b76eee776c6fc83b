"""Where the scene stands relative to the reference, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daemon.engine.operator import MARGIN_PX, Operator
from kernels.drift import solve_shift
from kernels.functionals import correlation_map, four_sums

RECENTRE_PX = 0.6  # the cubic series is exact to 1e-3 px inside
SIMILARITY_DROP = 0.08  # a sudden loss of likeness: the scene jumped beyond the series' reach
SIMILARITY_LEAST = 0.3  # below this the frame does not show the reference's scene at all
COARSE_PIXELS = 5_000  # 50 ms of search; enough for a shift that the series then refines


@dataclass(frozen=True)
class Shift:
    """Drift of one frame: an integer part that moves the index sets and a sub-pixel rest that bends the masks."""

    base_y: int
    base_x: int
    rest_y: float
    rest_x: float
    blur_px2: float
    """Change of the PSF's variance since the reference, px**2."""
    known: bool
    jumped: bool

    @property
    def y_px(self) -> float:
        """Drift down the image, px."""
        return self.base_y + self.rest_y

    @property
    def x_px(self) -> float:
        """Drift along the line, px."""
        return self.base_x + self.rest_x


class Registration:
    """Follows the drift; remembers only the last shift and the last likeness."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._width = int(operator.shape[1])
        self._sums = np.empty(4)
        self._solution = np.empty(2)
        self._last = Shift(0, 0, 0.0, 0.0, 0.0, known=True, jumped=False)
        self._similarity = np.nan
        self.sigma_px = float(np.sqrt(np.mean(np.diag(operator.shift_covariance)))) if self.usable else np.nan

    def go_on_from(self, before: Registration) -> None:
        """Begin at the drift where another operator of the same reference left off."""
        self._last = before._last

    @property
    def usable(self) -> bool:
        """False for a scene without enough structure to register."""
        return self._operator.shift_index.size >= 100

    @property
    def offset(self) -> int:
        """Linear index offset of the last integer shift."""
        return self._last.base_y * self._width + self._last.base_x

    @property
    def drift_px(self) -> tuple[float, float]:
        """Latest drift (y, x)."""
        return self._last.y_px, self._last.x_px

    def locate(self, frame_e: np.ndarray, illumination: float) -> Shift:
        """The shift of a flat float32 frame in electrons under a relative `illumination` near 1."""
        if not self.usable:
            return self._last
        shift, similarity = self._refine(frame_e, illumination, self._last.base_y, self._last.base_x)
        suspicious = not similarity > self._similarity - SIMILARITY_DROP if np.isfinite(self._similarity) else False
        if shift is None or suspicious:
            coarse_y, coarse_x = self._coarse(frame_e)
            again, likeness = self._refine(frame_e, illumination, coarse_y, coarse_x)
            if again is not None and (shift is None or likeness > similarity + SIMILARITY_DROP / 2):
                shift, similarity = again, likeness
        if shift is None or not similarity > SIMILARITY_LEAST:
            last = self._last
            self._last = Shift(last.base_y, last.base_x, last.rest_y, last.rest_x, last.blur_px2, False, False)
            return self._last
        moved = max(abs(shift.y_px - self._last.y_px), abs(shift.x_px - self._last.x_px))
        self._similarity = similarity
        self._last = Shift(
            shift.base_y, shift.base_x, shift.rest_y, shift.rest_x, shift.blur_px2, known=True, jumped=moved > 1.0
        )
        return self._last

    def _refine(self, frame_e: np.ndarray, illumination: float, y: int, x: int) -> tuple[Shift | None, float]:
        """Solve at the integer shift (y, x), re-centring while the answer lies outside the series' reach."""
        operator = self._operator
        similarity = -1.0
        for _ in range(5):
            if max(abs(y), abs(x)) > MARGIN_PX:
                return None, similarity
            four_sums(frame_e, operator.shift_index, operator.shift_weights, y * self._width + x, self._sums)
            measured = self._sums / illumination
            solved, similarity, change = self._solve(measured)
            if not solved:
                return None, similarity
            rest_y, rest_x = float(self._solution[0]), float(self._solution[1])
            if max(abs(rest_y), abs(rest_x)) <= RECENTRE_PX:
                blur = -operator.blur_gain * (change[2] - _series(operator.shift_series[2], rest_y, rest_x))
                return Shift(y, x, rest_y, rest_x, float(blur), known=True, jumped=False), similarity
            y, x = y + round(rest_y), x + round(rest_x)
        return None, similarity

    def _solve(self, measured: np.ndarray) -> tuple[bool, float, np.ndarray]:
        """Shift and brightness together: (converged, brightness relative to the reference, change of the functionals).

        All gradients grow with the particles' brightness, and the template's likeness falls with the shift: three
        rounds settle both to 1e-4.
        """
        operator = self._operator
        bias, template = operator.shift_bias, operator.shift_series[3]
        similarity = float(measured[3] / bias[3])
        change = bias - measured
        for _ in range(3):
            change = bias - measured / max(similarity, SIMILARITY_LEAST)
            if not solve_shift(operator.shift_series, change, self._solution):
                return False, similarity, change
            shifted = bias[3] - _series(template, self._solution[0], self._solution[1])
            similarity = float(measured[3] / shifted) if shifted > 0.3 * bias[3] else similarity
        return True, similarity, change

    def _coarse(self, frame_e: np.ndarray) -> tuple[int, int]:
        """Best integer shift within the margin by normalised correlation with the template."""
        operator = self._operator
        step = max(1, operator.shift_index.size // COARSE_PIXELS)
        template = operator.shift_weights[3, ::step]
        template = (template - template.mean()).astype(np.float32)
        likeness = np.empty((2 * MARGIN_PX + 1, 2 * MARGIN_PX + 1))
        index = np.ascontiguousarray(operator.shift_index[::step])
        correlation_map(frame_e, self._width, index, template, 0, MARGIN_PX, likeness)
        best = np.unravel_index(int(np.argmax(likeness)), likeness.shape)
        return int(best[0]) - MARGIN_PX, int(best[1]) - MARGIN_PX


def _series(c: np.ndarray, y: float, x: float) -> float:
    """What a pure shift does to a functional: its Taylor series in the shift."""
    terms = (y, x, y * y, y * x, x * x, y**3, y * y * x, y * x * x, x**3)
    return float(np.dot(c, terms))
