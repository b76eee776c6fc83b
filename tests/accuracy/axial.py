"""Gradients along rods and the motion of their centroids: recordings of rods whose inside is known."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq

from daemon.offline import analyse
from daemon.photometry.patches import along_axis
from daemon.store.export import export_run
from daemon.store.reader import RunReader
from tests.accuracy.effort import Effort
from tests.accuracy.subject import match
from tests.bench.figures import Figure, at_least, at_most, between
from tests.disturbed import PIXEL_NM, Disturbances, Exposer
from tests.interiors import InteriorScene
from tests.scenes import ANGLES, PAD_PX, SUPERSAMPLING

TITLE = "Gradients along rods"
INTRO = """\
Recordings of rods in every direction, aspect ratios 1.5 to 5, radius (of equal area) 8 to 13 px, single exposures with
Poisson noise: a charge in pulses with rests, then a discharge, a charge and a discharge at 1C, under drift, defocus
and a lamp that wanders. While current flows one end is ahead by up to 0.1 to 0.4 of the window, evenly along the rod
or more so near one end, ahead on charge and behind on discharge; at rest it evens out. Each rod answers to charge with
a response of its own, bent and of either sign (8 to 35 % of its light). Analysed and exported as a user does it;
`axial_gradient` of every exposure is compared with soc(last quarter) - soc(first quarter) of the true area. True
centroids are those of the scene's light without noise, masks or blur. The plain pipeline takes hard masks that
registration moves by whole pixels, one background off: the difference between the end quarters' contrasts over the
first charge's swing, and the centroid of what is left, relative to the first frames."""
RODS = 8
HEIGHT, WIDTH = 340, 440
PULSES = 8
PULSE_FRAMES, REST_FRAMES, HALF_FRAMES = 12, 12, 48
RELAXES_S = 500.0
TELLING = 0.05
PLAIN_BASE = 5


