"""An independent scene for acceptance: irregular blurred particles, uneven background, true Poisson noise, known truth.

It shares no code with the simulated instrument, so that a mistake there cannot flatter the pipeline. The whole scene is
one band-limited picture (a Gaussian blur of 1 px or more leaves nothing beyond the pixel grid's Nyquist frequency), so
a Fourier phase ramp moves it by any fraction of a pixel without interpolation error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

PAD_PX = 32
"""Canvas beyond the frame on each side: drift and blur wrap around out there, never into the frame."""
SUPERSAMPLING = 8
HARMONICS = np.arange(2, 7)
ANGLES = 2048


@dataclass
class PoissonScene:
    """`particles` particles in a frame of `height` x `width`; equal arguments give an equal scene and equal noise.

    `touching_pairs` of them get a partner (index `particles` and up) that shares a short piece of outline with it.
    Truth, each (P,): `y_px`, `x_px` (centroids), `radii_px` (of the circle of equal area), `area_px` and `level_e`
    (electrons a pixel above the background). A particle at (y, x) appears at (y + drift_y, x + drift_x).
    """

    seed: int = 0
    height: int = 240
    width: int = 320
    particles: int = 30
    radius_px: tuple[float, float] = (5.0, 11.0)
    psf_sigma_px: float = 1.5
    particle_e: tuple[float, float] = (9_000.0, 14_000.0)
    background_e: float = 6_000.0
    unevenness: float = 0.2
    """Peak relative swing of the smooth background."""
    texture_e: float = 0.0
    """Standard deviation of the static grain of the background, about 3 px coarse; moves with the scene."""
    irregularity: float = 0.12
    gap_px: float = 8.0
    margin_px: float = 24.0
    touching_pairs: int = 0
    pair_gap_px: float | None = None
    """Partners stand this far from their particle, outline to outline, and both are round; None: they touch."""
    gain_e_per_dn: float = 8.0
    read_noise_e: float = 7.0
    dark_dn: float = 64.0
    bit_depth: int = 12
    radii_px: np.ndarray = field(init=False)
    y_px: np.ndarray = field(init=False)
    x_px: np.ndarray = field(init=False)
    level_e: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 1])
        self._noise = np.random.default_rng([self.seed, 2])
        self.radii_px = np.sort(rng.uniform(*self.radius_px, self.particles))[::-1].copy()  # large ones first fit
        self.y_px, self.x_px = self._place(rng)
        self._outlines = rng.normal(0, 1, (self.particles, 2, len(HARMONICS))) / (HARMONICS - 1)
        self._outlines *= self.irregularity
        if self.touching_pairs:
            self._add_partners(rng)
        self.level_e = rng.uniform(*self.particle_e, self.count)
        self._draw_particles()
        self._background = self._draw_background(rng)

    @property
    def count(self) -> int:
        """Number of particles, partners included."""
        return len(self.radii_px)

    def _place(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        reach = 1 + 2 * self.irregularity
        room = 2.2 if self.touching_pairs else 0.0
        y, x = np.empty(self.particles), np.empty(self.particles)
        for i, radius in enumerate(self.radii_px):
            edge = self.margin_px + (reach + room) * radius
            for _ in range(20_000):
                y[i], x[i] = rng.uniform(edge, self.height - edge), rng.uniform(edge, self.width - edge)
                apart = (reach + room * (i < self.touching_pairs)) * radius + (
                    reach + room * (np.arange(i) < self.touching_pairs)
                ) * self.radii_px[:i]
                if np.all(np.hypot(y[:i] - y[i], x[:i] - x[i]) > apart + self.gap_px):
                    break
            else:
                raise ValueError(f"no room for particle {i} of {self.particles}")
        return y, x

    def _add_partners(self, rng: np.random.Generator) -> None:
        first = slice(0, self.touching_pairs)
        radii = self.radii_px[first] * rng.uniform(0.8, 1.0, self.touching_pairs)
        angle = rng.uniform(0, 2 * np.pi, self.touching_pairs)
        distance = 0.93 * (self.radii_px[first] + radii)
        if self.pair_gap_px is not None:
            distance = self.radii_px[first] + radii + self.pair_gap_px
        self.y_px = np.append(self.y_px, self.y_px[first] + distance * np.sin(angle))
        self.x_px = np.append(self.x_px, self.x_px[first] + distance * np.cos(angle))
        self.radii_px = np.append(self.radii_px, radii)
        # nearly round, so that outlines meet where planned
        self._outlines[first] *= 0.3 if self.pair_gap_px is None else 0.0
        self._outlines = np.append(self._outlines, self._outlines[first][:, ::-1], axis=0)

    def _draw_particles(self) -> None:
        taken: dict[tuple[int, int], float] = {}
        self._patches: list[tuple[slice, slice, np.ndarray]] = []
        for i in range(self.count):
            rows, columns, cover = self._coverage_of(i)
            if self.touching_pairs:
                _leave_room(taken, rows, columns, cover)
            self._patches.append((rows, columns, cover))
            total = cover.sum()
            self.y_px[i] = (cover.sum(axis=1) @ np.arange(rows.start, rows.stop)) / total - PAD_PX
            self.x_px[i] = (cover.sum(axis=0) @ np.arange(columns.start, columns.stop)) / total - PAD_PX
        self.area_px = np.array([cover.sum() for _, _, cover in self._patches])
        self.radii_px = np.sqrt(self.area_px / np.pi)

    def _coverage_of(self, i: int) -> tuple[slice, slice, np.ndarray]:
        """Share of each canvas pixel inside particle i's outline."""
        half = int(np.ceil(1.9 * self.radii_px[i])) + 2
        cy, cx = self.y_px[i] + PAD_PX, self.x_px[i] + PAD_PX
        top, left = round(cy) - half, round(cx) - half
        fine = (np.arange((2 * half + 1) * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
        dy, dx = np.meshgrid(fine + top - cy, fine + left - cx, indexing="ij")
        turn = ((np.arctan2(dy, dx) / (2 * np.pi) + 1) * ANGLES).astype(int) % ANGLES
        inside = dy**2 + dx**2 < self._outline(i)[turn] ** 2
        size = 2 * half + 1
        cover = inside.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING).mean(axis=(1, 3))
        return slice(top, top + size), slice(left, left + size), cover

    def _outline(self, i: int) -> np.ndarray:
        """Radius of particle i in each of `ANGLES` directions."""
        cosine, sine = self._outlines[i]
        turns = HARMONICS * 2 * np.pi * (np.arange(ANGLES) / ANGLES)[:, None]
        return self.radii_px[i] * np.clip(1 + np.cos(turns) @ cosine + np.sin(turns) @ sine, 0.55, 1.7)

    def _draw_background(self, rng: np.random.Generator) -> np.ndarray:
        shape = (self.height + 2 * PAD_PX, self.width + 2 * PAD_PX)
        y, x = np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij")
        phase = rng.uniform(0, 2 * np.pi, 3)
        waves = [
            np.cos(2 * np.pi * y + phase[0]),
            np.cos(2 * np.pi * x + phase[1]),
            np.cos(2 * np.pi * (x - y) + phase[2]),
        ]
        background = self.background_e * (1 + self.unevenness * sum(waves) / 3)
        return background + self._grain(rng, shape)

    def _grain(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        white = rng.normal(0, 1, shape)
        coarse = np.fft.irfft2(np.fft.rfft2(white) * _gaussian(shape, 1.5), shape)
        return coarse * (self.texture_e / coarse.std())

    @cached_property
    def background_spectrum(self) -> np.ndarray:
        """Half spectrum of the blurred background on the padded canvas."""
        return np.fft.rfft2(self._background) * _gaussian(self._background.shape, self.psf_sigma_px)

    def coverage(self, brightness: np.ndarray | None = None) -> np.ndarray:
        """(H, W) electrons above the background before any blur, with each particle's level times `brightness`."""
        return _crop(self._paint(brightness))

    def labels(self) -> np.ndarray:
        """(H, W) int32, i + 1 where particle i covers at least half of the pixel."""
        canvas = np.zeros(self._background.shape, np.int32)
        for i, (rows, columns, cover) in enumerate(self._patches):
            canvas[rows, columns][cover >= 0.5] = i + 1
        return _crop(canvas)

    def _paint(self, brightness: np.ndarray | None) -> np.ndarray:
        level = self.level_e if brightness is None else self.level_e * np.broadcast_to(brightness, self.count)
        canvas = np.zeros(self._background.shape)
        for e, (rows, columns, cover) in zip(level, self._patches, strict=True):
            canvas[rows, columns] += e * cover
        return canvas

    def mean_e(
        self,
        drift: tuple[float, float] = (0.0, 0.0),
        brightness: np.ndarray | float | None = None,
        blur: float | None = None,
    ) -> np.ndarray:
        """(H, W) float64 expected electrons with the scene moved by `drift` (y, x) pixels.

        `brightness` scales each particle's level; `blur` (px) replaces `psf_sigma_px` for the particles.
        """
        shape = self._background.shape
        spectrum = self.particle_spectrum(brightness, blur) + self.background_spectrum
        if drift[0] or drift[1]:
            spectrum = spectrum * _ramp(shape, drift)
        return np.maximum(_crop(np.fft.irfft2(spectrum, shape)), 0.0)

    def particle_spectrum(self, brightness: np.ndarray | float | None = None, blur: float | None = None) -> np.ndarray:
        """Half spectrum (`rfft2`) of the blurred particles alone on the padded canvas; see `mean_e`."""
        sigma = self.psf_sigma_px if blur is None else blur
        return np.fft.rfft2(self._paint(brightness)) * _gaussian(self.canvas_shape, sigma)

    @property
    def canvas_shape(self) -> tuple[int, int]:
        """The frame with `PAD_PX` around it."""
        return self.height + 2 * PAD_PX, self.width + 2 * PAD_PX

    def expose(self, mean_e: np.ndarray) -> np.ndarray:
        """(H, W) uint16 DN: one noisy exposure of `mean_e`."""
        electrons = self._noise.poisson(mean_e) + self._noise.normal(0, self.read_noise_e, mean_e.shape)
        dn = np.rint(electrons / self.gain_e_per_dn + self.dark_dn)
        return np.clip(dn, 0, 2**self.bit_depth - 1).astype(np.uint16)

    def frame(
        self,
        drift: tuple[float, float] = (0.0, 0.0),
        brightness: np.ndarray | float | None = None,
        blur: float | None = None,
    ) -> np.ndarray:
        """(H, W) uint16 DN: one noisy exposure; see `mean_e`."""
        return self.expose(self.mean_e(drift, brightness, blur))

    def reference(self, frames: int) -> np.ndarray:
        """(H, W) float32 DN: distributed as the mean of `frames` exposures without drift, at the price of one."""
        mean_e = self.mean_e()
        electrons = self._noise.poisson(mean_e * frames) / frames
        spread_e = np.hypot(self.read_noise_e, self.gain_e_per_dn / np.sqrt(12)) / np.sqrt(frames)
        electrons = electrons + self._noise.normal(0, spread_e, mean_e.shape)
        return (electrons / self.gain_e_per_dn + self.dark_dn).astype(np.float32)


def _crop(canvas: np.ndarray) -> np.ndarray:
    return canvas[PAD_PX:-PAD_PX, PAD_PX:-PAD_PX].copy()


def _frequencies(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]


def _gaussian(shape: tuple[int, ...], sigma_px: float) -> np.ndarray:
    fy, fx = _frequencies(shape)
    return np.exp(-2 * (np.pi * sigma_px) ** 2 * (fy**2 + fx**2))


def _ramp(shape: tuple[int, ...], drift: tuple[float, float]) -> np.ndarray:
    fy, fx = _frequencies(shape)
    return np.exp(-2j * np.pi * (fy * drift[0] + fx * drift[1]))


def _leave_room(taken: dict[tuple[int, int], float], rows: slice, columns: slice, cover: np.ndarray) -> None:
    """Cut from `cover` what earlier particles already fill: touching particles share an outline, not pixels."""
    for i, j in np.argwhere(cover > 0):
        pixel = (rows.start + int(i), columns.start + int(j))
        cover[i, j] = min(cover[i, j], 1.0 - taken.get(pixel, 0.0))
        taken[pixel] = taken.get(pixel, 0.0) + cover[i, j]
