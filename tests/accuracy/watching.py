"""Hours of many particles at the level of measures: what a mask's parts would count, without rendering frames.

A dozen particles are rendered once, blurred, on a small patch; how the counts of their parts answer to brightness, a
gradient, a shift, a blur and to light that falls unevenly are sums over that patch. Everything an instrument does is
then a few products an instant, and each part's counts are drawn from Poisson's distribution. Nothing here cracks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from daemon.engine.detector import StepDetector
from daemon.engine.measures import FrameFlag, MaskSet, MeasureBatch
from tests.disturbed import EXPOSURE_RATE_HZ, ornstein_uhlenbeck

KINDS = 12
PITCH_PX = 48
PSF_PX = 1.5
GROW_PX, EDGE_PX = 3.0, 2.0
CELL_PX = 4
PARTICLE_E, BACKGROUND_E = 12_000.0, 6_000.0
BATCH = 50
BASELINE_FRAMES = 100
FEATURES = 14
"""Eighths along the major axis, quarters from the edge inwards, first moments in y and x."""
LEFT_OVER = 0.05
"""Of a jump of focus or drift, by particle, after the engine has taken it off."""


@dataclass(frozen=True)
class Kind:
    """One particle's answers, (FEATURES,) each, e and e px."""

    inside: np.ndarray
    even: np.ndarray
    bowl: np.ndarray
    """Brighter outside than inside, by one in all."""
    shift: np.ndarray
    """(2, FEATURES) a px."""
    blur: np.ndarray
    """A px**2 of variance."""
    cells: np.ndarray
    """(C, FEATURES) even light on particle and background, by squares of the patch."""
    area: np.ndarray
    """(FEATURES,) of the masks."""


def kind(rng: np.random.Generator) -> Kind:
    """A blurred superellipse of 5 to 11 px radius."""
    half = PITCH_PX // 2
    y, x = np.mgrid[-half:half, -half:half] + 0.5
    angle, aspect, power = rng.uniform(0, np.pi), rng.uniform(1.0, 1.4), rng.uniform(1.6, 4.0)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    radius = rng.uniform(5.0, 11.0)
    inside = np.abs(along / aspect) ** power + np.abs(across) ** power < radius**power
    rho2 = np.where(inside, (along / aspect / radius) ** 2 + (across / radius) ** 2, 0.0)
    weights = _weights(inside, along, y, x)
    picture = PARTICLE_E * ndimage.gaussian_filter(inside.astype(float), PSF_PX)
    bowl = PARTICLE_E * ndimage.gaussian_filter(np.where(inside, rho2 - rho2[inside].mean(), 0.0), PSF_PX)
    slopes = np.gradient(picture)
    # under light that falls unevenly a square of the patch answers as one
    count = PITCH_PX // CELL_PX
    lit = weights * (picture + BACKGROUND_E)
    cells = lit.reshape(FEATURES, count, CELL_PX, count, CELL_PX).sum(axis=(2, 4)).reshape(FEATURES, -1).T
    return Kind(
        inside,
        (weights * picture).sum(axis=(1, 2)),
        (weights * bowl).sum(axis=(1, 2)),
        -np.array([(weights * slope).sum(axis=(1, 2)) for slope in slopes]),
        0.5 * (weights * ndimage.laplace(picture)).sum(axis=(1, 2)),
        cells,
        weights.sum(axis=(1, 2)),
    )


