"""One frame's photometry: illumination, backgrounds, then flux, layers, axial bins, centroid and their variances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daemon.engine.collector import BLOCK_PX, Collector
from daemon.engine.measures import ParticleFlag
from daemon.engine.operator import LEAST_PLANE_SPANS, Operator, ring_donors
from daemon.engine.shift import Shift
from kernels.background import LEVEL, MEMORY, STATES, VARIANCE, follow_background
from kernels.functionals import plane_sums, weighted_sums
from kernels.lanes import SPAN_PX
from kernels.photometry import (
    LEAST_LIGHT,
    MEASURES,
    SUMS,
    TERMS,
    deblend,
    fluxes,
    illumination,
    monomials,
    ring_levels,
    shift_sums,
)

BACKGROUND_FRAMES = 2000.0  # remembered at most: what the background's noise adds to a particle's is then under 1 %


class Photometer:
    """Measures all particles of a frame. Remembers each particle's background, and nothing else, between frames."""

    def __init__(self, operator: Operator, collector: Collector) -> None:
        self._operator, self._collector = operator, collector
        gain, read_noise, _ = operator.noise
        self._floor_e2 = read_noise**2 + gain**2 / 12
        self._calibration = np.array([collector.unit_e, self._floor_e2])
        particles = operator.particles
        self._shape = tuple(int(n) for n in operator.shape)
        self._sums = np.empty((particles, SUMS), np.int64)
        self._ring_sums = np.empty(particles, np.int64)
        self._ring = np.empty((2, particles))
        self._plane_sums, self._plane = np.zeros(3), np.array([1.0, 0.0, 0.0])
        self._dark = Dark.level(operator, collector.dark or 0.0)
        self._scratch = np.empty(particles, np.float32)
        self._drift, self._moved = np.empty(2), np.empty(TERMS, np.float32)
        self._still, self._gain = np.zeros(TERMS, np.float32), np.ones(particles)
        self._lit = operator.plane_span.size >= LEAST_PLANE_SPANS
        self._ring_first, self._ring_good = operator.ring_pointer[:-1], ~operator.ring_poor
        self._base: tuple[int, int] | None = None
        self.inside = np.zeros(particles, bool)
        """(P,) bool: particles that the last frame looked at holds whole."""
        self.leak = leak_of(operator)
        self._donors = ring_donors(operator.ring_poor, operator.centre_uv)
        self._background = self._first_background()
        basis = np.column_stack([np.ones(particles), operator.centre_uv])
        self._basis = basis
        self._gain_variance = np.einsum("pi,ij,pj->p", basis, operator.plane_covariance, basis)
        self._flags = np.where(operator.ring_poor, int(ParticleFlag.BAD_RING), 0).astype(np.uint16)
        self._flags[operator.blended] |= np.uint16(ParticleFlag.BLENDED)
        self._frame_flags = self._flags

    @property
    def dark(self) -> bool:
        """Whether the light was gone in the last frame looked at."""
        return bool(np.isnan(self._plane[0]))

    def _first_background(self) -> np.ndarray:
        """What the reference says of each background."""
        operator = self._operator
        state = np.zeros((operator.particles, STATES))
        frames = float(operator.reference_frames)
        state[:, LEVEL] = operator.ring_level
        pixels = np.maximum(operator.ring_count, 1)
        state[:, VARIANCE] = (np.maximum(operator.ring_level, 0.0) + self._floor_e2) / pixels / frames
        state[:, MEMORY] = np.minimum(frames, BACKGROUND_FRAMES)
        for particle, donors in self._donors:
            if not len(donors):  # nobody to borrow from: what is not known is NaN
                state[particle, LEVEL] = np.nan
        return state

    def go_on_from(self, before: Photometer, kept: np.ndarray) -> None:
        """Take over the backgrounds of particles that another operator measured: column k is its column `kept[k]`, and
        -1 one that is new.
        """
        known = kept >= 0
        self._background[known] = before._background[kept[known]]

    def look(self, frame: np.ndarray, base_y: int, base_x: int) -> np.ndarray:
        """Sum a frame that the collector opened, under a whole-pixel shift: (4,) functionals of drift, blur and
        likeness under the reference's illumination.
        """
        operator, collector = self._operator, self._collector
        collector.read(frame, base_y * self._shape[1] + base_x)
        weighted_sums(
            collector.masks, operator.weights, operator.weight_first, operator.weight_pointer, collector.block_px,
            self._sums.reshape(-1),
        )  # fmt: skip
        if (base_y, base_x) != self._base:
            self._base, self.inside = (base_y, base_x), self._within_frame(base_y, base_x)
            self._frame_flags = np.where(self.inside, self._flags, self._flags | np.uint16(ParticleFlag.EDGE))
            if collector.dark is None:
                self._dark = Dark.under(operator, collector, base_y * self._shape[1] + base_x)
        plane_sums(collector.plane, operator.plane_u, operator.plane_v, self._plane_sums)
        self._light(self._still)
        found = np.empty(4)
        shift_sums(
            self._sums, self._dark.sums, operator.weight_scale, operator.weight_sums, self.leak, self._calibration,
            self._gain, self._background, self.inside, found,
        )  # fmt: skip
        return found

    def _light(self, moved: np.ndarray) -> None:
        """Illumination of the frame looked at, relative to the reference, from inactive pixels only; with the frame's
        `moved` monomials also free of what a sub-pixel drift does to an uneven background.
        """
        operator = self._operator
        if self._lit:
            illumination(
                self._plane_sums, self._dark.plane, self._collector.unit_e, operator.plane_taylor, moved,
                operator.plane_covariance, self._basis, self._plane, self._gain,
            )  # fmt: skip

    def blank(self) -> tuple[np.ndarray, np.ndarray]:
        """The measures and flags of a frame that shows nothing."""
        particles = self._operator.particles
        return np.full((particles, MEASURES), np.nan, np.float32), np.zeros(particles, np.uint16)

    def measure(self, frame: np.ndarray, shift: Shift) -> tuple[np.ndarray, np.ndarray, float]:
        """Measures (P, MEASURES) float32 of a frame at its `shift`, in the columns of `kernels.photometry`, (P,) flags,
        and the illumination relative to the reference, NaN when there is none.

        Measures are NaN, and backgrounds stay as they were, of a frame whose shift is not known, and of particles
        that no light falls on.
        """
        operator = self._operator
        if (shift.base_y, shift.base_x) != self._base:
            self.look(frame, shift.base_y, shift.base_x)
        self._drift[:] = shift.rest_y, shift.rest_x
        monomials(shift.rest_y, shift.rest_x, 0.0, self._moved)
        self._light(self._moved)
        monomials(shift.rest_y, shift.rest_x, shift.blur_px2, self._moved)
        shown = self.inside & (self._gain > LEAST_LIGHT) & shift.known
        self._follow_rings(shown)
        measures = np.empty((operator.particles, MEASURES), np.float32)
        fluxes(
            self._sums, self._dark.sums, operator.weight_scale, operator.weight_sums, operator.taylor,
            operator.reference_flux, operator.reference_bend, operator.layer_noise, self._calibration, self._drift,
            self._moved, self._gain, self._gain_variance, self._background, shown, measures,
        )  # fmt: skip
        deblend(operator.blend_pointer, operator.blend_index, operator.blend_share, self._scratch, measures)
        flags = self._frame_flags.copy()
        if self._collector.saturated.any():
            flags[self._collector.saturated] |= np.uint16(ParticleFlag.SATURATED)
        return measures, flags, float(self._plane[0])

    def _follow_rings(self, shown: np.ndarray) -> None:
        """Take the rings of the particles `shown` (P,) bool into their backgrounds."""
        operator, collector = self._operator, self._collector
        weighted_sums(
            collector.rings, operator.ring_weights, self._ring_first, operator.ring_pointer, collector.block_px,
            self._ring_sums,
        )  # fmt: skip
        ring_levels(
            self._ring_sums, self._dark.rings, operator.ring_count, operator.ring_taylor, self._calibration,
            self._moved, self._gain, self._ring,
        )  # fmt: skip
        level, variance = self._ring
        follow_background(level, variance, shown & self._ring_good, BACKGROUND_FRAMES, self._background)
        for particle, donors in self._donors:
            if len(donors):
                self._background[particle, LEVEL] = self._background[donors, LEVEL].mean()
                self._background[particle, VARIANCE] = self._background[donors, VARIANCE].mean()

    def _within_frame(self, base_y: int, base_x: int) -> np.ndarray:
        box = self._operator.box
        return (
            (box[:, 0] + base_y >= 0)
            & (box[:, 1] + base_y < self._shape[0])
            & (box[:, 2] + base_x >= 0)
            & (box[:, 3] + base_x < self._shape[1])
        )


