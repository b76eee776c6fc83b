"""The scene under the microscope: each particle's parts as small blurred images, summed with the light they give."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from hw.twin.electrode import ParticleState, rich_fraction
from hw.twin.sample import Sample, stream
from hw.twin.settings import OpticsOptions
from hw.twin.shapes import CRACK_ROOM_PX, make_shape, part_stack
from kernels import synth

PAD_PX = 24  # scene beyond the frame: the largest drift and the widest taps
SOLID_PARTS, FRONT_PARTS = 8, 16  # a smooth profile needs few parts, a front many
BUDGET = 120  # particles drawn anew in one frame: most of them every second frame, and under 2 ms
REFRESH_FRAMES = 100_000  # rounding of the running sum stays below 1e-4 of a DN until the scene is summed anew
RESPONSE = 256
LINE_STEP = 0.05  # a fading crack is drawn anew when its line changed by this
FAINT = 1e-4  # of a part's brightness: cut off beyond
_LIGHT, _FILM = 31, 33  # sub-streams of the seed


class Scene:
    """Electrons a pixel of sample and background at nominal exposure and even light; drawn by the constructor."""

    def __init__(self, sample: Sample, options: OpticsOptions) -> None:
        self.sample, self._options = sample, options
        self.parts = SOLID_PARTS if sample.material.phases is None else FRONT_PARTS
        self.shapes = [make_shape(sample, i, options.psf_sigma_px) for i in range(sample.count)]
        rng = stream(sample.options.seed, _LIGHT)
        self.brightness_e = options.particle_e * rng.uniform(0.86, 1.14, sample.count)
        """(P,) electrons a covered pixel of each discharged particle adds."""
        self.response = optical_response(sample)
        self._empty = _background(rng, sample, options)
        self._tolerance_e = options.patch_tolerance_dn * options.gain_e_per_dn
        self._cut_sprites()
        self._cracks, self._lines, self._gains = np.zeros((3, sample.count))
        self._gains[:] = 1.0
        self.crack_changes: dict[int, float] = {}
        """Relative change of the flux of each particle that cracked in the last `show`, or whose line closed."""
        self._shown, self._light, self._contents = np.zeros((3, sample.count, self.parts), np.float32)
        self.image = self._empty.copy()
        """(H + 2 PAD_PX, W + 2 PAD_PX) float32."""
        self._next, self._frames = 0, 0

    # -- sprites ------------------------------------------------------------

    def _cut_sprites(self) -> None:
        """Every part's image, cut to what is not dark, in one flat array with room to grow by a crack's shift."""
        stacks = [self._draw(i, 0, 0.0) for i in range(self.sample.count)]
        box = np.array([[_bounds(part) for part in stack] for stack in stacks])
        room = 2 * CRACK_ROOM_PX
        sizes = (box[..., 1] - box[..., 0] + room) * (box[..., 3] - box[..., 2] + room)
        self._start = np.concatenate([[0], np.cumsum(sizes)[:-1]]).reshape(sizes.shape)
        self._images = np.zeros(int(sizes.sum()), np.float32)
        self._sums = np.zeros(sizes.shape)
        self._top, self._left, self._height, self._width = np.zeros((4, *sizes.shape), np.int64)
        for i, stack in enumerate(stacks):
            self._place(i, stack)

    def _draw(self, i: int, cracks: int, line: float) -> np.ndarray:
        return part_stack(self.sample, self.shapes[i], i, self._options.psf_sigma_px, self.parts, cracks, line)

    def _place(self, i: int, stack: np.ndarray) -> None:
        """Put the parts of particle `i` into the flat array."""
        for k, part in enumerate(stack):
            y0, y1, x0, x1 = _bounds(part)
            start = self._start[i, k]
            self._top[i, k], self._left[i, k] = self.shapes[i].top + PAD_PX + y0, self.shapes[i].left + PAD_PX + x0
            self._height[i, k], self._width[i, k] = y1 - y0, x1 - x0
            self._images[start : start + (y1 - y0) * (x1 - x0)] = part[y0:y1, x0:x1].ravel()
            self._sums[i, k] = self._sprite(i, k).sum(dtype=float)

    def _sprite(self, i: int, k: int) -> np.ndarray:
        tall, wide, start = int(self._height[i, k]), int(self._width[i, k]), int(self._start[i, k])
        return self._images[start : start + tall * wide].reshape(tall, wide)

    # -- light ------------------------------------------------------------

    def part_contents(self, state: ParticleState) -> np.ndarray:
        """(P, parts) lithium content of each part, from u = 0; valid until the next call."""
        poor, rich = self.sample.material.phases or (0.0, 1.0)
        fraction = rich_fraction(self.sample, state.c)
        single = (fraction == 0.0) | (fraction == 1.0)  # one phase only, of the particle's own content
        low, high = np.where(single, state.c, poor), np.where(single, state.c, rich)
        synth.part_contents(state.c, state.c_surface, fraction, low, high, state.invader, self._contents)
        return self._contents

    def part_light_e(self, state: ParticleState) -> np.ndarray:
        """(P, parts) electrons a fully covered pixel of each part adds; valid until the next call."""
        synth.part_light(self.part_contents(state), self.response, self.brightness_e * state.step_gain, self._light)
        return self._light

    def show(self, state: ParticleState, budget: int = BUDGET) -> None:
        """Bring `image` up to `state`: at most `budget` particles, and all that cracked."""
        self._recrack(state)
        light = self.part_light_e(state)
        self._frames += 1
        if self._frames % REFRESH_FRAMES == 0:
            self.image[:] = self._empty
            self._shown[:] = 0.0
            budget = self.sample.count
        self._next = synth.relight(
            self.image, self._images, self._start, self._top, self._left, self._height, self._width, light,
            self._shown, np.float32(self._tolerance_e), self._next, budget,
        )  # fmt: skip

    def _recrack(self, state: ParticleState) -> None:
        changed = (state.crack_count != self._cracks) | (np.abs(state.line - self._lines) >= LINE_STEP)
        changed |= (state.line != self._lines) & (state.line == 0)
        self.crack_changes.clear()
        for i in map(int, np.flatnonzero(changed)):
            before = self._gains[i] * self._sums[i]
            self._add_particle(i, -1.0)
            self._place(i, self._draw(i, int(state.crack_count[i]), float(state.line[i])))
            self._add_particle(i, 1.0)
            self._cracks[i], self._lines[i], self._gains[i] = state.crack_count[i], state.line[i], state.step_gain[i]
            light = self.part_light_e(state)[i].astype(float)
            self.crack_changes[i] = float(light @ (self._gains[i] * self._sums[i]) / (light @ before) - 1.0)

    def _add_particle(self, i: int, sign: float) -> None:
        for k in range(self.parts):
            amount = np.float32(sign * self._shown[i, k])
            synth.add_sprite(self.image, self._top[i, k], self._left[i, k], self._sprite(i, k), amount)

    def flux_e(self, state: ParticleState) -> np.ndarray:
        """(P,) electrons that each particle adds to a frame at nominal exposure and even light: the truth to find."""
        return np.asarray((self.part_light_e(state) * self._sums).sum(axis=1))

    def labels(self) -> np.ndarray:
        """(H, W) int32: index + 1 of the particle that covers a pixel by half or more, 0 for none."""
        options = self.sample.options
        out = np.zeros((options.height_px, options.width_px), np.int32)
        for i, shape in enumerate(self.shapes):
            y, x = np.nonzero(shape.coverage >= 0.5)
            out[y + shape.top, x + shape.left] = i + 1
        return out


def _bounds(part: np.ndarray) -> tuple[int, int, int, int]:
    """(y0, y1, x0, x1) around what is not faint; a pixel at least."""
    rows, columns = np.flatnonzero((part > FAINT).any(axis=1)), np.flatnonzero((part > FAINT).any(axis=0))
    if not rows.size:
        return 0, 1, 0, 1
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _background(rng: np.random.Generator, sample: Sample, options: OpticsOptions) -> np.ndarray:
    """The window with the fixed structure of binder and carbon behind it."""
    shape = (sample.options.height_px + 2 * PAD_PX, sample.options.width_px + 2 * PAD_PX)
    fine = gaussian_filter(rng.standard_normal(shape), 2.0, mode="wrap")
    coarse = gaussian_filter(rng.standard_normal(shape), 9.0, mode="wrap")
    structure = (fine / fine.std() + coarse / coarse.std()) / np.sqrt(2.0)
    return np.asarray(options.background_e * (1.0 + options.background_texture * structure), np.float32)


def optical_response(sample: Sample) -> np.ndarray:
    """(P, RESPONSE) relative brightness of each particle over lithium content 0 to 1; 1 at the discharged end.

    Two-beam interference: light grows as cos(phi0) - cos(phi0 + span * soc). The phase of ordinary particles stays on
    one flank, that of folded ones passes the crest half-way.
    """
    rng = stream(sample.options.seed, _FILM)
    count = sample.count
    soc = sample.material.soc(np.linspace(0.0, 1.0, RESPONSE))[None, :]
    start = np.where(sample.folded, rng.uniform(0.45, 0.6, count), rng.uniform(0.15, 0.3, count))[:, None] * np.pi
    span = np.where(sample.folded, rng.uniform(0.85, 1.05, count), rng.uniform(0.35, 0.47, count))[:, None] * np.pi
    swing = rng.uniform(0.2, 0.34, count)[:, None]
    reach = np.where(sample.folded[:, None], 1.0 + np.cos(start), np.cos(start) - np.cos(start + span))
    return 1.0 + swing * (np.cos(start) - np.cos(start + span * soc)) / reach
