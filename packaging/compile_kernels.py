"""Compiles every kernel into numba's cache: those of the engine, and those of the simulated instrument."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from daemon.engine.warm import warm_kernels
from hw.camera import DRIVERS as CAMERAS
from hw.drivers import build_driver
from hw.potentiostat import DRIVERS as POTENTIOSTATS


def warm_twin(world: Path) -> None:
    """Drive a small simulated cell for a moment and look at it."""
    potentiostat = build_driver(POTENTIOSTATS, "twin", {"world": str(world), "particles": 20})
    camera = build_driver(CAMERAS, "twin", {"world": str(world)})
    potentiostat.open()
    try:
        potentiostat.set_current(0.1)
        potentiostat.read(1.0)
        info = camera.open()
        camera.start()
        camera.next_frame(np.zeros(info.pixel_format.payload_bytes(info.height_px, info.width_px), np.uint8), 5.0)
    finally:
        camera.close()
        potentiostat.close()


if __name__ == "__main__":
    warm_kernels()
    with tempfile.TemporaryDirectory() as directory:
        warm_twin(Path(directory) / "world")
