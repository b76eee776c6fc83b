"""Phase fronts: recordings of particles whose inside is known, analysed and exported as a user does it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
from scipy import ndimage

from daemon.offline import analyse
from daemon.photometry.patches import along_axis
from daemon.store.export import export_run
from daemon.store.reader import RunReader
from tests.accuracy.effort import Effort
from tests.accuracy.subject import match
from tests.bench.figures import Figure, at_least, at_most
from tests.disturbed import EXPOSURE_RATE_HZ, PIXEL_NM, Disturbances, Exposer
from tests.interiors import InteriorScene, Order

TITLE = "Fronts"
INTRO = """\
Recordings of a charge and a discharge, 4 exposures/s, with rests: eight particles of 8 to 14 px radius, each crossed by
a front of its own pace, from the outline inwards (`core`) or along the major axis from either end (`axial`, aspect
ratios 1.4 to 2). SNR is the step of a pixel's brightness over its noise in one exposure. Recordings are analysed and
exported as a user does it; front_px of every frame in which the front is inside counts. The bound is that of one
exposure for a known order map and known levels, sigma_I/dI sqrt(2 sqrt(pi) w/L), w the blur, L the length of the
front; it knows no time series, and no outline that has to be found. The plain pipeline counts the pixels of each mask
that have gone half of the way from its first to its last frames, and takes the depth, or the distance along the mask's
axis, that holds as many."""
FRAME_S = 0.25
REST_FRAMES, HALF_FRAMES = 24, 160
INSIDE = 0.05
"""Of the area at either end, in which a front's place is not scored: there is hardly a front."""
MIXED: tuple[Order, ...] = ("axial", "axial_back")


@dataclass
class Crossings:
    """What one recording's fronts were and what was told of them, one entry a particle and half."""

    error_px: list[np.ndarray]
    sigma_px: list[np.ndarray]
    bound_px: list[np.ndarray]
    plain_px: list[np.ndarray]
    told: list[float]
    """Share of the scored frames that have a front_px."""
    speed_error: list[float]
    direction_right: list[bool]
    modes: list[str]


def run(effort: Effort) -> list[Figure]:
    """The headline and its parts."""
    core = _joined([_crossings(seed, "core", 10.0, (1.0, 1.6)) for seed in effort.seeds])
    axial = _joined([_crossings(seed, MIXED, 10.0, (1.4, 2.0)) for seed in effort.seeds])
    both = _joined([core, axial])
    few = effort.seeds[:1]
    figures = [
        at_most("front_px error, rms", _rms(both.error_px), 0.065, "px", 3, f"{_rms(both.plain_px):.3f} px"),
        *_of_mode("core", core),
        *_of_mode("axial", axial),
        at_most("error over the bound, rms", _rms(both.error_px) / _rms(both.bound_px), 1.25),
        at_least("frames with the front inside that have a value", 100 * float(np.mean(both.told)), 95.0, "%"),
        at_most("speed error, 95th percentile", 100 * _p95(both.speed_error), 5.0, "%", 1),
        at_least("direction right", 100 * float(np.mean(both.direction_right)), 99.0, "%"),
        at_least("front_mode right", 100 * _share(core, "core", axial, "axial"), 99.0, "%"),
        Figure("error over reported front_sigma_px, rms", f"{_rms_ratio(both):.2f}", ""),
    ]
    for snr in (5.0, 20.0):
        runs = [_crossings(seed, ("core", *MIXED), snr, (1.4, 2.0)) for seed in few]
        figures.append(_row(f"at SNR {snr:g}, both modes, rms", _joined(runs)))
    wide = [_crossings(seed, ("core", *MIXED), 10.0, (1.4, 2.0), width_px=1.5) for seed in few]
    figures.append(_row("fronts that are 1.5 px wide themselves, rms", _joined(wide)))
    moved = [_crossings(seed, ("core", *MIXED), 10.0, (1.4, 2.0), disturbed=True) for seed in few]
    figures.append(_row("under drift, defocus and lamp, rms", _joined(moved)))
    figures += _without_fronts(few)
    return figures