def _weights(inside: np.ndarray, along: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(FEATURES, n, n): a soft mask, cut by eighths and quarters of the area; rims belong to the nearest pixel."""
    outside, nearest = ndimage.distance_transform_edt(~inside, return_indices=True)
    mask = np.clip(1.0 - (outside - GROW_PX) / EDGE_PX, 0.0, 1.0)

    def ranked(order: np.ndarray, parts: int) -> np.ndarray:
        rank = np.zeros(inside.shape, int)
        rank[inside] = order[inside].argsort().argsort() * parts // inside.sum()
        return rank[tuple(nearest)]

    eighth, quarter = ranked(along, 8), ranked(ndimage.distance_transform_edt(inside), 4)
    planes = [mask * (eighth == k) for k in range(8)] + [mask * (quarter == k) for k in range(4)]
    return np.stack([*planes, mask * y, mask * x])


@dataclass
class Bubble:
    """A disc with a dark rim: it crosses the field, or grows in it as gas does, for a while, and floats off."""

    begin_s: float
    end_s: float
    at_px: tuple[float, float]
    speed_px_per_s: tuple[float, float]
    radius_px: float
    depth: float
    grows_s: float = 0.0

    def centre_px(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """y and x at some times."""
        gone = np.maximum(t_s - self.begin_s - self.grows_s, 0.0)
        return self.at_px[0] + gone * self.speed_px_per_s[0], self.at_px[1] + gone * self.speed_px_per_s[1]

    def transmission(self, t_s: np.ndarray, y_px: np.ndarray, x_px: np.ndarray) -> np.ndarray:
        """At (N, 1, ...) times and (1, P, ...) places."""
        t, (y, x) = t_s - self.begin_s, self.centre_px(t_s)
        radius = self.radius_px * np.sqrt(np.clip(t / self.grows_s, 0.0, 1.0)) if self.grows_s else self.radius_px
        beyond = np.hypot(y_px - y, x_px - x) - radius
        inside = 1.0 / (1.0 + np.exp(np.clip(beyond / 1.2, -50, 50)))
        shade = self.depth * inside + 0.25 * np.exp(-0.5 * (beyond / 2.0) ** 2)
        return 1.0 - np.where((t >= 0) & (t_s <= self.end_s), shade, 0.0)


@dataclass
class Night:
    """What happens to one field: (F,) a frame, the lost ones left out."""

    frame: np.ndarray
    t_s: np.ndarray
    flags: np.ndarray
    lamp: np.ndarray
    lamp_left: np.ndarray
    """What normalisation leaves of the lamp's steps, relative."""
    exposure: np.ndarray
    """Counts relative to the first."""
    focus: np.ndarray
    blur_left_px2: np.ndarray
    drift_px: np.ndarray
    """(F, 2)"""
    drift_left_px: np.ndarray
    """(F, 2)"""
    progress: np.ndarray
    """Of the cell, 0 to 1."""
    bubbles: list[Bubble] = field(default_factory=list)
    said: list[tuple[float, str]] = field(default_factory=list)
    """Instants at which something happened, and what."""


def night(rng: np.random.Generator, seconds: float, rate_hz: float, field_px: float) -> Night:
    """Everything that an instrument does: each kind about once in two to ten minutes, steps at once."""
    frames = round(seconds * rate_hz)
    t_s = np.arange(frames) / rate_hz
    one = Night(
        np.arange(frames), t_s, np.zeros(frames, np.uint32), 1 + _wander(rng, frames, rate_hz, 1e-3, 60.0),
        np.zeros(frames), np.ones(frames), np.ones(frames), _wander(rng, frames, rate_hz, 2e-3, 120.0),
        np.column_stack([_wander(rng, frames, rate_hz, 0.2, 30.0) for _ in range(2)]),
        np.column_stack([rng.normal(0, 1e-3, frames) + _wander(rng, frames, rate_hz, 2e-3, 30.0) for _ in range(2)]),
        np.abs((t_s / max(seconds, 1.0) * rng.uniform(3, 6) + rng.random()) % 2.0 - 1.0),
    )  # fmt: skip
    step = one.said
    for at, back in _spells(rng, seconds, 240.0, 1.0, 20.0):
        size = rng.choice([-1, 1]) * rng.uniform(0.002, 0.03)
        span = _span(t_s, at, back)
        one.lamp[span] *= 1 + size
        one.lamp_left[span] += size * rng.normal(0, 0.01)
        _mark(one, at, back, FrameFlag.ILLUMINATION_STEP if abs(size) > 0.003 else 0, "lamp")
    for at, back in _spells(rng, seconds, 240.0, 1.0, 30.0):
        blur = rng.choice([-1, 1]) * rng.uniform(0.05, 0.7)
        span = _span(t_s, at, back)
        one.focus[span] *= 1 - 0.3 * blur
        one.blur_left_px2[span] += LEFT_OVER * blur
        _mark(one, at, back, FrameFlag.FOCUS_JUMP if abs(blur) > 0.1 else 0, "focus")
    for at, back in _spells(rng, seconds, 240.0, 1.0, 60.0):
        leap = rng.uniform(0.2, 2.0, 2) * rng.choice([-1, 1], 2)
        span = _span(t_s, at, back)
        one.drift_px[span] += leap
        one.drift_left_px[span] += 0.01 * leap * rng.normal(0, 1, 2)
        _mark(one, at, back, FrameFlag.DRIFT_JUMP if np.hypot(*leap) > 1.0 else 0, "drift")
    for at, back in _spells(rng, seconds, 900.0, 60.0, 400.0):
        span = _span(t_s, at, back)
        one.exposure[span] *= np.exp(rng.uniform(-0.7, 0.7))
        one.lamp_left[span] += rng.normal(0, 3e-4)
        _mark(one, at, back, FrameFlag.ILLUMINATION_STEP, "exposure")
    one.bubbles = [_bubble(rng, at, field_px) for at, _ in _spells(rng, seconds, 150.0, 1.0, 2.0)]
    step += [(bubble.begin_s, "bubble") for bubble in one.bubbles]
    return _lost(one, rng, seconds, rate_hz)


def _wander(rng: np.random.Generator, frames: int, rate_hz: float, rms: float, correlation_s: float) -> np.ndarray:
    return ornstein_uhlenbeck(rng, frames, rms, correlation_s * rate_hz / EXPOSURE_RATE_HZ)


def _spells(
    rng: np.random.Generator, seconds: float, every_s: float, least_s: float, most_s: float
) -> list[tuple[float, float]]:
    """When something begins and ends, about so often, not within the first 20 s."""
    begins = np.sort(rng.uniform(20.0, max(seconds, 20.0), rng.poisson(seconds / every_s)))
    return [(float(at), float(at + rng.uniform(least_s, most_s))) for at in begins]


def _span(t_s: np.ndarray, at: float, back: float) -> slice:
    return slice(*np.searchsorted(t_s, [at, back]).tolist())


def _mark(one: Night, at: float, back: float, flag: int, name: str) -> None:
    for instant in (at, back):
        place = int(np.searchsorted(one.t_s, instant))
        if place < len(one.t_s):
            one.flags[place] |= np.uint32(flag)
            one.said.append((instant, name))


def _bubble(rng: np.random.Generator, at: float, field_px: float) -> Bubble:
    radius, speed = rng.uniform(20, 120), np.exp(rng.uniform(np.log(10.0), np.log(800.0)))
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.2)
    way = np.array([np.sin(angle), np.cos(angle)])
    if rng.random() < 0.3:
        place, grows_s = rng.uniform(0, field_px, 2), rng.uniform(2.0, 60.0)
        end = at + grows_s + min(field_px / speed, 120.0)
        return Bubble(at, end, (place[0], place[1]), (way[0] * speed, way[1] * speed), radius, depth, grows_s)
    begin = field_px / 2 + rng.uniform(-0.4, 0.4) * field_px * way[::-1] - (0.75 * field_px + radius) * way
    end = at + min((1.5 * field_px + 2 * radius) / speed, 120.0)
    return Bubble(at, end, (begin[0], begin[1]), (way[0] * speed, way[1] * speed), radius, depth)


