"""Particles that crack, pixel by pixel: fragments that part and move, a dark line between them, true Poisson noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from daemon.engine.measures import MeasureBatch
from tests.accuracy.subject import Subject
from tests.disturbed import Exposer, ornstein_uhlenbeck
from tests.scenes import PAD_PX, SUPERSAMPLING, PoissonScene

RATE_HZ = 50.0
HEIGHT, WIDTH, PARTICLES = 200, 260, 14
FINE = SUPERSAMPLING
CRACK, AVALANCHE, WHOLE = "crack", "avalanche", "step"
APART_FRAMES = 4
"""For an eighth of a pixel, by which fragments move apart."""


@dataclass
class Change:
    """What one particle does at one instant."""

    index: int
    frame: int
    kind: str
    size: float
    """Of the particle's brightness."""
    faded_frame: int | None = None
    """When a crack's line has faded."""
    cut: bool = False
    """Whether one fragment follows the cell no more."""
    apart_px: float = 0.0
    """How far a crack's fragments go on moving apart."""


@dataclass
class Bubble:
    """A disc with a dark rim that crosses the field."""

    frame: int
    radius_px: float
    y_px: float
    x_px: float
    speed_px: tuple[float, float]
    """A frame, y and x."""
    depth: float

    def shade(self, frame: int) -> np.ndarray | None:
        """(H, W) transmission, None when it is not in the field."""
        t = frame - self.frame
        y, x = self.y_px + t * self.speed_px[0], self.x_px + t * self.speed_px[1]
        reach = self.radius_px + 8
        if t < 0 or not (-reach < y < HEIGHT + reach and -reach < x < WIDTH + reach):
            return None
        r = np.hypot(np.arange(HEIGHT)[:, None] - y, np.arange(WIDTH) - x)
        inside = 1.0 / (1.0 + np.exp((r - self.radius_px) / 1.2))
        return 1.0 - self.depth * inside - 0.25 * np.exp(-0.5 * ((r - self.radius_px) / 2.0) ** 2)


@dataclass
class Script:
    """All that happens in one scene."""

    changes: list[Change]
    bubbles: list[Bubble] = field(default_factory=list)
    focus: dict[int, float] = field(default_factory=dict)
    """Blur variance (px**2) from that frame on."""
    lamp: dict[int, float] = field(default_factory=dict)
    drift: dict[int, tuple[float, float]] = field(default_factory=dict)
    lost: list[tuple[int, int]] = field(default_factory=list)
    """First frame lost, and how many."""


