"""State of charge and its gradient, particle by particle, against an electrode whose every particle is known."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from daemon.cell.samples import CellRow, StepKind
from daemon.engine.measures import LAYERS as LAYER_NAMES
from daemon.engine.measures import MaskSet, MeasureBatch
from daemon.photometry.derive import derive_traces
from daemon.photometry.science import Science, ScienceSettings
from daemon.photometry.update import ScienceUpdate
from tests.accuracy.charged_scene import ShellScene, analysed, record
from tests.accuracy.effort import Effort
from tests.bench.figures import Figure, at_least, at_most, between
from tests.electrode import History, Leg, Optics, SolidSolution, TwoPhase, drive

TITLE = "Charge and its gradient"
INTRO = """\
Particles of an independent electrode (`tests/electrode.py`) share a potential: spread kinetics and contact resistances,
diffusion in spheres, a response I(c) of each one's own, bent or folded by a thin film, a few dead; two phases with a
sharp boundary likewise; layers differ in brightness by a tenth. First without pixels: contrasts with the noise of a
real exposure (6.6e-4 at 14 px, radii spread by 30 %), 100 particles a protocol and seed, straight into the run's
science. Then recordings of small scenes, radius 8 to 18 px, pixel by pixel with Poisson noise, through
`photometryctl analyse` and the export. SoC and gradient are of single exposures. The plain pipeline takes the straight
line between the contrasts of the first two ends for SoC, and the difference of the layers' for the gradient. Truth
counts from the discharged to the charged end of the window; of two phases, from each particle's own end to end."""
PARTICLES = 100
SCENE_PARTICLES = 12
BATCH_FRAMES = 200
MEDIAN_RADIUS_PX, RADIUS_SPREAD = 14.0, 0.3
NOISE = 6.6e-4
"""Of one exposure of a particle of the median radius, by the CCD equation, relative to its flux."""
DIFFUSION_H = (0.25, 1.0)
"""R^2/D: gradients of 0.03 and 0.1 at 1C, 0.12 and 0.5 at 5C; by turns of the seed."""
CHARGE_END_V, DISCHARGE_END_V = 4.25, 3.46

REST = Leg(0, 1.0, 30)
CYCLE_1C = (Leg(1, 1.1, 10, CHARGE_END_V), REST, Leg(-1, 1.1, 10, DISCHARGE_END_V), REST)
CYCLE_5C = (Leg(5, 0.25, 2, 4.35), REST, Leg(-5, 0.25, 2, 3.35), REST)
PROTOCOLS: dict[str, tuple[Leg, ...]] = {
    "pulses and rests": (
        Leg(0, 0.3, 30),
        *(Leg(0.5, 0.2, 20), Leg(0, 1.0, 30)) * 9,
        Leg(0.5, 0.2, 20, CHARGE_END_V), REST, Leg(-1, 1.1, 10, DISCHARGE_END_V), REST, *CYCLE_1C, *CYCLE_5C,
    ),
    "a slow cycle": (
        Leg(0, 0.3, 30), Leg(0.05, 22, 120, CHARGE_END_V), REST, Leg(-0.05, 22, 120, DISCHARGE_END_V), REST,
        *CYCLE_1C, *CYCLE_5C,
    ),
    "cycles at 1C": (Leg(0, 0.3, 30), *CYCLE_1C, *CYCLE_1C, *CYCLE_5C),
}  # fmt: skip
FILMED = (
    Leg(0, 0.3, 60), *(Leg(0.5, 0.2, 60), Leg(0, 1.0, 200)) * 9, Leg(0.5, 0.2, 60, CHARGE_END_V), Leg(0, 1.0, 200),
    Leg(-1, 1.1, 40, DISCHARGE_END_V), Leg(0, 1.0, 200), Leg(1, 1.1, 40, CHARGE_END_V), Leg(0, 1.0, 200),
    Leg(-1, 1.1, 40, DISCHARGE_END_V), Leg(0, 1.0, 200), Leg(5, 0.25, 6, 4.35), Leg(0, 1.0, 200),
    Leg(-5, 0.25, 6, 3.35), Leg(0, 1.0, 200),
)  # fmt: skip
TWO_PHASES = (
    Leg(0, 0.3, 30), Leg(1, 0.97, 10), REST, Leg(-1, 0.97, 10), REST, Leg(1, 0.5, 10), REST, Leg(1, 0.47, 10), REST,
    Leg(-1, 0.97, 10), REST, Leg(5, 0.194, 2), REST, Leg(-5, 0.194, 2), REST,
)  # fmt: skip


