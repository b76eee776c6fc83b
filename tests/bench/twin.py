"""What the simulated camera costs."""

from __future__ import annotations

import time

from hw.twin.instrument import TwinInstrument
from hw.twin.settings import TwinOptions
from tests.bench.figures import Figure

FRAMES = 400


def run() -> list[Figure]:
    """Stepping the cell and rendering 960 x 600 with 300 particles, as a share of a core at 100 fps."""
    shares = {}
    for speed in (1, 60):
        instrument = TwinInstrument(TwinOptions(seed=3, speed=speed), c_rate=2.0)
        for _ in range(20):
            instrument.next_frame()
        started = time.process_time()
        for _ in range(FRAMES):
            instrument.next_frame()
        shares[speed] = (time.process_time() - started) / FRAMES * 100
    return [
        Figure(f"core share at 100 fps, speed {speed}, truth kept", f"{100 * share:.0f} %", "<= 60 %", share <= 0.6)
        for speed, share in shares.items()
    ]