def _of_mode(name: str, found: Crossings) -> list[Figure]:
    means = [float(np.mean(error)) for error in found.error_px]
    return [
        _row(f"  {name}", found),
        Figure("    a crossing's mean error (its outline), rms", f"{_rms([np.array(means)]):.3f} px", ""),
    ]


def _row(name: str, found: Crossings) -> Figure:
    return Figure(name, f"{_rms(found.error_px):.3f} px", "", plain=f"{_rms(found.plain_px):.3f} px")


def _share(core: Crossings, first: str, axial: Crossings, second: str) -> float:
    right = [mode == first for mode in core.modes] + [mode == second for mode in axial.modes]
    return float(np.mean(right))


def _without_fronts(seeds: Sequence[int]) -> list[Figure]:
    """Solid solutions: even inside, and with the surface far ahead of the core."""
    figures = []
    for name, lead in (("even", 0.0), ("the surface 0.4 ahead of the core", 0.4)):
        modes = [mode for seed in seeds for mode in _solid(seed, lead)]
        right = 100 * float(np.mean([mode == "none" for mode in modes]))
        figures.append(at_least(f"solid solution, {name}: no front told", right, 99.0, "%"))
    return figures


class _Take:
    """A recording being made: a rest, a charge, a rest, a discharge, a rest."""

    def __init__(self, scene: InteriorScene, snr: float, disturbed: bool = False) -> None:
        self.scene = scene
        noise_e = np.sqrt(scene.level_e + scene.background_e + scene.read_noise_e**2 + scene.gain_e_per_dn**2 / 12)
        self.step = snr * noise_e / scene.level_e
        self.frames = 3 * REST_FRAMES + 2 * HALF_FRAMES
        self.t_s = FRAME_S * np.arange(self.frames)
        self.begins = REST_FRAMES, 2 * REST_FRAMES + HALF_FRAMES
        seconds, exposures = self.frames * FRAME_S, round(FRAME_S * EXPOSURE_RATE_HZ)
        self.disturbances = Disturbances.draw(scene.seed, seconds, exposures) if disturbed else None

    def charge(self) -> np.ndarray:
        """(N,) share of the charge passed."""
        first, second = self.begins
        return np.interp(
            np.arange(self.frames), [first, first + HALF_FRAMES, second, second + HALF_FRAMES], [0, 1, 1, 0]
        )

    def analysed(self, folder: Path, insides: Sequence[Sequence[np.ndarray]]) -> tuple[Path, np.ndarray]:
        """The run file of the frames whose charge fractions are `insides`, and the plain pipeline's images."""
        camera, scene = Exposer(self.scene), self.scene
        path = folder / f"scene{scene.seed}.h5"
        current_ma = np.concatenate([[0.0], np.sign(np.diff(self.charge()))])
        with h5py.File(path, "w") as file:
            movie = file.create_dataset("movie", (self.frames, scene.height, scene.width), "u2")
            for k, values in enumerate(insides):
                light = [1 + step * inside for step, inside in zip(self.step, values, strict=True)]
                movie[k] = camera(self._mean_e(k, light))
            file["camera_timing"] = self.t_s
            charge_mah = np.cumsum(current_ma) * FRAME_S / 3600.0
            file["potentiostat_value"] = np.stack([3.0 + self.charge(), current_ma, charge_mah, self.t_s])
            about = {
                "gain_e_per_dn": scene.gain_e_per_dn, "read_noise_e": scene.read_noise_e, "dark_dn": scene.dark_dn,
                "bit_depth": scene.bit_depth, "pixel_size_nm": PIXEL_NM,
            }  # fmt: skip
            file.attrs.update(about)
        run_db = folder / f"run{scene.seed}.db"
        analyse(path, run_db)
        with h5py.File(path) as file:
            images = file["movie"][:]
        path.unlink()
        return run_db, images

    def _mean_e(self, k: int, light: list[np.ndarray]) -> np.ndarray:
        if self.disturbances is None:
            return self.scene.interior_e(light)
        now, psf = self.disturbances, self.scene.psf_sigma_px
        drift = (float(now.drift_px[k, 0]), float(now.drift_px[k, 1]))
        blurred = self.scene.interior_e(light, drift, float(np.sqrt(psf**2 + now.blur_px2[k])))
        return now.illumination[k] * blurred