@dataclass
class Read:
    """(N, P) truth beside what is read of it; `counted` (P,) particles that have a SoC in truth."""

    history: History
    soc: np.ndarray
    gradient: np.ndarray
    columns: dict[str, np.ndarray]
    kinds: np.ndarray
    dead: np.ndarray
    folded: np.ndarray
    plain_soc: np.ndarray
    plain_gradient: np.ndarray

    def error(self, name: str, fast: bool) -> np.ndarray:
        """What is off in `soc` or `gradient` (or the plain pipeline's), where it is known; of fast frames or others."""
        rows = (np.abs(self.history.current_c) > 1.0) == fast
        read = getattr(self, name) if name.startswith("plain") else self.columns[name]
        off = (read - getattr(self, name.removeprefix("plain_")))[rows][:, ~self.dead & ~self.folded]
        return np.asarray(off[np.isfinite(off)])

    def covered(self) -> np.ndarray:
        """Whether the 90 % intervals hold the truth, where there is one."""
        low, high = self.columns["soc_lo"], self.columns["soc_hi"]
        return np.asarray(((low <= self.soc) & (self.soc <= high))[np.isfinite(low)])

    def signs(self, name: str) -> np.ndarray:
        """Whether the sign is right where the gradient exceeds 0.05."""
        read = getattr(self, name) if name.startswith("plain") else self.columns[name]
        telling = (np.abs(self.gradient) > 0.05) & np.isfinite(read) & ~self.dead & ~self.folded
        return np.asarray((np.sign(read) == np.sign(self.gradient))[telling])

    def over_sigma(self) -> np.ndarray:
        """Errors of the gradient in its own standard deviations."""
        off = (self.columns["gradient"] - self.gradient) / self.columns["gradient_sigma"]
        return np.asarray(off[:, ~self.dead & ~self.folded][np.isfinite(off[:, ~self.dead & ~self.folded])])


def truth_of(history: History, dead: np.ndarray, *, own_ends: bool) -> tuple[np.ndarray, np.ndarray]:
    """(N, P) fractions of the window, 0 to 1, and gradients: from the first charge's start to its end, or of each
    particle from its own discharged to its own charged rests.
    """
    first = int(np.argmax(history.current_c < 0))
    low, high = np.zeros(history.shells.shape[1]), np.full(history.shells.shape[1], history.charge[first - 1])
    soc = history.soc
    if own_ends:
        rests = np.flatnonzero((history.current_c == 0) & np.append(np.diff(history.current_c) != 0, True))
        mean = soc[:, ~dead].mean(axis=1)
        low, high = soc[rests[mean[rests] < 0.1]].mean(axis=0), soc[rests[mean[rests] > 0.9]].mean(axis=0)
        high = np.where(dead, 1.0, high)
    return np.clip((soc - low) / (high - low), 0.0, 1.0), history.gradient / (high - low)