@dataclass(frozen=True)
class Dark:
    """What the dark level adds to the sums of a frame, in counts: sums are linear, so it is the same in every frame of
    a whole-pixel shift.
    """

    sums: np.ndarray
    """(P, SUMS) float64, of the real weights."""
    rings: np.ndarray
    """(P,) float64: mean over each ring."""
    plane: np.ndarray
    """(3,) float64."""

    @classmethod
    def level(cls, operator: Operator, dark: float) -> Dark:
        """Of a camera whose pixels are all alike."""
        return cls(
            dark * operator.weight_sums, np.full(operator.particles, dark), SPAN_PX * dark * operator.plane_basis
        )

    @classmethod
    def under(cls, operator: Operator, collector: Collector, offset: int) -> Dark:
        """Of the pixels that are looked at under a shift by `offset` linear pixels."""
        values, parts = collector.dark_values(offset)
        masks, rings, plane = collector.parts(values)
        sums, ring_sums = np.empty(operator.weight_scale.size, np.int64), np.empty(operator.particles, np.int64)
        plane_dark = np.empty(3)
        weighted_sums(
            masks, operator.weights, operator.weight_first, operator.weight_pointer, BLOCK_PX[True], sums
        )  # fmt: skip
        weighted_sums(
            rings, operator.ring_weights, operator.ring_pointer[:-1], operator.ring_pointer, BLOCK_PX[True], ring_sums
        )
        plane_sums(plane, operator.plane_u, operator.plane_v, plane_dark)
        return cls(
            operator.weight_scale * sums.reshape(operator.weight_scale.shape) / parts,
            ring_sums / np.maximum(operator.ring_count, 1) / parts,
            plane_dark / parts,
        )


def leak_of(operator: Operator) -> np.ndarray:
    """(P, 4): what is left of each particle's own brightness in its functionals of drift and blur."""
    flux = np.where(operator.reference_flux == 0.0, np.inf, operator.reference_flux)
    leak = operator.reference_shift / flux[:, None]
    leak[:, 3] = 0.0
    return leak