class Body:
    """One particle on a fine grid, before and after what its script says."""

    def __init__(self, scene: PoissonScene, index: int, changes: list[Change], rng: np.random.Generator) -> None:
        self.rows, self.columns, self._whole, self._dy, self._dx = _inside(scene, index)
        self._radius = float(scene.radii_px[index])
        self._forms = [(0, self._pixels(self._whole.astype(float)), None)]
        self._cut_from: int | None = None
        for change in changes:
            self._add(change, rng)

    def form(self, frame: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Coverage of pixels at that frame (all of it, or what still follows the cell and what does not)."""
        _, live, dead = [form for form in self._forms if form[0] <= frame][-1]
        return live, dead

    def _pixels(self, fine: np.ndarray) -> np.ndarray:
        n = len(fine) // FINE
        return fine.reshape(n, FINE, n, FINE).mean(axis=(1, 3))

    def _add(self, change: Change, rng: np.random.Generator) -> None:
        angle = rng.uniform(0, np.pi)
        along = self._dy * np.sin(angle) + self._dx * np.cos(angle)
        _, before, _ = self._forms[-1]
        if change.kind == WHOLE:
            self._forms.append((change.frame, before * (1 + change.size), None))
        elif change.kind == AVALANCHE:
            self._forms.append((change.frame, self._slab(change.size, along, before, rng), None))
        else:
            self._crack(change, along, angle, before, rng)

    def _slab(self, size: float, along: np.ndarray, before: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A domain between two lines, a tenth to a third of the area, that turns by what makes up `size`."""
        share = max(rng.uniform(0.1, 0.35), min(abs(size) / 0.5, 0.6))
        start = rng.uniform(0, 1 - share)
        low, high = np.quantile(along[self._whole], [start, start + share])
        domain = self._pixels((self._whole & (along >= low) & (along < high)).astype(float))
        return before * (1 + size * before.sum() / (before * domain).sum() * domain)

    def _crack(
        self, change: Change, along: np.ndarray, angle: float, before: np.ndarray, rng: np.random.Generator
    ) -> None:
        offset, width = rng.uniform(-0.4, 0.4) * self._radius, rng.uniform(1.0, 2.0)
        line = self._whole & (np.abs(along - offset) < width / 2)
        total = float(self._whole.sum())
        depth = min(rng.uniform(0.4, 0.95), 0.8 * -change.size * total / max(line.sum(), 1))
        move = rng.uniform(0.2, 1.0) * FINE
        turn = angle + rng.uniform(-0.5, 0.5)
        shift = (round(move * np.sin(turn)), round(move * np.cos(turn)))
        light = self._whole - depth * line
        pieces = [light * (along < offset), light * (along >= offset)]
        scale = (1 + change.size) * total / light.sum()
        pieces[1] = np.roll(pieces[1], shift, axis=(0, 1))
        gone = int(rng.integers(0, 2))
        live, dead = (self._pixels(scale * pieces[1 - gone]), self._pixels(scale * pieces[gone]))
        now = (live, dead) if change.cut else (live + dead, None)
        self._forms.append((change.frame, *now))
        self._apart(change, pieces, turn, scale, gone)
        if change.faded_frame is not None:
            whole = [self._whole * (along < offset), np.roll(self._whole * (along >= offset), shift, axis=(0, 1))]
            live, dead = (self._pixels(1.0 * whole[1 - gone]), self._pixels(1.0 * whole[gone]))
            self._forms.append((change.faded_frame, *((live, dead) if change.cut else (live + dead, None))))

    def _apart(self, change: Change, pieces: list[np.ndarray], turn: float, scale: float, gone: int) -> None:
        """One fragment, moved on along `turn` little by little."""
        for k in range(1, round(change.apart_px * FINE) + 1):
            moved = np.roll(pieces[1], (round(k * np.sin(turn)), round(k * np.cos(turn))), axis=(0, 1))
            live, dead = (self._pixels(scale * (moved if side else pieces[0])) for side in (1 - gone, gone))
            now = (live, dead) if change.cut else (live + dead, None)
            self._forms.append((change.frame + k * APART_FRAMES, *now))


def _inside(scene: PoissonScene, index: int) -> tuple[slice, slice, np.ndarray, np.ndarray, np.ndarray]:
    half = int(np.ceil(1.9 * scene.radii_px[index])) + 4
    cy, cx = scene.y_px[index] + PAD_PX, scene.x_px[index] + PAD_PX
    top, left, size = round(cy) - half, round(cx) - half, 2 * half + 1
    fine = (np.arange(size * FINE) + 0.5) / FINE - 0.5
    dy, dx = np.meshgrid(fine + top - cy, fine + left - cx, indexing="ij")
    whole = dy**2 + (dx / rng_aspect(scene, index)) ** 2 < scene.radii_px[index] ** 2
    return slice(top, top + size), slice(left, left + size), whole, dy, dx


def rng_aspect(scene: PoissonScene, index: int) -> float:
    """Aspect ratios from 1 to 1.4, by particle."""
    return 1.0 + 0.4 * ((index * 0.618) % 1.0)


class Theatre:
    """A scene whose particles follow a script, measured by the product's pipeline."""

    def __init__(self, seed: int, script: Script, frames: int, swing: float = 0.1) -> None:
        rng = np.random.default_rng([seed, 51])
        self.scene = PoissonScene(
            seed=seed, height=HEIGHT, width=WIDTH, particles=PARTICLES, radius_px=(6.0, 12.0), irregularity=0.0,
            gap_px=12.0,
        )  # fmt: skip
        self.script, self.frames = script, frames
        own = [[c for c in script.changes if c.index == i] for i in range(PARTICLES)]
        self._bodies = [Body(self.scene, i, own[i], rng) for i in range(PARTICLES)]
        self.glow = np.ones(PARTICLES)
        """Factor of all of a particle's light."""
        self._swing, self._rate = swing, rng.uniform(0.6, 1.4, PARTICLES)
        pace = round(RATE_HZ)
        wander = [ornstein_uhlenbeck(rng, frames, 0.1, 30.0 * pace / 100) for _ in range(2)]
        self._drift = np.column_stack(wander) - [wander[0][0], wander[1][0]]
        self._lamp = 1 + ornstein_uhlenbeck(rng, frames, 1e-3, 60.0)
        fy, fx = np.fft.fftfreq(HEIGHT + 2 * PAD_PX)[:, None], np.fft.rfftfreq(WIDTH + 2 * PAD_PX)
        self._fy, self._fx = fy, fx
        self.subject = Subject(self.scene, first_e=self.mean_e(0, at_rest=True))

    def progress(self, frame: int) -> float:
        """Of the ensemble: out and back again."""
        half = self.frames / 2
        return 1 - abs(frame - half) / half

    def brightness(self, index: int, frame: int) -> float:
        """Factor of what follows the cell."""
        return 1 + self._swing * self._rate[index] * self.progress(frame)

    def drift_px(self, frame: int) -> np.ndarray:
        """(2,) how far the scene has drifted, y and x."""
        return self._drift[frame] + self._latest(self.script.drift, frame, (0.0, 0.0))

    def pieces(self, index: int, frame: int) -> tuple[np.ndarray, np.ndarray | None]:
        """(H, W) light of a particle where it has drifted to, relative and not blurred: what follows the cell, and what
        does not.
        """
        body = self._bodies[index]
        parts = [self._placed(body, part, frame) for part in body.form(frame) if part is not None]
        return parts[0], parts[1] if len(parts) > 1 else None

    def _placed(self, body: Body, part: np.ndarray, frame: int) -> np.ndarray:
        canvas = np.zeros((HEIGHT + 2 * PAD_PX, WIDTH + 2 * PAD_PX))
        canvas[body.rows, body.columns] = part
        return ndimage.shift(canvas, self.drift_px(frame), order=1)[PAD_PX:-PAD_PX, PAD_PX:-PAD_PX]

    def mean_e(self, frame: int, at_rest: bool = False) -> np.ndarray:
        """(H, W) expected electrons."""
        canvas = np.zeros((HEIGHT + 2 * PAD_PX, WIDTH + 2 * PAD_PX))
        for i, body in enumerate(self._bodies):
            live, dead = body.form(frame)
            light = live * self.brightness(i, frame)
            if dead is not None:
                light = light + dead * self.brightness(i, self._frozen(i))
            canvas[body.rows, body.columns] += self.glow[i] * self.scene.level_e[i] * light
        drift = (0.0, 0.0) if at_rest else self.drift_px(frame)
        blur = self.scene.psf_sigma_px**2 + self._latest(self.script.focus, frame, 0.0)
        spectrum = np.fft.rfft2(canvas) * np.exp(-2 * np.pi**2 * blur * (self._fy**2 + self._fx**2))
        spectrum = (spectrum + self.scene.background_spectrum) * np.exp(
            -2j * np.pi * (self._fy * drift[0] + self._fx * drift[1])
        )
        mean = np.fft.irfft2(spectrum, canvas.shape)[PAD_PX:-PAD_PX, PAD_PX:-PAD_PX]
        for bubble in self.script.bubbles:
            shade = bubble.shade(frame)
            mean = mean if shade is None else mean * shade
        lamp = 1.0 if at_rest else self._lamp[frame] * self._latest(self.script.lamp, frame, 1.0)
        return lamp * np.maximum(mean, 0.0)

    def _frozen(self, index: int) -> int:
        return next(c.frame for c in self.script.changes if c.index == index and c.cut)

    @staticmethod
    def _latest(known: dict, frame: int, default):
        before = [start for start in known if start <= frame]
        return np.asarray(known[max(before)]) if before else np.asarray(default)

    def shots(self) -> Iterator[tuple[int, np.ndarray]]:
        """Frames that were not lost: number and (H, W) DN."""
        expose: Exposer = self.subject.expose
        for frame in range(self.frames):
            if not any(first <= frame < first + count for first, count in self.script.lost):
                yield frame, expose(self.mean_e(frame))

    def measured(self) -> list[MeasureBatch]:
        """All of it through the pipeline."""
        from daemon.engine.pipeline import Pipeline, PipelineSettings
        from hw.camera.contract import FrameStamp

        pipeline = Pipeline(self.subject.operator, PipelineSettings(12, RATE_HZ, 1.0))
        out = []
        for frame, dn in self.shots():
            pipeline.add(dn, FrameStamp(frame, frame / RATE_HZ, frame / RATE_HZ))
            if len(pipeline) == 5 and (batch := pipeline.take()) is not None:
                out.append(batch)
        batch = pipeline.take()
        return [*out, batch] if batch is not None else out
