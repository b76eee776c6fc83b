"""Recordings for tests: the layout of CONTRACTS with anything in it replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile

HEIGHT, WIDTH = 32, 48


def movie(frames: int = 20, dtype: str = "u2", height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Frames that all differ: every frame holds its own number in its first pixel."""
    rng = np.random.default_rng(frames)
    data = rng.integers(10, 200, (frames, height, width)).astype(dtype)
    data[:, 0, 0] = np.arange(frames)
    return data


def cell_rows(samples: int = 30, interval_s: float = 0.05, t0_s: float = 0.0) -> np.ndarray:
    """(4, M): voltage, current, charge, time."""
    t_s = t0_s + interval_s * np.arange(samples)
    return np.stack([np.linspace(3.0, 4.0, samples), np.full(samples, 1.5), 1.5 * (t_s - t0_s) / 3600, t_s])


def write_h5(path: Path, data: np.ndarray | None = None, **changes: Any) -> Path:
    """A good recording at 100 frames/s; a change replaces a dataset, or leaves it out when None.

    `attrs` sets root attributes, `options` go to the creation of `movie`.
    """
    data = movie() if data is None else data
    attrs, options = changes.pop("attrs", {}), changes.pop("options", {})
    datasets = {"camera_timing": 0.01 * np.arange(len(data)), "potentiostat_value": cell_rows()} | changes
    with h5py.File(path, "w") as file:
        file.create_dataset("movie", data=data, **options)
        for name, value in datasets.items():
            if value is not None:
                file[name] = value
        for name, value in attrs.items():
            file.attrs[name] = value
    return path


def write_tiff(path: Path, data: np.ndarray | None = None, **options: Any) -> Path:
    """A multi-page TIFF of one channel."""
    tifffile.imwrite(path, movie(dtype="u1") if data is None else data, photometric="minisblack", **options)
    return path


def cut(path: Path, fraction: float) -> Path:
    """Keep the first part of a file only."""
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * fraction)])
    return path