class RodScene(InteriorScene):
    """An `InteriorScene` with room for rods of aspect ratio 5 in its patches."""

    def _coverage_of(self, i: int) -> tuple[slice, slice, np.ndarray]:
        half = int(np.ceil(2.7 * self.radii_px[i])) + 2
        cy, cx = self.y_px[i] + PAD_PX, self.x_px[i] + PAD_PX
        top, left, size = round(cy) - half, round(cx) - half, 2 * half + 1
        fine = (np.arange(size * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
        dy, dx = np.meshgrid(fine + top - cy, fine + left - cx, indexing="ij")
        turn = ((np.arctan2(dy, dx) / (2 * np.pi) + 1) * ANGLES).astype(int) % ANGLES
        inside = dy**2 + dx**2 < self._outline(i)[turn] ** 2
        cover = inside.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING).mean(axis=(1, 3))
        return slice(top, top + size), slice(left, left + size), cover


def rods(seed: int) -> RodScene:
    """Rods of this seed."""
    return RodScene(
        seed=seed, height=HEIGHT, width=WIDTH, particles=RODS, radius_px=(8, 13), gap_px=26, margin_px=38,
        order="axial", elongation=(1.5, 5.0), irregularity=0.04,
    )  # fmt: skip


@dataclass
class Protocol:
    """(N,) times, current in C, charge fraction; `ahead` (N,) of the strongest gradient: 0 at rest, 1 on charge."""

    t_s: np.ndarray
    current_c: np.ndarray
    charge: np.ndarray
    ahead: np.ndarray

    @classmethod
    def usual(cls) -> Protocol:
        """Pulses and rests, then three halves at 1C."""
        legs = [(0.0, 1.0, REST_FRAMES)]
        legs += [(0.5, 0.25, PULSE_FRAMES), (0.0, 1.0, REST_FRAMES)] * PULSES
        for sign in (-1.0, 1.0, -1.0):
            legs += [(sign, 1.0, HALF_FRAMES), (0.0, 1.0, REST_FRAMES)]
        t_s, current, charge, ahead = [0.0], [0.0], [0.0], [0.0]
        for c_rate, hours, frames in legs:
            every_s = hours * 3600.0 / frames
            for _ in range(frames):
                t_s.append(t_s[-1] + every_s)
                current.append(c_rate)
                charge.append(charge[-1] + c_rate * every_s / 3600.0)
                towards = np.sign(c_rate) * min(abs(c_rate) / 0.5, 1.0)
                ahead.append(towards + (ahead[-1] - towards) * np.exp(-every_s / RELAXES_S))
        return cls(np.array(t_s), np.array(current), np.clip(np.array(charge), 0, 1), np.array(ahead))


class Truth:
    """What each rod's inside is, bin by bin, and what follows from it."""

    def __init__(self, scene: RodScene, protocol: Protocol) -> None:
        rng = np.random.default_rng([scene.seed, 31])
        self.scene, self.protocol = scene, protocol
        count = scene.count
        self.reach = rng.choice([-1.0, 1.0], count) * rng.uniform(0.1, 0.4, count)
        self.lean = rng.uniform(-0.5, 0.5, count)
        self.swing = rng.choice([-1.0, 1.0], count) * rng.uniform(0.08, 0.35, count)
        self.bend = rng.uniform(-0.5, 0.5, count)
        frames = len(protocol.t_s)
        self.gradient, self.shift_px = np.empty((frames, count)), np.empty((frames, count))
        shapes = [self._shape(i) for i in range(count)]
        for k in range(frames):
            for i, inside in enumerate(scene.interiors):
                values = self.inside(k, i, shapes[i])
                self.gradient[k, i] = _quarter(inside, values, last=True) - _quarter(inside, values, last=False)
                light = inside.area_px * self.light(i, values)
                self.shift_px[k, i] = (inside.order_px @ light) / light.sum()
        self.shift_px -= self.shift_px[0]
        self._shapes = shapes

    def _shape(self, i: int) -> np.ndarray:
        """(B,) of mean 0 over the area: straight, or leaning to one end."""
        inside = self.scene.interiors[i]
        x = 2.0 * inside.rank - 1.0
        shape = x + self.lean[i] * (x**2 - 1.0 / 3.0)
        return shape - inside.fraction(shape)

    def inside(self, k: int, i: int, shape: np.ndarray | None = None) -> np.ndarray:
        """(B,) fractions in frame k; the gradient fades towards both ends of the window."""
        c = self.protocol.charge[k]
        room = min(1.0, 4.0 * c * (1.0 - c) * 1.5)
        shape = self._shapes[i] if shape is None else shape
        return c + self.reach[i] * self.protocol.ahead[k] * room * 0.5 * shape * min(1.0, 2.0 * min(c, 1.0 - c) / 0.4)

    def light(self, i: int, x: np.ndarray) -> np.ndarray:
        """Relative brightness at the fractions `x`."""
        return 1.0 + self.swing[i] * (x + self.bend[i] * x * (1.0 - x))

    def mean_e(self, k: int, drift: tuple[float, float], blur_px: float) -> np.ndarray:
        """(H, W) expected electrons of frame k."""
        lights = [self.light(i, self.inside(k, i)) for i in range(self.scene.count)]
        return self.scene.interior_e(lights, drift, blur_px)


def _quarter(inside, values: np.ndarray, *, last: bool) -> float:
    """Mean over the last or first quarter of the area, bins cut where it ends."""
    until = np.cumsum(inside.area_px) / inside.area_px.sum()
    since = until - inside.area_px / inside.area_px.sum()
    low, high = (0.75, 1.0) if last else (0.0, 0.25)
    share = np.clip(np.minimum(until, high) - np.maximum(since, low), 0.0, None)
    return float(values @ share / share.sum())


@dataclass
class Read:
    """(N, P) truth beside what the export says of it; NaN for rods that were not found."""

    gradient: np.ndarray
    shift_px: np.ndarray
    columns: dict[str, np.ndarray]
    plain_gradient: np.ndarray
    plain_shift_px: np.ndarray
    aspect: np.ndarray

    def off(self, name: str, true: np.ndarray) -> np.ndarray:
        """Errors of a column, where it is known."""
        off = self.columns[name] - true
        return np.asarray(off[np.isfinite(off)])


def filmed(seed: int, *, disturbed: bool = True) -> Read:
    """One scene's recording, analysed and exported."""
    scene = rods(seed)
    truth = Truth(scene, Protocol.usual())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording, images = _record(folder, truth, disturbed)
        analyse(recording, folder / "run.db")
        export_run(folder / "run.db", folder / "out", tables=("traces",))
        traces = pq.read_table(folder / "out" / "traces.parquet")
        with RunReader(folder / "run.db") as reader:
            particles, labels = reader.particles(), reader.labels()
            drift = reader.frames()
    return _read(truth, traces, particles, labels, images, drift)


def _record(folder: Path, truth: Truth, disturbed: bool) -> tuple[Path, np.ndarray]:
    scene, protocol = truth.scene, truth.protocol
    camera, frames = Exposer(scene), len(protocol.t_s)
    # the instrument's wander at a hundredth of the pace: 0.25 s of it a frame
    now = Disturbances.draw(scene.seed, frames * 0.25, 25)
    path = folder / "scene.h5"
    images = np.empty((frames, scene.height, scene.width), np.uint16)
    for k in range(frames):
        drift = (float(now.drift_px[k, 0]), float(now.drift_px[k, 1])) if disturbed else (0.0, 0.0)
        blur = float(np.sqrt(scene.psf_sigma_px**2 + (now.blur_px2[k] if disturbed else 0.0)))
        images[k] = camera((now.illumination[k] if disturbed else 1.0) * truth.mean_e(k, drift, blur))
    volts = 3.4 + 0.8 * protocol.charge + 0.05 * protocol.ahead
    with h5py.File(path, "w") as file:
        file["movie"], file["camera_timing"] = images, protocol.t_s
        charge_mah = protocol.charge
        file["potentiostat_value"] = np.stack([volts, protocol.current_c, charge_mah, protocol.t_s])
        file.attrs.update({
            "gain_e_per_dn": scene.gain_e_per_dn, "read_noise_e": scene.read_noise_e, "dark_dn": scene.dark_dn,
            "bit_depth": scene.bit_depth, "pixel_size_nm": PIXEL_NM, "electrode": "cathode", "capacity_mah": 1.0,
        })  # fmt: skip
    return path, images


def _read(truth: Truth, traces, particles, labels, images: np.ndarray, drift: dict[str, np.ndarray]) -> Read:
    scene = truth.scene
    shape = truth.gradient.shape
    which = match(scene, np.array([p["y_px"] for p in particles]), np.array([p["x_px"] for p in particles]))
    names = ("axial_gradient", "axial_gradient_sigma", "centroid_shift_px", "centroid_shift_sigma_px", "gradient")
    columns = {name: np.full(shape, np.nan) for name in names}
    plain_gradient, plain_shift = np.full(shape, np.nan), np.full(shape, np.nan)
    gradient, shift = truth.gradient.copy(), truth.shift_px.copy()
    ids = np.array(traces["particle_id"])
    for p, particle in enumerate(particles):
        i = int(which[p])
        if i < 0:
            continue
        mask = labels == p + 1
        along = along_axis(mask)
        down, right = along[1, 0] - along[0, 0], along[0, 1] - along[0, 0]
        true_down, true_right = scene.axis(i)
        if down * true_down + right * true_right < 0:  # a level axis may point either way
            gradient[:, i], shift[:, i] = -gradient[:, i], -shift[:, i]
        for name in names:
            columns[name][:, i] = traces[name].to_numpy()[ids == particle["particle_id"]]
        plain_gradient[:, i], plain_shift[:, i] = plain(images, mask, along, drift, truth.protocol.charge)
    aspect = np.array([scene._stretch[i] ** 2 for i in range(scene.count)])
    return Read(gradient, shift, columns, plain_gradient, plain_shift, aspect)


def plain(
    images: np.ndarray, mask: np.ndarray, along: np.ndarray, drift: dict[str, np.ndarray], charge: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient (N,) and centroid shift (N,) of a hard mask that is moved by whole pixels."""
    y, x = np.nonzero(mask)
    place = along[mask]
    order = np.argsort(place, kind="stable")
    first, last = order[: len(order) // 4], order[-(len(order) // 4) :]
    background = np.median(images[0])
    light = np.empty((len(images), len(y)))
    for k, image in enumerate(images):
        dy, dx = round(float(drift["drift_y_px"][k])), round(float(drift["drift_x_px"][k]))
        light[k] = image[y + dy, x + dx] - background
    ends = np.stack([light[:, part].sum(axis=1) for part in (first, last)], axis=1)
    ends = ends / ends[:PLAIN_BASE].mean(axis=0) - 1.0
    high = int(np.argmax(charge >= charge.max() - 1e-3))
    swing = ends[high : high + PLAIN_BASE].mean()
    centroid = light @ place / light.sum(axis=1)
    return (ends[:, 1] - ends[:, 0]) / swing, centroid - centroid[:PLAIN_BASE].mean()


def run(effort: Effort) -> list[Figure]:
    """The headline and its parts."""
    reads = [filmed(seed) for seed in effort.seeds]
    error = _joined(read.off("axial_gradient", read.gradient) for read in reads)
    peer = _joined(_finite(read.plain_gradient - read.gradient) for read in reads)
    over = _over(reads, "axial_gradient", "axial_gradient_sigma", "gradient")
    known = np.concatenate([np.isfinite(read.columns["axial_gradient"]).any(axis=0) for read in reads])
    shift = _joined(read.off("centroid_shift_px", read.shift_px) for read in reads)
    shift_peer = _joined(_finite(read.plain_shift_px - read.shift_px) for read in reads)
    shift_over = _over(reads, "centroid_shift_px", "centroid_shift_sigma_px", "shift_px")
    return [
        at_most("axial gradient, rms error of an exposure", rms(error), 0.02, digits=4, plain=f"{rms(peer):.3f}"),
        _signs(reads, "axial_gradient", "gradient", "plain_gradient", TELLING, "  sign right where it exceeds 0.05"),
        between("  error over axial_gradient_sigma, rms", rms(over), 0.9, 1.1),
        *_by_aspect(reads),
        Figure("  rods with a value", f"{int(known.sum())} of {len(known)}", ""),
        Figure(
            "centroid shift along the axis, rms error of an exposure", f"{1000 * rms(shift):.1f} mpx", "",
            plain=f"{1000 * rms(shift_peer):.1f} mpx",
        ),
        Figure("  rms of the true shift", f"{1000 * rms(_joined(r.shift_px.ravel() for r in reads)):.0f} mpx", ""),
        between("  error over centroid_shift_sigma_px, rms", rms(shift_over), 0.8, 1.1),
        _signs(
            reads, "centroid_shift_px", "shift_px", "plain_shift_px", 0.02, "  sign right where it exceeds 0.02 px"
        ),
    ]  # fmt: skip


def _by_aspect(reads: Sequence[Read]) -> list[Figure]:
    figures = []
    for low, high in ((1.5, 2.5), (2.5, 5.0)):
        parts = []
        for read in reads:
            mine = (read.aspect >= low) & (read.aspect < high)
            parts.append(_finite((read.columns["axial_gradient"] - read.gradient)[:, mine]))
        figures.append(
            Figure(f"  aspect ratio {low:g} to {high:g}, rms error", f"{rms(np.concatenate(parts)):.4f}", "")
        )
    return figures


def _signs(reads: Sequence[Read], name: str, true: str, peer: str, least: float, label: str) -> Figure:
    right, peers = [], []
    for read in reads:
        truth = getattr(read, true)
        for out, values in ((right, read.columns[name]), (peers, getattr(read, peer))):
            telling = (np.abs(truth) > least) & np.isfinite(values)
            out.append((np.sign(values) == np.sign(truth))[telling])
    figure = at_least(label, 100 * float(np.concatenate(right).mean()), 98.0, "%", digits=1)
    return replace(figure, plain=f"{100 * np.concatenate(peers).mean():.1f} %")


def _over(reads: Sequence[Read], name: str, sigma: str, true: str) -> np.ndarray:
    return _joined(_finite((read.columns[name] - getattr(read, true)) / read.columns[sigma]) for read in reads)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[np.isfinite(values)])


def _joined(parts) -> np.ndarray:
    return np.concatenate(list(parts))


def rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(values**2)))