def _scene(seed: int, order: Order | Sequence[Order], elongation: tuple[float, float]) -> InteriorScene:
    orders = order if isinstance(order, str) else [order[i % len(order)] for i in range(8)]
    return InteriorScene(
        seed=seed, height=264, width=336, particles=8, radius_px=(8, 14), gap_px=14, order=orders,
        elongation=elongation, irregularity=0.06,
    )  # fmt: skip


def _crossings(
    seed: int,
    order: Order | Sequence[Order],
    snr: float,
    elongation: tuple[float, float],
    width_px: float = 0.0,
    disturbed: bool = False,
) -> Crossings:
    """One recording: each particle's front crosses at an even pace of its own, in a half a time."""
    scene = _scene(seed, order, elongation)
    take, rng = _Take(scene, snr, disturbed), np.random.default_rng([seed, 21])
    length = np.array([one.length_px for one in scene.interiors])
    position = np.full((2, take.frames, scene.count), np.nan)
    for half, begin in enumerate(take.begins):
        start = begin + HALF_FRAMES * rng.uniform(0.05, 0.3, scene.count)
        took = HALF_FRAMES * rng.uniform(0.45, 0.65, scene.count)
        position[half] = (np.arange(take.frames)[:, None] - start) / took * (length + 8) - 4
    insides = [
        [
            one.front(position[0, k, i], width_px) - one.front(position[1, k, i], width_px)
            for i, one in enumerate(scene.interiors)
        ]
        for k in range(take.frames)
    ]
    with tempfile.TemporaryDirectory() as folder:
        run_db, images = take.analysed(Path(folder), insides)
        return _scored(take, position, width_px, run_db, images)


def _solid(seed: int, lead: float) -> list[str]:
    scene = _scene(seed, "core", (1.0, 1.6))
    take = _Take(scene, 10.0)
    charge = take.charge()
    insides = []
    for k in range(take.frames):
        moving = 4 * charge[k] * (1 - charge[k])
        insides.append([charge[k] + lead * moving * (0.5 - one.rank) for one in scene.interiors])
    with tempfile.TemporaryDirectory() as folder:
        run_db, _ = take.analysed(Path(folder), insides)
        with RunReader(run_db) as reader:
            return [row["mode"] for row in reader.fronts()]


