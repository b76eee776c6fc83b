"""A camera's full rate on the whole daemon: 1000 particles at 1920 x 1200, from a loop that costs next to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.bench.figures import Figure
from tests.bench.watch import (
    HALF_S,
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


def recipe(half_s: float) -> dict[str, Any]:
    """Charge and discharge for so long each, over and over.

    The loop does not follow the cell: what the run's science costs is meant, not what it finds. The shorter the halves,
    the oftener what ends with them, and the sooner all that is kept of them is full.
    """
    steps = [f"{what} at 5C for {half_s:g} seconds" for what in ("Charge", "Discharge")]
    return {"name": "sustained", "experiment": {"steps": steps, "cycles": 10_000}}


def run(minutes: float, only: str | None = None, half_s: float = HALF_S) -> Iterator[tuple[str, list[Figure]]]:
    """`minutes` of each load, or of that of the pixel format `only`, told as each ends."""
    for pixel_format, rate_hz in LOADS:
        if only not in (None, pixel_format):
            continue
        yield f"{pixel_format} at {rate_hz:g} frames/s", _load(pixel_format, rate_hz, minutes, half_s)


def _load(pixel_format: str, rate_hz: float, minutes: float, half_s: float) -> list[Figure]:
    toml = LOOP.replace("@FORMAT@", pixel_format).replace("@RATE@", str(rate_hz))
    session = run_session(toml, recipe(half_s), 60 * minutes, half_s)
    return [
        *accounts_figures(session),
        *core_figures(session, 1.6, ""),
        *latency_figures(session, 200),
        *stall_figures(session, 1 / rate_hz),
        *memory_figures(session, None),
        *slope_figures(session, 1.0),
    ]
