"""A camera's full rate on the whole daemon: 1000 particles at 1920 x 1200, from a loop that costs next to nothing."""

from __future__ import annotations

from collections.abc import Iterator

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

LOADS = (("Mono8", 163.0), ("Mono12p", 110.0))
"""What a USB3 link of 380 MB/s carries of 1920 x 1200."""
LOOP = """
[store]
state_dir = "@STATE@"
[api]
port = 0
[camera]
driver = "loop"
[camera.options]
pixel_format = "@FORMAT@"
frame_rate_hz = @RATE@
[potentiostat]
driver = "twin"
[potentiostat.options]
particles = 10
[cell]
capacity_mah = 0.5
[cell.limits]
min_voltage_v = 2.5
max_voltage_v = 4.4
max_current_ma = 10
"""
RECIPE = {
    "name": "sustained",
    "experiment": {"steps": ["Charge at 5C for 2 minutes", "Discharge at 5C until 3.0 V"], "cycles": 1000},
}
"""The loop does not follow the cell: what the run's science costs is meant, not what it finds. Halves are short, so
that what ends with them, and the memory it takes, comes often and from early on."""


def run(minutes: float, only: str | None = None) -> Iterator[tuple[str, list[Figure]]]:
    """`minutes` of each load, or of that of the pixel format `only`, told as each ends."""
    for pixel_format, rate_hz in LOADS:
        if only not in (None, pixel_format):
            continue
        yield f"{pixel_format} at {rate_hz:g} frames/s", _load(pixel_format, rate_hz, minutes)


def _load(pixel_format: str, rate_hz: float, minutes: float) -> list[Figure]:
    toml = LOOP.replace("@FORMAT@", pixel_format).replace("@RATE@", str(rate_hz))
    session = run_session(toml, RECIPE, 60 * minutes)
    return [
        *accounts_figures(session),
        *core_figures(session, 1.6, ""),
        *latency_figures(session, 200),
        *stall_figures(session, 1 / rate_hz),
        *memory_figures(session, None),
        *slope_figures(session, 1.0),
    ]
