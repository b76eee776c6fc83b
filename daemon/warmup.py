"""Compiling every kernel into numba's cache ahead of the first start: the engine's, and the simulated instrument's.

Installation does it (``packaging/compile_kernels.py``), and whoever wants the first start to be quick
(``photometryctl warm``).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daemon.engine.warm import warm_kernels
from daemon.photometry.axial import warm_axial
from daemon.photometry.calibration import warm_curves
from daemon.photometry.fronts_fit import warm_fronts
from hw.camera import DRIVERS as CAMERAS
from hw.drivers import build_driver
from hw.potentiostat import DRIVERS as POTENTIOSTATS

SIMULATED = "simulated instrument"
FRAME_S = 60.0  # compiles on the way


@dataclass
class Warmth:
    """What was done: kernels compiled now, and those that the cache held already."""

    compiled: int
    loaded: int
    seconds: float
    cache_dir: str
    """Where they are, or the directory above where they are in several."""


def warm_all(progress: Callable[[str, int, int], None] = lambda name, done, total: None) -> Warmth:
    """Compile, or load, every kernel; tells `progress(name, done, total)` before each step, and at the end."""
    started, compiled, loaded = time.monotonic(), _count("cache_misses"), _count("cache_hits")
    steps = 0

    def tell(name: str, done: int, total: int) -> None:
        nonlocal steps
        steps = total + 1
        progress(name or SIMULATED, done, steps)

    warm_kernels(tell)
    warm_fronts()
    warm_curves()
    warm_axial()
    with tempfile.TemporaryDirectory() as directory:
        _warm_simulated(Path(directory) / "world")
    progress("", steps, steps)
    return Warmth(
        _count("cache_misses") - compiled,
        _count("cache_hits") - loaded,
        time.monotonic() - started,
        os.path.commonpath([kernel.stats.cache_path for kernel in _kernels()]),
    )


def _warm_simulated(world: Path) -> None:
    """Drive a small simulated cell for a moment and look at it."""
    potentiostat = build_driver(POTENTIOSTATS, "twin", {"world": str(world), "particles": 20})
    camera = build_driver(CAMERAS, "twin", {"world": str(world)})
    potentiostat.open()
    try:
        potentiostat.set_current(0.1)
        potentiostat.read(1.0)
        info = camera.open()
        camera.start()
        payload = np.zeros(info.pixel_format.payload_bytes(info.height_px, info.width_px), np.uint8)
        camera.next_frame(payload, FRAME_S)
    finally:
        camera.close()
        potentiostat.close()


def _count(what: str) -> int:
    """Sum of one of numba's cache counters over the kernels that are imported."""
    return sum(sum(getattr(kernel.stats, what).values()) for kernel in _kernels())


def _kernels() -> Iterator[Any]:
    """Each once, though modules import them from each other."""
    modules = [module for name, module in sys.modules.items() if name.startswith(("kernels.", "hw."))]
    found = {id(value): value for module in modules for value in vars(module).values() if _is_kernel(value)}
    yield from found.values()


def _is_kernel(value: Any) -> bool:
    return hasattr(value, "py_func") and hasattr(value, "stats")
