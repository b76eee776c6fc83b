"""The simulated microscope's camera: takes pictures of the scene."""

from __future__ import annotations

import math

import numpy as np

from hw.twin.disturbances import Disturbance
from hw.twin.sample import Sample, stream
from hw.twin.scene import PAD_PX, Scene
from hw.twin.settings import OpticsOptions
from kernels import synth

POOL = 1 << 19  # 2 MB of unit noise: a line meets itself in the next frame once in an hour
FULL_SCALE_DN_12 = 4096
BITS = {"Mono8": 8, "Mono12": 12, "Mono12p": 12, "Mono16": 16}
_SENSOR, _NOISE = 32, 35  # sub-streams of the seed


class Microscope:
    """Sensor and optics in front of a `Scene`. Not thread-safe. The constructor draws the scene: seconds."""

    def __init__(self, sample: Sample, options: OpticsOptions) -> None:
        self.sample, self._options = sample, options
        bits = BITS[options.pixel_format]
        share = FULL_SCALE_DN_12 / 2**bits
        self.gain_e_per_dn, self.dark_dn = options.gain_e_per_dn * share, options.dark_dn / share
        self.full_scale_dn = 2**bits - 1
        self.exposure_us = options.exposure_us
        """May be changed at any time."""
        self.scene = Scene(sample, options)
        rng = stream(sample.options.seed, _SENSOR)
        self.field = _field(rng, sample, options)
        """(H, W): share of the nominal light that a pixel gets and counts."""
        hot = 0 if options.static else options.hot_pixels
        self.hot_y, self.hot_x = rng.integers(0, self.field.shape[0], hot), rng.integers(0, self.field.shape[1], hot)
        self._hot_dn = rng.uniform(0.05, 0.5, hot) * self.full_scale_dn
        self._noise = stream(sample.options.seed, _NOISE)
        pool = self._noise.standard_normal(POOL)
        self._pool = ((pool - pool.mean()) / pool.std()).astype(np.float32)
        self._line = np.empty((2, self.field.shape[1] + 32), np.float32)

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Type of the pixels that `expose` fills."""
        return np.uint8 if self.full_scale_dn < 256 else np.uint16

    def expose(self, disturbance: Disturbance, out: np.ndarray) -> None:
        """Picture of the scene as last shown, into `out` (H, W) of `dtype`."""
        strength = disturbance.illumination * self.exposure_us / self._options.reference_exposure_us
        if self._options.noise == "pool":
            self._expose_pooled(disturbance, strength, out)
        else:
            self._expose_exactly(disturbance, strength, out)
        if len(self.hot_y):
            synth.add_hot(out, self.hot_y, self.hot_x, self._hot_dn, self.full_scale_dn)

    def _expose_pooled(self, disturbance: Disturbance, strength: float, out: np.ndarray) -> None:
        row0, taps_y, col0, taps_x = _gathering(disturbance)
        offsets = self._noise.integers(0, POOL - out.shape[1], out.shape[0])
        f = np.float32
        full, gain, read = f(self.full_scale_dn), f(self.gain_e_per_dn), f(self._options.read_noise_e)
        synth.expose(
            self.scene.image, row0, col0, taps_y, taps_x, self.field, f(strength), self._pool, offsets, full, gain,
            read, f(self.dark_dn), self._line, out,
        )  # fmt: skip

    def _expose_exactly(self, disturbance: Disturbance, strength: float, out: np.ndarray) -> None:
        """Without noise, or with every photon and every read drawn independently."""
        electrons = self.mean_e(disturbance) * strength
        if self._options.noise == "poisson":
            electrons = self._noise.poisson(electrons) + self._noise.normal(0, self._options.read_noise_e, out.shape)
        out[:] = np.clip(np.rint(electrons / self.gain_e_per_dn + self.dark_dn), 0, self.full_scale_dn)

    def mean_e(self, disturbance: Disturbance) -> np.ndarray:
        """(H, W) float64 expected electrons of the scene as last shown, at unit illumination and nominal exposure."""
        row0, taps_y, col0, taps_x = _gathering(disturbance)
        mean = np.empty(self.field.shape, np.float32)
        synth.gather(self.scene.image, row0, col0, taps_y, taps_x, self._line, mean)
        return np.maximum(mean.astype(float) * self.field, 0.0)


def _field(rng: np.random.Generator, sample: Sample, options: OpticsOptions) -> np.ndarray:
    """Illumination profile times the pixels' own gains."""
    height, width = sample.options.height_px, sample.options.width_px
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    profile = 1.0 - options.illumination_falloff * ((y - 0.1) ** 2 + (x + 0.05) ** 2) / 2.0
    pixels = 1.0 + options.pixel_gain_sigma * rng.standard_normal((height, width))
    return np.asarray(profile * pixels, np.float32)


def _gathering(disturbance: Disturbance) -> tuple[int, np.ndarray, int, np.ndarray]:
    row0, taps_y = moving_taps(-disturbance.drift_y_px, disturbance.blur_px)
    col0, taps_x = moving_taps(-disturbance.drift_x_px, disturbance.blur_px)
    return PAD_PX + row0, taps_y, PAD_PX + col0, taps_x


def moving_taps(shift_px: float, blur_px: float) -> tuple[int, np.ndarray]:
    """(first, taps): sum of taps[j] * line[x + first + j] is the line at x + `shift_px`, blurred by sigma `blur_px`.

    Quintic Lagrange interpolation, exact to 1e-4 of the contrast behind a PSF of 1.5 px, and as blur the diffusion
    [v/2, 1 - v, v/2] repeated, whose variance is exact.
    """
    whole = math.floor(shift_px)
    part = shift_px - whole
    nodes = range(-2, 4)
    taps = np.array([math.prod((part - m) / (n - m) for m in nodes if m != n) for n in nodes])
    variance = blur_px * blur_px
    times = math.ceil(variance / 0.5)
    for _ in range(times):
        v = variance / times
        taps = np.convolve(taps, [v / 2, 1 - v, v / 2])
    return whole - 2 - times, taps.astype(np.float32)
