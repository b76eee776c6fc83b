"""What each particle looks like at rest: outline, order map, and its stack of blurred parts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.ndimage import shift as shift_image

from hw.twin.cracks import Crack, crack
from hw.twin.sample import BOUND, Sample, stream
from kernels.synth import blur

_OUTLINE = 4  # sub-stream of the seed
CRACK_ROOM_PX = 3  # fragments move by up to 3 px


@dataclass(frozen=True)
class Shape:
    """One particle on its own patch of (h, w) pixels, whose pixel (0, 0) is (top, left) of the frame."""

    top: int
    left: int
    coverage: np.ndarray
    """Share of each pixel that the particle covers, sharp (before blur)."""
    texture: np.ndarray
    """Relative brightness within the particle, mean 1 over `coverage`."""
    order: np.ndarray
    """Order coordinate u of each pixel, 0 where a change begins, 1 where it ends; uniform over the covered area."""
    distance_px: np.ndarray
    """Covered pixels' distance along the order map, rising: from the edge inwards, or along the axis from its start."""
    axial: bool
    """The change crosses along an axis instead of going from the edge inwards."""

    @property
    def area_px(self) -> float:
        """Covered area."""
        return float(self.coverage.sum())

    def front_px(self, u: float) -> float:
        """Where the front at order coordinate `u` is: its depth from the edge, or its way along the axis."""
        place = min(max(u, 0.0), 1.0) * (len(self.distance_px) - 1)
        return float(np.interp(place, np.arange(len(self.distance_px)), self.distance_px))


def blur_taps(sigma_px: float) -> np.ndarray:
    """Normalised Gaussian taps, odd, float32, to four sigma; integrated over each pixel."""
    half = math.ceil(4.0 * sigma_px)
    edges = np.arange(-half - 0.5, half + 1.0)
    steps = np.diff([0.5 * (1.0 + math.erf(edge / (sigma_px * math.sqrt(2.0)))) for edge in edges])
    return np.asarray(steps / steps.sum(), np.float32)


def make_shape(sample: Sample, i: int, psf_sigma_px: float) -> Shape:
    """The outline of particle `i`: a superellipse with facets, fixed by the seed."""
    rng = stream(sample.options.seed, _OUTLINE, i)
    room = math.ceil(BOUND * sample.radius_px[i] + 4.0 * psf_sigma_px) + CRACK_ROOM_PX
    top, left = int(sample.y_px[i]) - room, int(sample.x_px[i]) - room
    y, x = np.mgrid[0 : 2 * room + 2, 0 : 2 * room + 2].astype(float)
    y, x = y + top - sample.y_px[i], x + left - sample.x_px[i]
    coverage = _coverage(rng, y, x, float(sample.radius_px[i]))
    texture = np.exp(0.08 * _smooth_noise(rng, y.shape, 2.0)) * (0.94 + 0.12 * rng.random())
    shade = 1.0 + 0.10 * (y * math.sin(0.7) + x * math.cos(0.7)) / sample.radius_px[i]  # facets tilted to the light
    texture *= shade
    texture /= (texture * coverage).sum() / coverage.sum()
    axial = sample.material.phases is not None and rng.random() < sample.material.wave_fraction
    order, distance = _order(rng, y, x, coverage, axial)
    return Shape(top, left, coverage, texture, order, distance, axial)


def _coverage(rng: np.random.Generator, y: np.ndarray, x: np.ndarray, radius: float) -> np.ndarray:
    """Antialiased coverage of an irregular outline whose area is that of a disc of about `radius`."""
    turn, aspect, power = rng.uniform(0, 2 * math.pi), rng.uniform(1.0, 1.35), rng.uniform(2.0, 3.2)
    angle = np.linspace(0, 2 * math.pi, 361)
    across = np.abs(np.cos(angle) / math.sqrt(aspect)) ** power + np.abs(np.sin(angle) * math.sqrt(aspect)) ** power
    outline = across ** (-1.0 / power)
    for _ in range(rng.integers(2, 5)):  # flat facets, as broken or faceted grains have
        facing = np.cos(angle - rng.uniform(0, 2 * math.pi))
        outline = np.minimum(outline, np.where(facing > 0, rng.uniform(0.78, 1.0) / np.maximum(facing, 1e-3), np.inf))
    for n in (3, 4, 5):
        outline *= 1.0 + rng.uniform(0, 0.05) * np.cos(n * angle + rng.uniform(0, 2 * math.pi))
    area = 0.5 * np.trapezoid(outline**2, angle)
    outline = np.minimum(outline * math.sqrt(math.pi / area), BOUND) * radius
    here = np.mod(np.arctan2(y, x) - turn, 2 * math.pi)
    return np.clip(np.interp(here, angle, outline) - np.hypot(y, x) + 0.5, 0.0, 1.0)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    noise = gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return noise / max(float(noise.std()), 1e-12)


