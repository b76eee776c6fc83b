"""Scenes in motion: exact renderings of a `PoissonScene` under drift, defocus and a changing lamp, and their exposures.

Every mean frame is rendered by an inverse Fourier transform of the scene's own spectrum: a phase ramp moves it, a
Gaussian blurs it, nothing is interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import lfilter

from tests.scenes import PAD_PX, PoissonScene

EXPOSURE_RATE_HZ = 100.0
PIXEL_NM = 96.0


class Stage:
    """Mean frames of one scene whose particles belong to groups that brighten apart.

    `groups` is (G, P) bool; particles of no group keep their level. Without groups all of it is fixed.
    """

    def __init__(self, scene: PoissonScene, groups: np.ndarray | None = None) -> None:
        self.scene = scene
        groups = np.zeros((0, scene.count), bool) if groups is None else np.atleast_2d(groups)
        self._shape = scene.canvas_shape
        self._groups = [scene.particle_spectrum(group.astype(float)) for group in groups]
        self._fixed = scene.background_spectrum + scene.particle_spectrum((~groups.any(axis=0)).astype(float))
        self._fy, self._fx = np.fft.fftfreq(self._shape[0]), np.fft.rfftfreq(self._shape[1])

    def mean_e(
        self,
        drift_px: tuple[float, float] | np.ndarray = (0.0, 0.0),
        blur_px2: float = 0.0,
        illumination: float = 1.0,
        brightness: tuple[float, ...] | None = None,
    ) -> np.ndarray:
        """(H, W) float64 expected electrons of one exposure.

        `blur_px2` is added to the variance of the PSF, everywhere; `brightness` is one factor a group.
        """
        moved = self._spectrum(brightness) * self._transfer(self._fy, drift_px[0], blur_px2)[:, None]
        moved *= self._transfer(self._fx, drift_px[1], blur_px2)
        return illumination * np.maximum(self._cropped(moved), 0.0)

    def gradients(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact derivatives of `mean_e` at rest, y and x, in electrons a pixel."""
        spectrum = self._spectrum(None)
        return (
            self._cropped(spectrum * (2j * np.pi * self._fy[:, None])),
            self._cropped(spectrum * (2j * np.pi * self._fx)),
        )

    def _spectrum(self, brightness: tuple[float, ...] | None) -> np.ndarray:
        factors = brightness if brightness is not None else (1.0,) * len(self._groups)
        return self._fixed + sum(f * group for f, group in zip(factors, self._groups, strict=True))

    @staticmethod
    def _transfer(frequency: np.ndarray, shift_px: float, blur_px2: float) -> np.ndarray:
        return np.exp(-2j * np.pi * frequency * shift_px - 2 * np.pi**2 * blur_px2 * frequency**2)

    def _cropped(self, spectrum: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(spectrum, self._shape)[PAD_PX:-PAD_PX, PAD_PX:-PAD_PX]


class Exposer:
    """The scene's camera, whose frame is the sum of `exposures` exposures, each digitised.

    A sum has exactly the statistics of so many frames averaged, at the price of one. Where more than one is summed the
    camera is one of a larger dark level, read noise and full scale: those of the sum.
    """

    def __init__(self, scene: PoissonScene, exposures: int = 1, stream: int = 0) -> None:
        self.exposures = exposures
        self.gain_e_per_dn = scene.gain_e_per_dn
        self.dark_dn = scene.dark_dn * exposures
        # all roundings but the last are part of the sum's noise
        self.read_noise_e = float(
            np.sqrt(exposures * scene.read_noise_e**2 + (exposures - 1) * scene.gain_e_per_dn**2 / 12)
        )
        self.bit_depth = scene.bit_depth if exposures == 1 else 16
        self.full_scale_dn = min(exposures * (2**scene.bit_depth - 1), 2**16 - 1)
        self._noise = np.random.Generator(np.random.SFC64([scene.seed, 7, exposures, stream]))

    def __call__(self, mean_e: np.ndarray) -> np.ndarray:
        """(H, W) uint16 DN: one noisy frame whose exposures each expect `mean_e` electrons."""
        electrons = self._noise.poisson(self.exposures * mean_e).astype(np.float32)
        electrons += np.float32(self.read_noise_e) * self._noise.standard_normal(mean_e.shape, dtype=np.float32)
        return self._digitised(electrons)

    def noiseless(self, mean_e: np.ndarray) -> np.ndarray:
        """(H, W) uint16 DN of the mean itself, dithered by half a step so that rounding averages out."""
        dither_e = self.gain_e_per_dn * (self._noise.random(mean_e.shape) - 0.5)
        return self._digitised(self.exposures * mean_e + dither_e)

    def mean_dn(self, mean_e: np.ndarray, frames: float) -> np.ndarray:
        """(H, W) float32 DN: distributed as the mean of `frames` frames."""
        n = round(frames * self.exposures)
        electrons = self._noise.poisson(n * mean_e) / frames
        spread_e = np.hypot(self.read_noise_e, self.gain_e_per_dn / np.sqrt(12)) / np.sqrt(frames)
        electrons = electrons + spread_e * self._noise.standard_normal(mean_e.shape)
        return (electrons / self.gain_e_per_dn + self.dark_dn).astype(np.float32)

    def _digitised(self, electrons: np.ndarray) -> np.ndarray:
        dn = np.rint(electrons / self.gain_e_per_dn + self.dark_dn)
        return np.clip(dn, 0, self.full_scale_dn).astype(np.uint16)


@dataclass(frozen=True)
class Disturbances:
    """What an instrument does by itself, frame by frame; `Disturbances.draw` makes a typical one."""

    drift_px: np.ndarray
    """(N, 2) y, x."""
    blur_px2: np.ndarray
    """(N,) added to the variance of the PSF."""
    illumination: np.ndarray
    """(N,) relative."""

    @classmethod
    def draw(cls, seed: int, seconds: float, exposures: int) -> Disturbances:
        """Means over `exposures` exposures, for `seconds`.

        Drift: Ornstein-Uhlenbeck, 20 nm rms, 30 s, and a random walk of 100 nm in an hour. Focus: an extra blur of
        0.3 px rms, Ornstein-Uhlenbeck, 120 s. Lamp: warms up by 0.5 % with 600 s, wanders by 0.1 % rms with 60 s, and
        a ripple of 5e-4 aliased to 0.37 of the exposure rate.
        """
        rng = np.random.default_rng([seed, 11])
        n = round(seconds * EXPOSURE_RATE_HZ)
        t_s = np.arange(n) / EXPOSURE_RATE_HZ
        walk_nm = 100.0 / np.sqrt(3600.0 * EXPOSURE_RATE_HZ)
        drift_nm = np.column_stack(
            [ornstein_uhlenbeck(rng, n, 20.0, 30.0) + np.cumsum(rng.normal(0, walk_nm, n)) for _ in range(2)]
        )
        blur_px2 = ornstein_uhlenbeck(rng, n, 0.3, 120.0) ** 2
        ripple = 5e-4 * np.sin(2 * np.pi * (0.37 * np.arange(n) + rng.random()))
        warming = -0.005 * -np.expm1(-t_s / 600.0)
        illumination = 1 + warming + ornstein_uhlenbeck(rng, n, 1e-3, 60.0) + ripple
        return cls(*(_blocks(x, exposures) for x in (drift_nm / PIXEL_NM, blur_px2, illumination)))

    def only(self, kind: str) -> Disturbances:
        """These with all but `kind` held at their first values: "drift", "focus", "lamp" or "none"."""
        held = Disturbances(
            np.broadcast_to(self.drift_px[0], self.drift_px.shape),
            np.full_like(self.blur_px2, self.blur_px2[0]),
            np.full_like(self.illumination, self.illumination[0]),
        )
        field = {"drift": "drift_px", "focus": "blur_px2", "lamp": "illumination"}.get(kind)
        return replace(held, **{field: getattr(self, field)}) if field else held

    def __len__(self) -> int:
        return len(self.illumination)


def ornstein_uhlenbeck(rng: np.random.Generator, n: int, rms: float, correlation_s: float) -> np.ndarray:
    """(n,) samples at the exposure rate, stationary from the first."""
    keep = np.exp(-1.0 / (correlation_s * EXPOSURE_RATE_HZ))
    kicks = rng.normal(0, rms * np.sqrt(1 - keep**2), n)
    kicks[0] = rng.normal(0, rms)
    return lfilter([1.0], [1.0, -keep], kicks)


def _blocks(values: np.ndarray, size: int) -> np.ndarray:
    whole = len(values) // size * size
    return values[:whole].reshape(-1, size, *values.shape[1:]).mean(axis=1)
