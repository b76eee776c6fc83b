"""Requests and followers while the instrument measures at a camera's full rate: nobody may wait, no frame be lost."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tests.bench.figures import Figure, at_most
from tests.bench.load_client import FOLLOWERS, RATE_HZ, STALLED
from tests.bench.sustained import LOOP, RECIPE
from tests.bench.watch import SETTLE_S, compile_kernels
from tests.service import Service

FRAME_RATE_HZ = 110.0
LAG = "instrument_loop_lag_seconds"
"""As the daemon counts it: buckets of a histogram."""


def run(minutes: float, rate_hz: float = RATE_HZ, frame_rate_hz: float = FRAME_RATE_HZ) -> list[Figure]:
    """`minutes` of 1920 x 1200 in Mono12p with 1000 particles, `rate_hz` requests a second and 50 followers."""
    compile_kernels()
    toml = LOOP.replace("@FORMAT@", "Mono12p").replace("@RATE@", str(frame_rate_hz))
    with tempfile.TemporaryDirectory() as folder, Service(Path(folder), toml) as service:
        service.wait_for(lambda s: s["frames"] and s["frames"]["captured"], 180)  # the loop is rendered first
        run_id = service.post("/api/v1/runs", RECIPE, timeout_s=90.0)["run_id"]
        service.wait_for(lambda s: s["run"] and s["run"]["state"] == "running" and s["run"]["frames"], 120)
        time.sleep(SETTLE_S)
        began_s = time.monotonic()
        rows = service.get(f"/api/v1/runs/{run_id}/particles")["particles"]
        asked = {
            "url": service.url,
            "run_id": run_id,
            "particles": [row["particle_id"] for row in rows],
            "t_s": SETTLE_S + time.monotonic() - began_s,
            "seconds": 60 * minutes,
            "rate_hz": rate_hz,
        }
        before, lags_before = service.get("/api/v1/status"), lags(service)
        cpu_before_s, watched_s = _cpu_s(service), time.monotonic()
        command = [sys.executable, "-m", "tests.bench.load_client", json.dumps(asked)]
        told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60 * minutes + 120)
        cores = (_cpu_s(service) - cpu_before_s) / (time.monotonic() - watched_s)
        after, lags_after = service.get("/api/v1/status"), lags(service)
        service.post(f"/api/v1/runs/{run_id}/stop")
        service.wait_for(lambda s: s["run"] is None, 60)
    rises = {edge: count - lags_before.get(edge, 0.0) for edge, count in lags_after.items()}
    return _figures(json.loads(told.stdout), before, after, rises, len(rows), cores)


def _figures(
    told: dict[str, Any], before: Any, after: Any, lag_rises: dict[float, float], particles: int, cores: float
) -> list[Figure]:
    frames = {name: after["frames"][name] - before["frames"][name] for name in ("captured", "measured")}
    dropped = sum(after["frames"]["dropped"].values()) - sum(before["frames"]["dropped"].values())
    answered = told["statuses"].get("200", 0)
    asked = sum(told["statuses"].values())
    status_s = told["latencies_s"].get("status", [float("nan")])
    return [
        Figure("particles", str(particles), ""),
        Figure("frames captured", str(frames["captured"]), ""),
        at_most("frames lost", dropped, 0, "", 0),
        at_most("lag of the event loop, p99.9 (a bucket's upper edge)", 1e3 * quantile(lag_rises, 0.999), 50, "ms", 0),
        at_most("status, p99 at the client", 1e3 * float(np.quantile(status_s, 0.99)), 50, "ms", 1),
        *(
            Figure(f"  {kind}: median, p99, longest", _spread(values), "")
            for kind, values in sorted(told["latencies_s"].items())
        ),
        at_most("requests not answered with 200", asked - answered, 0, "", 0),
        *(Figure(f"  {status}", str(count), "") for status, count in sorted(told["statuses"].items())),
        Figure(f"followers, {STALLED} of {FOLLOWERS} stalled: events heard", str(told["heard"].get("lines", 0)), ""),
        at_most("  readers that were cut off", told["heard"].get("followers ended", 0), 0, "", 0),
        Figure("cores used by the daemon's own process", f"{cores:.2f}", ""),
        Figure("cores used by the asking", f"{told['cores']:.2f}", ""),
    ]


def _spread(values: list[float]) -> str:
    median, p99 = np.quantile(values, [0.5, 0.99])
    return f"{1e3 * median:.1f}, {1e3 * p99:.1f}, {1e3 * max(values):.1f} ms"


def lags(service: Service) -> dict[float, float]:
    """How often the event loop was late by at most so many seconds: cumulative counts by upper edge."""
    return buckets(service, LAG)


def buckets(service: Service, name: str) -> dict[float, float]:
    """Cumulative counts of a histogram without labels, by upper edge."""
    with urllib.request.urlopen(f"{service.url}/api/v1/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    prefix = f'{name}_bucket{{le="'
    return {
        float(line[len(prefix) :].split('"')[0].replace("+Inf", "inf")): float(line.split()[-1])
        for line in lines
        if line.startswith(prefix)
    }


def quantile(rises: dict[float, float], share: float) -> float:
    """The upper edge of the bucket that holds the quantile; NaN of nothing."""
    total = rises.get(float("inf"), 0.0)
    return next((edge for edge, count in sorted(rises.items()) if total and count >= share * total), float("nan"))


def _cpu_s(service: Service) -> float:
    spent = psutil.Process(service.pid).cpu_times()
    return float(spent.user + spent.system)