def plain(contrast: np.ndarray, layers: np.ndarray, charge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a plain pipeline makes of (N, P) contrasts and (N, P, 4) layers': lines between the first ends."""
    high = int(np.argmax(charge >= charge.max() - 1e-3))
    ends = [slice(0, 5), slice(high, high + 5)]

    def line(values: np.ndarray) -> np.ndarray:
        first, last = (values[end].mean(axis=0) for end in ends)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((values - first) / (last - first))

    return np.clip(line(contrast), 0, 1), line(layers[:, :, 0]) - line(layers[:, :, 3])


@dataclass
class Series:
    """What a camera would have measured of an electrode's history, without pixels, and what science makes of it."""

    history: History
    optics: Optics
    dead: np.ndarray
    seed: int

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 21])
        count = self.optics.particles
        self.radius_px = MEDIAN_RADIUS_PX * np.exp(RADIUS_SPREAD * np.clip(rng.normal(0, 1, count), -2.5, 2.5))
        quarters = self.optics.layers(self.history.shells, self.dead)
        self.flux0_e = 1e6 * (self.radius_px / MEDIAN_RADIUS_PX) ** 2
        noise = NOISE * MEDIAN_RADIUS_PX / self.radius_px / 2.0
        # half of the variance is the particle's own light, half background
        self.layer_sigma = noise[:, None] * np.sqrt(0.5 + 0.5 * 4.0 * quarters)
        quarters = quarters + self.layer_sigma * rng.normal(0, 1, quarters.shape)
        self.layer_flux = quarters
        self.result = self._science()

    def _science(self) -> dict[str, np.ndarray]:
        history = self.history
        rows = [
            CellRow(float(t), float(t), float(v), float(i), 0, 0, _kind(i), float(q))
            for t, v, i, q in zip(history.t_s, history.voltage_v, history.current_c, history.charge, strict=True)
        ]
        count = self.optics.particles
        place = np.arange(count)
        labels = np.arange(1, count + 1, dtype=np.int32)[None, :]
        masks = MaskSet(labels, place + 1, place * 1.0, place * 1.0, {"area_px": self.radius_px**2}, 0.0, None)
        self.science = Science(masks, ScienceSettings(capacity_mah=1.0))
        updates, row = [], 0
        for start in range(0, len(history.t_s), BATCH_FRAMES):
            stop = min(start + BATCH_FRAMES, len(history.t_s))
            self.science.add_cell(rows[row:stop])
            row = stop
            updates.append(self.science.add(self._batch(start, stop)))
        updates.append(self.science.finish())
        return self._collect(updates)

    def _batch(self, start: int, stop: int) -> MeasureBatch:
        part, n, count = slice(start, stop), stop - start, self.optics.particles
        none, frames = np.zeros((n, count)), np.arange(start, stop)
        layers = self.layer_flux[part] * self.flux0_e[:, None]
        sigma = self.layer_sigma[part] * self.flux0_e[:, None]
        batch = MeasureBatch(
            frames, frames, self.history.t_s[part], self.history.t_s[part], np.zeros(n), np.zeros(n), np.full(n, 1e-3),
            np.ones(n), np.ones(n), np.zeros(n, np.uint32), layers.sum(axis=2), np.sqrt((sigma**2).sum(axis=2)),
            layers, sigma, none, none, np.zeros((n, count), np.uint16),
        )  # fmt: skip
        if start == 0:
            first = max(5, len(self.history.t_s) // 100)
            base = self.layer_flux[:first].mean(axis=0) * self.flux0_e[:, None]
            batch.baseline_flux_e, batch.baseline_layer_flux_e = base.sum(axis=1), base
        return batch

    def _collect(self, updates: list[ScienceUpdate]) -> dict[str, np.ndarray]:
        chunks = [update.particle_columns for update in updates if update.particle_columns]
        column = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        rows: dict[int, dict] = {}
        for update in updates:
            rows |= {row["particle_id"] - 1: row for row in update.calibrations}
        self.rows = rows
        ratio = np.array([rows[k]["layer_sigma_ratio"] for k in range(self.optics.particles)])
        layers = {name: column[name] for name in column if name.startswith("layer_")}
        self.contrast, self.layer_contrast = column["contrast"], np.stack(list(layers.values()), axis=2)
        return derive_traces(column["contrast"], column["contrast_sigma"], layers, rows, ratio)

    def read(self, *, own_ends: bool = False) -> Read:
        """Beside its truth."""
        soc, gradient = truth_of(self.history, self.dead, own_ends=own_ends)
        kinds = np.array([self.rows[k]["kind"] for k in range(self.optics.particles)])
        peers = plain(self.contrast, self.layer_contrast, self.history.charge)
        folded = self.optics.folded & ~self.dead
        return Read(self.history, soc, gradient, self.result, kinds, self.dead, folded, *peers)


def _kind(current_c: float) -> StepKind:
    return "rest" if current_c == 0 else "charge" if current_c > 0 else "discharge"


def solid(seed: int, protocol: str, particles: int = PARTICLES) -> Read:
    """A solid solution through one of the protocols; layers differ in brightness by a tenth."""
    electrode = SolidSolution(particles, seed, diffusion_h=DIFFUSION_H[seed % len(DIFFUSION_H)])
    optics = Optics(particles, seed, unevenness=0.1)
    return Series(drive(electrode, PROTOCOLS[protocol]), optics, electrode.dead, seed).read()


def two_phase(seed: int, particles: int = PARTICLES) -> Read:
    """Two phases through theirs."""
    electrode = TwoPhase(particles, seed)
    optics = Optics(particles, seed, 0.0, linear=True, unevenness=0.1)
    return Series(drive(electrode, TWO_PHASES), optics, electrode.dead, seed).read(own_ends=True)


def filmed(seed: int, legs: Sequence[Leg] = FILMED, particles: int = SCENE_PARTICLES) -> Read:
    """A scene's recording through the pipeline and the export; particles not found have no SoC."""
    scene = ShellScene(seed=seed, height=280, width=360, particles=particles, radius_px=(8, 18))
    electrode, optics = SolidSolution(particles, seed), Optics(particles, seed)
    history = drive(electrode, legs)
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder) / "scene.h5", scene, optics, history, electrode.dead)
        got = analysed(Path(folder), scene, Path(folder) / "scene.h5")
    soc, gradient = truth_of(history, electrode.dead, own_ends=False)
    layers = np.stack([got.columns[f"layer_{name}"] for name in LAYER_NAMES], axis=2)
    peers = plain(got.columns["contrast"], layers, history.charge)
    return Read(history, soc, gradient, got.columns, got.kinds, electrode.dead, optics.folded & ~electrode.dead, *peers)


