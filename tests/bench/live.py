"""The reference load on the whole daemon: every frame accounted for, events in time, memory in bounds."""

from __future__ import annotations

import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from tests.bench.figures import Figure, at_most
from tests.service import LIVE, Service

RECIPE = {
    "name": "bench",
    "experiment": {"steps": ["Charge at 2C until 4.2 V", "Discharge at 2C until 3.0 V"], "cycles": 1000},
}
SETTLE_S = 5.0
CRACKS = "particles = 300\ncracks_per_h = 20"  # some events a second, so that their latency can be told


def run(minutes: float) -> list[Figure]:
    """`minutes` of 960 x 600 at 100 fps with 300 particles."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Service(Path(folder), LIVE.replace("particles = 300", CRACKS)) as service,
    ):
        run_id = service.post("/api/v1/runs", RECIPE)["run_id"]
        service.wait_for(lambda s: s["run"] and s["run"]["state"] == "running" and s["run"]["frames"], 60)
        time.sleep(SETTLE_S)
        early = _histogram(service)
        before, cpu_before, started = service.get("/api/v1/status"), _cpu_s(service.pid), time.monotonic()
        memory = _watch_memory(service, 60 * minutes)
        cores = (_cpu_s(service.pid) - cpu_before) / (time.monotonic() - started)
        after = service.get("/api/v1/status")
        latencies = _latencies(_histogram(service), early)
        service.post(f"/api/v1/runs/{run_id}/stop")
        service.wait_for(lambda s: s["run"] is None, 60)
        time.sleep(2.0)
        end = service.get("/api/v1/status")["frames"]
    return _figures(before["frames"], after["frames"], end, memory, latencies, cores)


def _figures(before: Any, after: Any, end: Any, memory: Any, latencies: Any, cores: float) -> list[Figure]:
    captured = after["captured"] - before["captured"]
    dropped = sum(after["dropped"].values()) - sum(before["dropped"].values())
    unaccounted = end["captured"] - end["idle"] - end["stored"] - sum(end["dropped"].values())
    figures = [
        Figure("frames captured", str(captured), ""),
        at_most("frames dropped after the first 5 s", dropped, 0, "", 0),
        at_most("frames unaccounted for at the end", abs(unaccounted), 0, "", 0),
        at_most("resident memory, daemon + engine, highest", max(memory) / 1e6, 600, "MB", 0),
        Figure("cores used by daemon + engine (the camera's own rendering included)", f"{cores:.2f}", ""),
    ]
    if latencies["count"]:
        figures.insert(3, at_most("frame to event feed, p99", 1e3 * latencies["p99_s"], 200, "ms", 0))
        figures.insert(4, Figure("  events", str(latencies["count"]), ""))
    return figures


def _cpu_s(pid: int) -> float:
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _watch_memory(service: Service, seconds: float) -> list[int]:
    readings, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        processes = [psutil.Process(service.pid), *psutil.Process(service.pid).children(recursive=True)]
        readings.append(sum(process.memory_info().rss for process in processes))
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
    return readings


def _histogram(service: Service) -> dict[float, float]:
    """The daemon's own event latencies so far: events up to each bucket's upper edge, seconds."""
    with urllib.request.urlopen(service.url + "/api/v1/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    prefix = 'instrument_event_latency_seconds_bucket{le="'
    return {
        float(line[len(prefix) :].split('"')[0].replace("+Inf", "inf")): float(line.split()[-1])
        for line in lines
        if line.startswith(prefix)
    }


def _latencies(now: dict[float, float], early: dict[float, float]) -> dict[str, float]:
    """Count and 99th percentile (a bucket's upper edge) of what came after `early`.

    Before, the baseline is still measured: what happens in its second is told when it is over.
    """
    counts = {edge: count - early.get(edge, 0.0) for edge, count in now.items()}
    total = counts.get(float("inf"), 0.0)
    p99 = next((edge for edge, count in counts.items() if total and count >= 0.99 * total), float("nan"))
    return {"count": int(total), "p99_s": p99}