def _scored(take: _Take, position: np.ndarray, width_px: float, run_db: Path, images: np.ndarray) -> Crossings:
    """The exported traces and the `fronts` rows beside the truth."""
    scene, out = take.scene, Crossings([], [], [], [], [], [], [], [])
    export_run(run_db, run_db.parent / "out", format="parquet")
    traces = pq.read_table(run_db.parent / "out" / "traces.parquet")
    with RunReader(run_db) as reader:
        fronts, particles, labels = reader.fronts(), reader.particles(), reader.labels()
    which = match(scene, np.array([p["y_px"] for p in particles]), np.array([p["x_px"] for p in particles]))
    ids = np.array(traces["particle_id"])
    columns = {name: np.array(traces[name]) for name in ("front_px", "front_sigma_px")}
    pixel_snr = take.step * scene.level_e / np.sqrt(scene.level_e + scene.background_e)
    for p, particle in enumerate(particles):
        i = int(which[p])
        if i < 0:
            continue
        inside = scene.interiors[i]
        own = {name: column[ids == particle["particle_id"]] for name, column in columns.items()}
        plain = PlainFront(images, labels == p + 1, inside_out=bool(scene_order(scene, i) == "core"))
        for half, begin in enumerate(take.begins):
            row = next(
                r for r in fronts
                if r["particle_id"] == particle["particle_id"] and r["half"] == ("charge", "discharge")[half]
            )  # fmt: skip
            true = position[half, :, i]
            low, high = inside.position_px(INSIDE), inside.position_px(1 - INSIDE)
            scored = np.flatnonzero((true >= low) & (true <= high))
            found, sigma = own["front_px"][scored], own["front_sigma_px"][scored]
            known = np.isfinite(found)
            out.modes.append(row["mode"])
            out.told.append(float(known.mean()))
            blur = np.hypot(scene.psf_sigma_px, width_px)
            line = np.array([inside.length_of_front_px(at) for at in true[scored]])
            out.bound_px.append(np.sqrt(2 * np.sqrt(np.pi) * blur / line) / pixel_snr[i])
            back = scene_order(scene, i) == "axial_back"
            out.plain_px.append(plain(scored, begin, back) - true[scored])
            if not known.any():
                continue
            out.error_px.append((found - true[scored])[known])
            out.sigma_px.append(sigma[known])
            pace = (true[scored[-1]] - true[scored[0]]) / (take.t_s[scored[-1]] - take.t_s[scored[0]])
            out.speed_error.append(abs(row["speed_px_per_s"] / pace - 1))
            out.direction_right.append(row["begin"] == _begin(scene, i, labels == p + 1) and row["speed_px_per_s"] > 0)
    return out


def scene_order(scene: InteriorScene, i: int) -> str:
    """The order of particle i."""
    return scene.order if isinstance(scene.order, str) else scene.order[i]


def _begin(scene: InteriorScene, i: int, mask: np.ndarray) -> str:
    """Where particle i's fronts begin, as the product calls it: an axis that is nearly level may point either way."""
    order = scene_order(scene, i)
    if order == "core":
        return "edge"
    along = along_axis(mask)
    down, right = along[1, 0] - along[0, 0], along[0, 1] - along[0, 0]
    true_down, true_right = scene.axis(i)
    forth = (down * true_down + right * true_right > 0) == (order == "axial")
    return "first" if forth else "last"


class PlainFront:
    """Thresholds each of a mask's pixels half-way between its first and last frames of a half, and counts."""

    def __init__(self, images: np.ndarray, mask: np.ndarray, inside_out: bool) -> None:
        self._pixels = images[:, mask].astype(float)
        y, x = np.nonzero(mask)
        if inside_out:
            places = ndimage.distance_transform_edt(mask)[mask] - 0.5
        else:
            _, vectors = np.linalg.eigh(np.cov(y, x))
            down, right = vectors[:, 1] * (1.0 if vectors[0, 1] > 0 else -1.0)
            places = down * y + right * x
            places = places - places.min() + 0.5
        self._places = np.sort(places)

    def __call__(self, frames: np.ndarray, begin: int, back: bool) -> np.ndarray:
        """(n,) places of the front in the `frames` of a half that begins at frame `begin`."""
        end = begin + HALF_FRAMES
        first, last = (self._pixels[part].mean(axis=0) for part in (slice(begin - 10, begin), slice(end, end + 10)))
        gone = (self._pixels[frames] - first) * np.sign(last - first) > 0.5 * np.abs(last - first)
        count = np.clip(gone.sum(axis=1), 1, len(self._places)) - 1
        ways = np.sort(self._places[-1] - self._places) + 0.5 if back else self._places
        return ways[count]


def _joined(many: list[Crossings]) -> Crossings:
    return Crossings(
        *([each for one in many for each in getattr(one, name)] for name in Crossings.__dataclass_fields__)
    )


def _rms(parts: list[np.ndarray]) -> float:
    return float(np.sqrt(np.mean(np.concatenate(parts) ** 2))) if parts else float("nan")


def _rms_ratio(found: Crossings) -> float:
    return _rms([error / sigma for error, sigma in zip(found.error_px, found.sigma_px, strict=True)])


def _p95(values: list[float]) -> float:
    return float(np.percentile(values, 95)) if values else float("nan")