def run(effort: Effort) -> list[Figure]:
    """Each protocol, all together, then pixels."""
    figures, pooled = [], []
    for name in PROTOCOLS:
        reads = [solid(seed, name) for seed in effort.seeds]
        pooled += reads
        figures += _charge(f"a solid solution, {name}", reads)
    reads = [two_phase(seed) for seed in effort.seeds]
    pooled += reads
    figures += [*_charge("two phases", reads), *_all(pooled)]
    reads = [filmed(seed) for seed in effort.seeds]
    seen = np.concatenate([read.kinds != "" for read in reads])
    return [
        *figures,
        *_charge("recordings of pulses and rests", reads),
        *_gradients("recordings", reads),
        between("  90 % intervals of SoC hold the truth", float(_joined(reads, Read.covered).mean()), 0.88, 0.92),
        Figure("  particles of the scenes that were not found", f"{int((~seen).sum())} of {len(seen)}", ""),
    ]


def _joined(reads: Sequence[Read], what: Callable[[Read], np.ndarray]) -> np.ndarray:
    return np.concatenate([what(read) for read in reads])


def _errors(reads: Sequence[Read], name: str, *, fast: bool) -> tuple[np.ndarray, np.ndarray]:
    """The product's and the plain pipeline's."""
    ours, plains = ([read.error(each, fast) for read in reads] for each in (name, f"plain_{name}"))
    return np.concatenate(ours), np.concatenate(plains)


def _charge(name: str, reads: Sequence[Read]) -> list[Figure]:
    """Errors of SoC up to 1C and beyond."""
    figures = []
    for fast, limit, label in ((False, 0.01, "to 1C"), (True, 0.02, "at 5C")):
        off, peer = _errors(reads, "soc", fast=fast)
        figures.append(at_most(f"{name}, SoC {label}, rms error", rms(off), limit, digits=4, plain=f"{rms(peer):.3f}"))
    known = [(read.kinds == "monotone") | (read.kinds == "end_members") for read in reads]
    alive = [~read.dead & ~read.folded & (read.kinds != "") for read in reads]
    share = np.concatenate(known)[np.concatenate(alive)].mean()
    return [*figures, Figure("  particles that have a SoC, of those that could", f"{100 * share:.1f} %", "")]


def _gradients(name: str, reads: Sequence[Read]) -> list[Figure]:
    figures = []
    for fast, label in ((False, "to 1C"), (True, "at 5C")):
        off, peer = (
            _joined(reads, lambda read, n=n, fast=fast: read.error(n, fast)) for n in ("gradient", "plain_gradient")
        )
        figures.append(
            at_most(f"{name}, gradient {label}, rms error", rms(off), 0.02, digits=4, plain=f"{rms(peer):.3f}")
        )
    right, peer = (np.concatenate([read.signs(each) for read in reads]) for each in ("gradient", "plain_gradient"))
    figure = at_least("  sign right where it exceeds 0.05", 100 * float(right.mean()), 98.0, "%", digits=1)
    own = _joined(reads, Read.over_sigma)
    return [
        *figures,
        replace(figure, plain=f"{100 * peer.mean():.1f} %"),
        between("  error over gradient_sigma, rms", rms(own), 0.9, 1.1),
    ]


def _all(reads: Sequence[Read]) -> list[Figure]:
    """Over all protocols and particles."""
    covered = _joined(reads, Read.covered)
    flagged = np.concatenate([read.kinds == "folded" for read in reads])
    folded, dead = (np.concatenate([getattr(read, name) for read in reads]) for name in ("folded", "dead"))
    particles = f"{(~dead).sum()} particles"
    found = at_least("folded responses recognised", 100 * float(flagged[folded].mean()), 95.0, "%", digits=1)
    return [
        *_gradients("all of these, without blur", reads),
        between(f"90 % intervals of SoC hold the truth, {particles}", float(covered.mean()), 0.88, 0.92),
        replace(found, plain="0 %"),
        at_most("  others said to be folded", 100 * float(flagged[~folded & ~dead].mean()), 1.0, "%"),
    ]


def rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(values**2)))
