"""One frame's photometry: DN to electrons, illumination, then flux, layers, centroid and their variances."""

from __future__ import annotations

import numpy as np

from daemon.engine.measures import LAYERS, ParticleFlag
from daemon.engine.operator import Operator
from daemon.engine.registration import Shift
from kernels.calibrate import electrons_mapped, electrons_scalar
from kernels.functionals import plane_sums
from kernels.measure import MOMENT_X, MOMENT_Y, SATURATED, SQUARE, SUM, layer_sums, ring_means

SATURATION = 0.98  # of full scale: above it the sensor is no longer linear
RING_DONORS = 5


class Calibrator:
    """DN to electrons with the run's constants, into one reused buffer."""

    def __init__(
        self,
        operator: Operator,
        dark_map: np.ndarray | None = None,
        flat_map: np.ndarray | None = None,
    ) -> None:
        shape, noise = (int(operator.shape[0]), int(operator.shape[1])), operator.noise
        bad = operator.defects.astype(np.int64)
        self._bad = bad
        self._around = np.stack([bad - 1, bad + 1, bad - shape[1], bad + shape[1]])
        self._gain, _, self._dark = (float(value) for value in noise)
        self.buffer = np.empty(shape[0] * shape[1], np.float32)
        self._scale = None
        self._dark_map = np.empty(0, np.float32)
        if dark_map is not None or flat_map is not None:
            flat = np.ones(shape, np.float32) if flat_map is None else flat_map
            dark = np.full(shape, self._dark, np.float32) if dark_map is None else dark_map
            self._scale = np.ascontiguousarray(self._gain / flat, np.float32).reshape(-1)
            self._dark_map = np.ascontiguousarray(dark, np.float32).reshape(-1)

    def __call__(self, dn: np.ndarray) -> np.ndarray:
        """Flat float32 electrons of an (H, W) uint16 frame; valid until the next call."""
        flat_dn = dn.reshape(-1)
        if self._scale is None:
            electrons_scalar(flat_dn, self._gain, self._dark, self.buffer)
        else:
            electrons_mapped(flat_dn, self._scale, self._dark_map, self.buffer)
        if self._bad.size:
            self.buffer[self._bad] = self.buffer[self._around].mean(axis=0)
        return self.buffer


