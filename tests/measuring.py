"""From an independent scene to a compiled operator and measured frames, for tests and benchmarks."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from daemon.engine.collector import Collector
from daemon.engine.measures import MaskSet, NoiseModel
from daemon.engine.operator import Operator
from daemon.engine.photometer import Photometer
from daemon.engine.registration import Registration
from daemon.photometry.compile import compile_operator
from hw.camera.contract import PixelFormat
from kernels.photometry import AXIAL, CENTROID_X, CENTROID_Y, FLUX, LAYER, LAYER_SIGMA, SIGMA
from tests.scenes import PoissonScene


def true_masks(scene: PoissonScene) -> MaskSet:
    """The scene's own outlines as masks."""
    ids = np.arange(1, scene.count + 1)
    return MaskSet(scene.labels(), ids, scene.y_px, scene.x_px, {}, scene.psf_sigma_px, None)


def noise_of(scene: PoissonScene) -> NoiseModel:
    """The scene's own camera."""
    return NoiseModel(scene.gain_e_per_dn, scene.read_noise_e, scene.dark_dn)


def operator_of(scene: PoissonScene, frames: int = 50) -> Operator:
    """The operator from true masks and a reference of `frames` noisy frames."""
    reference_e = (scene.reference(frames) - scene.dark_dn) * scene.gain_e_per_dn
    return compile_operator(reference_e.astype(np.float32), true_masks(scene), noise_of(scene), frames)


class Rig:
    """Collector, registration and photometer of one scene."""

    def __init__(self, scene: PoissonScene, operator: Operator | None = None) -> None:
        self.operator = operator if operator is not None else operator_of(scene)
        self.collector = Collector(self.operator, PixelFormat.MONO16, scene.bit_depth)
        self.photometer = Photometer(self.operator, self.collector)
        self.registration = Registration(self.operator, self.collector, self.photometer)

    def measure(self, dn: np.ndarray):
        """(measures, shift, illumination) of one frame; measures are flux, sigma, layers, their sigmas, centroid
        y and x, flags and axial bins.
        """
        frame = self.collector.open(dn)
        if not self.registration.usable:
            self.photometer.look(frame, 0, 0)
        shift = self.registration.locate(frame)
        m, flags, illumination = self.photometer.measure(frame, shift)
        parts = (m[:, FLUX], m[:, SIGMA], m[:, LAYER : LAYER + 4], m[:, LAYER_SIGMA : LAYER_SIGMA + 4])
        return (*parts, m[:, CENTROID_Y], m[:, CENTROID_X], flags, m[:, AXIAL : AXIAL + 8]), shift, illumination

    def series(self, frames):
        """Fluxes (N, P), sigmas (N, P) and drifts (N, 2) of an iterable of frames."""
        flux, sigma, drift = [], [], []
        for dn in frames:
            measured, shift, _ = self.measure(dn)
            flux.append(measured[0])
            sigma.append(measured[1])
            drift.append((shift.y_px, shift.x_px))
        return np.array(flux), np.array(sigma), np.array(drift)


def mask_and_ring_bound(scene: PoissonScene) -> np.ndarray:
    """(P,) relative noise of a plain mask sum with a ring from 2 to 5 px beyond its edge, by the CCD equation."""
    mean_e, labels = scene.mean_e(), scene.labels()
    floor = scene.read_noise_e**2 + scene.gain_e_per_dn**2 / 12
    nearest = ndimage.distance_transform_edt(labels == 0)
    bound = np.empty(scene.count)
    for i in range(scene.count):
        mask = labels == i + 1
        outside = ndimage.distance_transform_edt(~mask)
        ring = (outside > 2) & (outside <= 5) & (labels == 0) & (nearest > 2)
        n, background = mask.sum(), mean_e[ring].mean()
        variance = mean_e[mask].sum() + n * floor + n**2 / ring.sum() * (background + floor)
        bound[i] = np.sqrt(variance) / (mean_e[mask] - background).sum()
    return bound


def shift_bound(scene: PoissonScene) -> np.ndarray:
    """(2,) px: the Cramer-Rao bound of a frame's shift against a noiseless reference, from all pixels of the frame.

    J = sum grad R grad R^T / v (Robinson & Milanfar 2004); for a reference as noisy as the frame, sqrt(2) more.
    """
    step = 0.05
    slope = [
        (
            scene.mean_e((-step * (axis == 0), -step * (axis == 1)))
            - scene.mean_e((step * (axis == 0), step * (axis == 1)))
        )
        / (2 * step)
        for axis in (0, 1)
    ]
    variance = scene.mean_e() + scene.read_noise_e**2 + scene.gain_e_per_dn**2 / 12
    information = np.array([[(a * b / variance).sum() for b in slope] for a in slope])
    return np.sqrt(np.diag(np.linalg.inv(information)))
