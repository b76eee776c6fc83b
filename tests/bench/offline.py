"""`photometryctl analyse` of an HDF5 recording made by the simulated instrument."""

from __future__ import annotations

import tempfile
from pathlib import Path

from daemon.offline import analyse
from hw.twin.instrument import TwinInstrument
from hw.twin.recording import write_recording
from hw.twin.settings import TwinOptions
from tests.bench.figures import Figure, at_least

FRAMES = 4000


def run() -> list[Figure]:
    """960 x 600, 12 bits, 300 particles."""
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "scene.h5"
        write_recording(recording, TwinInstrument(TwinOptions(seed=11, speed=60)), FRAMES)
        analyse(recording, Path(folder) / "warm.db")  # compiles what is not yet compiled
        summary = analyse(recording, Path(folder) / "run.db")
    rate = summary.frames / summary.seconds
    return [
        at_least("analyse from HDF5, start and end included", rate, 300, "frames/s"),
        Figure("  particles found and measured", str(summary.particles), ""),
    ]