class Photometer:
    """Fluxes of all particles of a frame, with variances and flags."""

    def __init__(self, operator: Operator, bit_depth: int) -> None:
        self._operator = operator
        gain, read_noise, dark = operator.noise
        self._floor_e2 = read_noise**2 + gain**2 / 12
        self._saturation_e = gain * (SATURATION * (2**bit_depth - 1) - dark)
        particles = operator.particles
        self._shape = tuple(int(n) for n in operator.shape)
        self._sums = np.empty((particles * len(LAYERS), 5))
        self._ring = np.empty(particles)
        self._plane = np.empty(3)
        self._ring_pixels = np.maximum(np.diff(operator.ring_pointer), 1)
        self._donors = _ring_donors(operator)
        basis = np.column_stack([np.ones(particles), operator.centre_uv])
        self._basis = basis
        self._gain_variance = np.einsum("pi,ij,pj->p", basis, operator.plane_covariance, basis)

    def plane(self, frame_e: np.ndarray, offset: int) -> np.ndarray:
        """Illumination plane (a, b, c) relative to the reference, from inactive pixels only."""
        operator = self._operator
        if operator.plane_index.size < 100:
            return np.array([1.0, 0.0, 0.0])
        plane_sums(frame_e, operator.plane_index, operator.plane_u, operator.plane_v, offset, self._plane)
        plane = operator.plane_covariance @ self._plane
        return plane if plane[0] > 0 and np.isfinite(plane).all() else np.array([1.0, 0.0, 0.0])

    def blank(self) -> tuple[np.ndarray, ...]:
        """The measures of a frame that shows nothing."""
        particles = self._operator.particles
        vector, layers = np.full(particles, np.nan, np.float32), np.full((particles, 4), np.nan, np.float32)
        return vector, vector, layers, layers, vector, vector, np.zeros(particles, np.uint16)

    def measure(self, frame_e: np.ndarray, shift: Shift, plane: np.ndarray) -> tuple[np.ndarray, ...]:
        """Flux, its sigma, layers, their sigmas, centroid y and x, flags, in the order of `MeasureBatch`."""
        operator = self._operator
        offset = shift.base_y * self._shape[1] + shift.base_x
        inside = self._inside(shift)
        layer_sums(
            frame_e, operator.index, operator.weights, operator.pointer, operator.inner_index, operator.inner_place,
            operator.inner_pointer, offset, shift.rest_y, shift.rest_x, self._saturation_e,
            np.repeat(inside, len(LAYERS)), self._sums,
        )  # fmt: skip
        ring_means(frame_e, operator.ring_index, operator.ring_pointer, offset, inside, self._ring)
        background = self._background()
        return self._assemble(shift, background, self._basis @ plane, inside)

    def _inside(self, shift: Shift) -> np.ndarray:
        box = self._operator.box
        return (
            (box[:, 0] + shift.base_y >= 0)
            & (box[:, 1] + shift.base_y < self._shape[0])
            & (box[:, 2] + shift.base_x >= 0)
            & (box[:, 3] + shift.base_x < self._shape[1])
        )

    def _background(self) -> np.ndarray:
        background = self._ring
        for particle, donors in self._donors:
            background[particle] = background[donors].mean() if len(donors) else np.nan
        return background

    def _assemble(
        self, shift: Shift, background: np.ndarray, gain: np.ndarray, inside: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        shape = (len(inside), len(LAYERS))
        weights = self._operator.weight_sums
        area = (weights[:, 0] - shift.rest_y * weights[:, 1] - shift.rest_x * weights[:, 2]).reshape(shape)
        layers = self._sums[:, SUM].reshape(shape) - area * background[:, None]
        # noise of the mean background, and of the mask's own pixels
        ring_variance = (np.maximum(background, 0.0) + self._floor_e2) / self._ring_pixels
        own = self._sums[:, SQUARE].reshape(shape) + self._floor_e2 * weights[:, 3].reshape(shape)
        flux, total_area = layers.sum(axis=1), area.sum(axis=1)
        variance = own.sum(axis=1) + total_area**2 * ring_variance + flux**2 * self._gain_variance
        layer_variance = own + area**2 * ring_variance[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            centroids = [
                (
                    self._sums[:, moment].reshape(shape).sum(axis=1)
                    - background * (weights[:, column].reshape(shape).sum(axis=1) + rest * total_area)
                )
                / flux
                - rest
                for moment, column, rest in ((MOMENT_Y, 4, shift.rest_y), (MOMENT_X, 5, shift.rest_x))
            ]
            sigma = np.sqrt(np.maximum(variance, 0.0)) / gain
            layer_sigma = np.sqrt(np.maximum(layer_variance, 0.0)) / gain[:, None]
        return (
            (flux / gain).astype(np.float32),
            sigma.astype(np.float32),
            (layers / gain[:, None]).astype(np.float32),
            layer_sigma.astype(np.float32),
            centroids[0].astype(np.float32),
            centroids[1].astype(np.float32),
            self._flags(inside),
        )

    def _flags(self, inside: np.ndarray) -> np.ndarray:
        saturated = self._sums[:, SATURATED].reshape(len(inside), len(LAYERS)).sum(axis=1) > 0
        flags = np.where(saturated, int(ParticleFlag.SATURATED), 0)
        flags |= np.where(inside, 0, int(ParticleFlag.EDGE))
        flags |= np.where(self._operator.ring_poor, int(ParticleFlag.BAD_RING), 0)
        return flags.astype(np.uint16)


def _ring_donors(operator: Operator) -> list[tuple[int, np.ndarray]]:
    """For each particle with a poor ring, the nearest particles with a good one."""
    good = np.flatnonzero(~operator.ring_poor)
    donors = []
    for particle in np.flatnonzero(operator.ring_poor):
        distance = ((operator.centre_uv[good] - operator.centre_uv[particle]) ** 2).sum(axis=1)
        donors.append((int(particle), good[np.argsort(distance)[:RING_DONORS]]))
    return donors
