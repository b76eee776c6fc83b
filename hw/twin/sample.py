"""The sample: where its particles lie, how large and how quick they are. All of it follows from options and seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from hw.twin.materials import Material, material
from hw.twin.settings import SampleOptions

GAP_PX = 3.0  # particles nearer than this blur into one
MARGIN_PX = 10.0
DENSEST = 0.78  # of the area: beyond, discs of many sizes do not settle in any reasonable time
ATTEMPTS, PUSHES = 8, 800
BOUND = 1.2  # outlines stay inside this many radii
_PLACES, _KINETICS, _KINDS = 1, 2, 3  # sub-streams of the seed


class CrowdedError(ValueError):
    """The particles asked for do not fit in the frame."""


@dataclass(frozen=True)
class Sample:
    """Arrays are (P,); particle i keeps its index everywhere."""

    options: SampleOptions
    material: Material
    y_px: np.ndarray
    x_px: np.ndarray
    radius_px: np.ndarray
    k_hz: np.ndarray
    """Rate constants, 0 for the dead."""
    resistance_s: np.ndarray
    diffusion_s: np.ndarray
    """R^2 / D; 0 without a gradient."""
    hazard_hz: np.ndarray
    """Crack hazard at unit inner contrast."""
    weight: np.ndarray
    """Share of the cell's capacity; the dead have none."""
    dead: np.ndarray
    folded: np.ndarray
    crack_threshold: np.ndarray
    """Accumulated hazard at which the first crack comes."""

    @property
    def count(self) -> int:
        """Number of particles."""
        return len(self.y_px)


def stream(seed: int, *path: int) -> np.random.Generator:
    """An independent generator for each `path` under one seed."""
    return np.random.default_rng([seed, *path])


def make_sample(options: SampleOptions) -> Sample:
    """The sample of these options. Raises `CrowdedError` when the particles do not fit."""
    stuff = material(options.material)
    rng = stream(options.seed, _PLACES)
    radius, y, x = _layout(rng, options)
    dead, folded = _kinds(options)
    rng = stream(options.seed, _KINETICS)
    spread = options.kinetics_sigma * rng.standard_normal(options.particles)
    spread += options.kinetics_field_sigma * _random_field(rng, options, y, x)
    k_hz = (options.rate_per_h or stuff.rate_per_h) / 3600.0 * np.exp(spread)
    relative = radius / np.median(radius)
    radius_m = radius * options.pixel_size_nm * 1e-9
    weight = np.where(dead, 0.0, radius**3)
    return Sample(
        options=options,
        material=stuff,
        y_px=y,
        x_px=x,
        radius_px=radius,
        k_hz=np.where(dead, 0.0, k_hz),
        resistance_s=20.0 * np.exp(0.5 * rng.standard_normal(options.particles)),  # below 1/k: a spread, no limit
        diffusion_s=radius_m**2 / stuff.diffusivity_m2_s if stuff.diffusivity_m2_s else np.zeros(options.particles),
        hazard_hz=options.cracks_per_h / 3600.0 / 5.0 / 0.05**2 * relative**2,  # large ones first
        weight=weight / max(weight.sum(), 1e-300),
        dead=dead,
        folded=folded,
        crack_threshold=rng.exponential(size=options.particles),
    )


def _radii(rng: np.random.Generator, options: SampleOptions) -> np.ndarray:
    """Largest first; the tails of the lognormal beyond 2.3 sigma are cut: no single particle fills the view."""
    normal = np.clip(rng.standard_normal(options.particles), -2.3, 2.3)
    radius_um = options.radius_um * np.exp(options.radius_sigma * normal)
    return np.sort(radius_um * 1000.0 / options.pixel_size_nm)[::-1]


def _kinds(options: SampleOptions) -> tuple[np.ndarray, np.ndarray]:
    """(dead, folded): exactly the fractions asked for, nobody both, at least one alive."""
    order = stream(options.seed, _KINDS).permutation(options.particles)
    dead_count = min(round(options.dead_fraction * options.particles), options.particles - 1)
    folded_count = min(round(options.folded_fraction * options.particles), options.particles - dead_count)
    dead, folded = np.zeros((2, options.particles), bool)
    dead[order[:dead_count]] = True
    folded[order[dead_count : dead_count + folded_count]] = True
    return dead, folded


def _layout(rng: np.random.Generator, options: SampleOptions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(radii, y, x), pixels, such that outlines keep `GAP_PX` apart and `MARGIN_PX` inside the frame."""
    size = np.array([[options.height_px], [options.width_px]])
    for _ in range(ATTEMPTS):
        radius = _radii(rng, options)
        bound = BOUND * radius
        low = bound + MARGIN_PX
        high = size - 1.0 - low
        covered = np.pi * np.sum((bound + GAP_PX / 2) ** 2) / np.prod(size - 2 * MARGIN_PX)
        if (high <= low).any() or covered > DENSEST:
            continue
        place = _spread_out(_throw(rng, bound, low, high), bound, low, high)
        if place is not None:
            return radius, place[0], place[1]
    raise CrowdedError(f"{options.particles} particles do not fit in the frame; ask for fewer or for smaller ones")


def _throw(rng: np.random.Generator, bound: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Darts, largest disc first, thrown again where they would overlap: the look of a Poisson-disc pattern."""
    place = low + rng.random((2, len(bound))) * (high - low)
    for i in range(1, len(bound)):
        for _ in range(30):
            near = np.hypot(*(place[:, :i] - place[:, i : i + 1])) - bound[:i] - bound[i] - GAP_PX
            if near.min() >= 0:
                break
            place[:, i] = low[i] + rng.random(2) * (high[:, i] - low[i])
    return place


def _spread_out(place: np.ndarray, bound: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """`place` with overlapping discs pushed apart until none overlap; None when they do not come to rest."""
    reach = 2 * bound.max() + GAP_PX
    for _ in range(PUSHES):
        pairs = cKDTree(place.T).query_pairs(reach, output_type="ndarray")
        first, second = pairs[:, 0], pairs[:, 1]
        between = place[:, second] - place[:, first]
        distance = np.maximum(np.hypot(*between), 1e-9)
        overlap = bound[first] + bound[second] + GAP_PX - distance
        if not (overlap > 0).any():
            return place
        push = np.where(overlap > 0, 0.33 * overlap + 0.03, 0.0) * between / distance
        for axis in (0, 1):
            np.add.at(place[axis], second, push[axis])
            np.subtract.at(place[axis], first, push[axis])
        place = np.clip(place, low, high)
    return None


def _random_field(rng: np.random.Generator, options: SampleOptions, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Unit Gaussian random field at the centres (random Fourier features)."""
    length_px = 15_000.0 / options.pixel_size_nm
    waves = rng.standard_normal((2, 256)) / length_px
    phase = rng.random(256) * 2 * np.pi
    return np.sqrt(2 / 256) * np.cos(np.outer(y, waves[0]) + np.outer(x, waves[1]) + phase).sum(axis=1)
