"""The reference load on the whole daemon: every frame accounted for, events in time, memory in bounds."""

from __future__ import annotations

from tests.bench.figures import Figure
from tests.bench.watch import (
    accounts_figures,
    core_figures,
    latency_figures,
    memory_figures,
    run_session,
    slope_figures,
    stall_figures,
)
from tests.service import LIVE

RECIPE = {
    "name": "bench",
    "experiment": {"steps": ["Charge at 2C until 4.2 V", "Discharge at 2C until 3.0 V"], "cycles": 1000},
}
CRACKS = "particles = 300\ncracks_per_h = 20"  # some events a second, so that their latency can be told
FRAME_S = 0.01
HALF_S = 1800.0


def run(minutes: float) -> list[Figure]:
    """`minutes` of 960 x 600 at 100 fps with 300 particles."""
    session = run_session(LIVE.replace("particles = 300", CRACKS), RECIPE, 60 * minutes, HALF_S)
    return [
        *accounts_figures(session),
        *latency_figures(session, 200),
        *stall_figures(session, FRAME_S),
        *memory_figures(session, 600),
        *slope_figures(session, 1.0),
        *core_figures(session, None, " (the camera's own rendering included)"),
    ]
