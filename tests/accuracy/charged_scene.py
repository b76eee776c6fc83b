"""Recordings of an electrode whose inside is known: pixels of each shell, blurred exactly, true Poisson noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
from scipy import ndimage

from daemon.engine.measures import LAYERS as MEASURED
from daemon.offline import analyse
from daemon.store.export import export_run
from daemon.store.reader import RunReader
from tests.electrode import SHELLS, History, Optics
from tests.scenes import ANGLES, PAD_PX, SUPERSAMPLING, PoissonScene

BLOCK_FRAMES = 64
REACH_PX = 8
"""Beyond a particle's window the PSF leaves nothing of it."""


class ShellScene(PoissonScene):
    """A `PoissonScene` whose particles are cut into `SHELLS` of equal area by the depth below their outline."""

    def shells(self) -> list[tuple[slice, slice, np.ndarray]]:
        """Of each particle: rows and columns of the canvas, and (SHELLS, h, w) blurred electrons, surface first."""
        return [self._shells_of(i) for i in range(self.count)]

    def _shells_of(self, i: int) -> tuple[slice, slice, np.ndarray]:
        rows, columns, _ = self._patches[i]
        fine = (np.arange((rows.stop - rows.start) * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
        cy, cx, radius_px = self._drawn[i]  # places and radii are those of the pixels by now
        dy, dx = np.meshgrid(fine + rows.start - cy, fine + columns.start - cx, indexing="ij")
        turn = ((np.arctan2(dy, dx) / (2 * np.pi) + 1) * ANGLES).astype(int) % ANGLES
        inside = dy**2 + dx**2 < (self._outline(i)[turn] * radius_px / self.radii_px[i]) ** 2
        depth = ndimage.distance_transform_edt(inside)
        shell = np.full(inside.shape, -1)
        order = np.argsort(depth[inside], kind="stable")
        ranked = np.empty(len(order), int)
        ranked[order] = np.arange(len(order)) * SHELLS // len(order)
        shell[inside] = ranked
        size = rows.stop - rows.start
        cover = np.stack(
            [(shell == k).reshape(size, SUPERSAMPLING, size, SUPERSAMPLING).mean(axis=(1, 3)) for k in range(SHELLS)]
        )
        cover = np.pad(cover, ((0, 0), (REACH_PX, REACH_PX), (REACH_PX, REACH_PX)))
        blurred = np.stack([ndimage.gaussian_filter(each, self.psf_sigma_px, truncate=6.0) for each in cover])
        wide = [slice(each.start - REACH_PX, each.stop + REACH_PX) for each in (rows, columns)]
        return wide[0], wide[1], self.level_e[i] * blurred

    def _coverage_of(self, i: int) -> tuple[slice, slice, np.ndarray]:
        self.__dict__.setdefault("_drawn", {})[i] = (self.y_px[i] + PAD_PX, self.x_px[i] + PAD_PX, self.radii_px[i])
        return super()._coverage_of(i)


@dataclass
class Recorded:
    """What the export of an analysed recording says of the scene's particles, (N, P) columns of `traces`."""

    columns: dict[str, np.ndarray]
    kinds: np.ndarray
    """(P,) as exported; empty where a particle was not found."""
    found: np.ndarray
    """(P,) bool"""


def record(path: Path, scene: ShellScene, optics: Optics, history: History, dead: np.ndarray) -> None:
    """Write the recording: one frame a state of `history`."""
    light = optics.shells(history.shells, dead)
    background = scene.mean_e(brightness=0.0)
    shells = scene.shells()
    n = len(history.t_s)
    with h5py.File(path, "w") as file:
        movie = file.create_dataset("movie", (n, scene.height, scene.width), "u2")
        for start in range(0, n, BLOCK_FRAMES):
            frames = []
            for k in range(start, min(start + BLOCK_FRAMES, n)):
                canvas = np.pad(background, PAD_PX)
                for i, (rows, columns, each) in enumerate(shells):
                    canvas[rows, columns] += np.tensordot(light[k, i], each, 1)
                frames.append(scene.expose(canvas[PAD_PX:-PAD_PX, PAD_PX:-PAD_PX]))
            movie[start : start + len(frames)] = frames
        file["camera_timing"] = history.t_s
        file["potentiostat_value"] = np.stack([history.voltage_v, history.current_c, history.charge, history.t_s])
        attributes = {
            "pixel_size_nm": 96.0, "bit_depth": scene.bit_depth, "gain_e_per_dn": scene.gain_e_per_dn,
            "read_noise_e": scene.read_noise_e, "dark_dn": scene.dark_dn, "electrode": "cathode", "capacity_mah": 1.0,
        }  # fmt: skip
        file.attrs.update(attributes)


def analysed(folder: Path, scene: ShellScene, recording: Path) -> Recorded:
    """The recording through `analyse` and the export, back in the order of the scene's particles."""
    analyse(recording, folder / "run.db")
    export_run(folder / "run.db", folder / "out", tables=("particles", "traces"))
    particles = pq.read_table(folder / "out" / "particles.parquet").to_pydict()
    traces = pq.read_table(folder / "out" / "traces.parquet")
    place = {}
    for index, (y, x) in enumerate(zip(particles["y_px"], particles["x_px"], strict=True)):
        far = np.hypot(scene.y_px - y, scene.x_px - x)
        if far.min() < 3.0:
            place[int(far.argmin())] = index
    count = len(particles["particle_id"])
    order = np.array([place.get(i, 0) for i in range(scene.count)])
    found = np.array([i in place for i in range(scene.count)])
    columns = {}
    for name in ("soc", "soc_lo", "soc_hi", "gradient", "gradient_sigma", "contrast", "contrast_sigma"):
        wide = traces[name].to_numpy().reshape(-1, count)[:, order].astype(float)
        wide[:, ~found] = np.nan
        columns[name] = wide
    with RunReader(folder / "run.db") as reader:
        names = [f"layer_{name}" for name in MEASURED]
        for name, wide in reader.particle_columns(names)[1].items():
            columns[name] = np.where(found, wide[:, order], np.nan)
    kinds = np.array([particles["calibration"][k] if seen else "" for k, seen in zip(order, found, strict=True)])
    return Recorded(columns, kinds, found)