def _order(
    rng: np.random.Generator, y: np.ndarray, x: np.ndarray, coverage: np.ndarray, axial: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(order map, sorted distances of covered pixels): ranks of edge distance or of the way along an axis."""
    inside = coverage > 0.0
    if axial:
        turn = _major_axis(y, x, coverage) + math.pi * rng.integers(0, 2)
        way = x * math.cos(turn) + y * math.sin(turn) + 0.6 * _smooth_noise(rng, x.shape, 3.0)
        way -= way[coverage >= 0.5].min()
        ranked = way
    else:
        way = distance_transform_edt(coverage >= 0.5) - 0.5
        ranked = way + 0.01 * coverage  # the rim's pixels, all equally deep, by how much of them is covered
    order = np.zeros_like(coverage)
    index = np.flatnonzero(inside)
    rank = index[np.argsort(ranked.flat[index], kind="stable")]
    area = np.cumsum(coverage.flat[rank])
    order.flat[rank] = (area - 0.5 * coverage.flat[rank]) / area[-1]
    return order, np.sort(way[coverage >= 0.5])


def _major_axis(y: np.ndarray, x: np.ndarray, weight: np.ndarray) -> float:
    """Angle of the longest axis from +x towards +y, by second moments."""
    total = weight.sum()
    y, x = y - (weight * y).sum() / total, x - (weight * x).sum() / total
    return 0.5 * math.atan2(2 * (weight * x * y).sum(), (weight * (x * x - y * y)).sum())


def part_stack(
    sample: Sample, shape: Shape, i: int, psf_sigma_px: float, count: int, cracks: int, line: float
) -> np.ndarray:
    """(count, h, w) float32: the particle's equal-area parts with texture, broken by its first `cracks`, then blurred.

    Unbroken and unblurred, the parts sum to coverage times texture.
    """
    sharp = shape.coverage * shape.texture
    lower = np.clip(np.floor(shape.order * count), 0, count - 1).astype(int)
    parts = np.zeros((count, *sharp.shape))
    np.put_along_axis(parts, lower[None], sharp[None], axis=0)
    for number in range(1, cracks + 1):
        parts = _broken(parts, sample, shape, i, crack(sample.options.seed, i, number), line)
    taps, scratch = blur_taps(psf_sigma_px), np.empty(sharp.shape, np.float32)
    out = np.empty(parts.shape, np.float32)
    for part, blurred in zip(parts.astype(np.float32), out, strict=True):
        blur(part, taps, scratch, blurred)
    return out


def _broken(parts: np.ndarray, sample: Sample, shape: Shape, i: int, what: Crack, line: float) -> np.ndarray:
    """Shift the fragment beyond the crack's line and darken the line."""
    y, x = np.mgrid[0 : parts.shape[1], 0 : parts.shape[2]].astype(float)
    y, x = y + shape.top - sample.y_px[i], x + shape.left - sample.x_px[i]
    across = x * math.cos(what.angle_rad) + y * math.sin(what.angle_rad) - what.offset * sample.radius_px[i]
    fragment = np.clip(across + 0.5, 0.0, 1.0)
    moved = shift_image(parts * fragment, (0.0, what.shift_y_px, what.shift_x_px), order=1)
    dark = 1.0 - line * what.depth * np.clip(what.width_px / 2 + 0.5 - np.abs(across), 0.0, 1.0)
    return (parts * (1.0 - fragment) + moved) * dark