def _lost(one: Night, rng: np.random.Generator, seconds: float, rate_hz: float) -> Night:
    """Without the frames that were lost: 3 to 40 in a row once a minute, or for seconds now and then."""
    kept = np.ones(len(one.t_s), bool)
    for at, back in _spells(rng, seconds, 60.0, 3 / rate_hz, 40 / rate_hz) + _spells(rng, seconds, 1200.0, 2.0, 60.0):
        kept[_span(one.t_s, at, back)] = False
        one.said.append((at, "lost"))
    kept[: BASELINE_FRAMES + 1] = True
    one.flags[1:][kept[1:] & ~kept[:-1]] |= np.uint32(FrameFlag.GAP_BEFORE)
    for name in (
        "frame", "t_s", "flags", "lamp", "lamp_left", "exposure", "focus", "blur_left_px2", "drift_px",
        "drift_left_px", "progress",
    ):  # fmt: skip
        setattr(one, name, getattr(one, name)[kept])
    return one


class Field:
    """`particles` particles of a dozen kinds on a grid, and their measures through a night."""

    def __init__(self, seed: int, particles: int, seconds: float, rate_hz: float) -> None:
        rng = np.random.default_rng([seed, 91, round(10 * rate_hz)])
        self._rate_hz, self._count = rate_hz, particles
        self._kinds = [kind(rng) for _ in range(KINDS)]
        self._which = np.arange(particles) % KINDS
        side = int(np.ceil(np.sqrt(particles)))
        place = np.arange(particles)
        self.y_px, self.x_px = PITCH_PX * (place // side + 0.5), PITCH_PX * (place % side + 0.5)
        self.side_px = float(PITCH_PX * side)
        self._noise = np.random.Generator(np.random.SFC64([seed, 92]))
        self._swing = rng.uniform(0.06, 0.25, particles) * rng.choice([-1.0, 1.0])
        self._lag, self._steep = rng.uniform(-0.2, 0.2, particles), rng.uniform(3.0, 12.0, particles)
        self._bent = rng.normal(0, 0.1, particles)
        self._own = rng.standard_normal((particles, 3))
        self.night = night(rng, seconds, rate_hz, self.side_px)

    @property
    def masks(self) -> MaskSet:
        """Outlines as the product would have found them."""
        side = int(self.side_px) // PITCH_PX
        labels = np.zeros((side * PITCH_PX, side * PITCH_PX), np.int32)
        for index in range(self._count):
            row, column = divmod(index, side)
            window = (slice(row * PITCH_PX, (row + 1) * PITCH_PX), slice(column * PITCH_PX, (column + 1) * PITCH_PX))
            labels[window][self._kinds[self._which[index]].inside] = index + 1
        area = np.array([one.inside.sum() for one in self._kinds], float)[self._which]
        identity = np.arange(1, self._count + 1)
        return MaskSet(labels, identity, self.y_px - 0.5, self.x_px - 0.5, {"area_px": area}, PSF_PX, None)

    @property
    def hours(self) -> float:
        """Particle-hours that are watched; lost frames are not."""
        return len(self.night.t_s) / self._rate_hz * self._count / 3600.0

    def measured(self) -> Iterator[MeasureBatch]:
        """Batches as an engine would send them, with what its detector sees."""
        detector = StepDetector(self._count, self._rate_hz, 1.0)
        baseline = np.zeros((self._count, FEATURES))
        for first in range(0, len(self.night.t_s), BATCH):
            now = slice(first, min(first + BATCH, len(self.night.t_s)))
            parts, sigma = self._counted(now)
            batch = self._batch(now, parts, sigma)
            if now.stop <= BASELINE_FRAMES:
                baseline += parts.sum(axis=0) / BASELINE_FRAMES
            if now.stop >= BASELINE_FRAMES:
                batch.baseline_flux_e = baseline[:, :8].sum(axis=1)
                batch.baseline_layer_flux_e = baseline[:, 8:12]
            if now.start >= BASELINE_FRAMES:
                f0 = batch.baseline_flux_e
                batch.detections = detector.add(
                    batch.frame, batch.flux_e / f0 - 1, batch.flux_sigma_e / f0, batch.particle_flags, batch.t_s
                )
            yield batch

    def _of_kind(self, name: str) -> np.ndarray:
        return np.stack([getattr(one, name) for one in self._kinds])[self._which]

    def _expected(self, now: slice) -> tuple[np.ndarray, np.ndarray]:
        """(N, P, FEATURES) electrons that fall on the masks' parts, and those that their rings say are background."""
        one, own = self.night, self._own
        charge = 1 / (1 + np.exp(-self._steep * (one.progress[now][:, None] - 0.5 - self._lag)))
        level = (1 + self._swing * charge) * (1 + one.lamp_left[now][:, None])
        even, bowl, shift, blur = (self._of_kind(name) for name in ("even", "bowl", "shift", "blur"))
        signal = even * level[:, :, None]
        signal += bowl * (self._swing * self._bent * 4 * charge * (1 - charge))[:, :, None]
        left = one.drift_left_px[now]
        for axis in range(2):
            signal += shift[:, axis] * (left[:, axis, None] * (1 + LEFT_OVER * own[:, axis]) * level)[:, :, None]
        signal += blur * (one.blur_left_px2[now][:, None] * own[:, 2] * level)[:, :, None]
        ground = np.broadcast_to(BACKGROUND_E * self._of_kind("area"), signal.shape).copy()
        signal += ground
        for bubble in one.bubbles:
            self._shade(bubble, one.t_s[now], signal, ground, level)
        return signal, ground

    def _shade(
        self, bubble: Bubble, t_s: np.ndarray, signal: np.ndarray, ground: np.ndarray, level: np.ndarray
    ) -> None:
        """What a bubble takes away of particles and of their rings; every other ring is followed a third of a second
        late.
        """
        if t_s[-1] < bubble.begin_s or t_s[0] > bubble.end_s + 1.0:
            return
        moved = np.column_stack(bubble.centre_px(t_s))
        low, high = moved.min(axis=0) - bubble.radius_px - 40, moved.max(axis=0) + bubble.radius_px + 40
        y, x = self.y_px, self.x_px
        near = np.flatnonzero((y > low[0]) & (y < high[0]) & (x > low[1]) & (x < high[1]))
        if not len(near):
            return
        squares = CELL_PX * (np.arange(PITCH_PX // CELL_PX) + 0.5) - PITCH_PX / 2
        dy, dx = (axis.ravel() for axis in np.meshgrid(squares, squares, indexing="ij"))
        light = bubble.transmission(t_s[:, None, None], y[near, None] + dy, x[near, None] + dx) - 1.0
        cells = self._of_kind("cells")[near]
        signal[:, near] += np.einsum("npc,pcf->npf", light, cells, optimize=True) * level[:, near, None]
        turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        late = (0.3 * (near % 2))[:, None]
        around = bubble.transmission(
            t_s[:, None, None] - late, y[near, None] + 19 * np.sin(turn), x[near, None] + 19 * np.cos(turn)
        )
        ground[:, near] *= around.mean(axis=2)[:, :, None]

    def _counted(self, now: slice) -> tuple[np.ndarray, np.ndarray]:
        """(N, P, FEATURES) what is measured of the particles, and (N, P) its sigma."""
        signal, ground = self._expected(now)
        scale = self.night.exposure[now][:, None, None]
        seen = np.maximum(signal[:, :, :12] * scale, 0.0)
        drawn = self._noise.poisson(seen) / scale - signal[:, :, :12]
        pixels = self._of_kind("area")[:, :8].sum(axis=1)
        ring = self._noise.standard_normal(signal.shape[:2]) * np.sqrt(BACKGROUND_E / scale[:, :, 0] / 600.0)
        out = signal - ground - ring[:, :, None] * self._of_kind("area")
        out[:, :, :12] += drawn
        # moments see the noise of the eighths where these lie
        arm = np.linspace(-0.7, 0.7, 8) * np.sqrt(pixels / np.pi)[:, None]
        out[:, :, 12] += (drawn[:, :, :8] * arm).sum(axis=2)
        out[:, :, 13] += (drawn[:, :, 7::-1] * arm).sum(axis=2)
        variance = signal[:, :, :8].sum(axis=2) / scale[:, :, 0]
        return out, np.sqrt(variance + pixels**2 * BACKGROUND_E / scale[:, :, 0] / 600.0)

    def _batch(self, now: slice, parts: np.ndarray, sigma: np.ndarray) -> MeasureBatch:
        one, flux = self.night, parts[:, :, :8].sum(axis=2)
        shape = flux.shape
        return MeasureBatch(
            frame=np.arange(now.start, now.stop), block_id=one.frame[now], t_s=one.t_s[now], host_t_s=one.t_s[now],
            drift_y_px=one.drift_px[now, 0], drift_x_px=one.drift_px[now, 1], drift_sigma_px=np.full(shape[0], 1e-3),
            illumination=one.lamp[now] * one.exposure[now], focus=one.focus[now], flags=one.flags[now], flux_e=flux,
            flux_sigma_e=sigma, layer_flux_e=parts[:, :, 8:12],
            layer_sigma_e=np.repeat(sigma[:, :, None] / 2, 4, axis=2),
            centroid_y_px=parts[:, :, 12] / flux, centroid_x_px=parts[:, :, 13] / flux,
            particle_flags=np.zeros(shape, np.uint16), axial_flux_e=parts[:, :, :8],
        )  # fmt: skip
