"""Watching a running daemon from outside: memory and processor by process, the event loop's lag, its own histograms."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from daemon.store.reader import RunReader
from tests.bench.figures import Figure, at_most
from tests.service import Service

SETTLE_S = 5.0
WARM_UP_S = 300.0  # the history of a half, 1024 blocks of a quarter second, is full after 256 s
LEAST_FIT_POINTS = 60
HALF_S = 120.0
LEAST_TIDE_S = 60.0
"""What a half gathers is let go when it ends, and only what is left of it is growth: the lowest of each half or of
this, whichever is longer, tells."""
LEAST_TIDES = 4
FULL_HALVES = 80
"""Forty cycles are kept of each particle's health; all else of size that is kept of halves is full before."""
LAG_MEMORY = 60  # the status tells the longest lag of a minute; the first minute's still knows the start of the run
ROOT = Path(__file__).parents[2]


def compile_kernels() -> None:
    """As `make` and the package do before anything starts: what is measured is not a first start's compiling."""
    script, environ = ROOT / "packaging" / "compile_kernels.py", {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(script)], check=True, env=environ)


@dataclass(frozen=True)
class Session:
    """A run on a daemon of its own, watched."""

    before: dict[str, Any]
    """Frame accounts when the watching began, when it ended, and after the run."""
    after: dict[str, Any]
    end: dict[str, Any]
    watch: Watch
    shared_mb: float
    early: dict[float, float]
    late: dict[float, float]
    """Event latencies when the watching began and when it ended."""
    longest_gap_s: float
    particles: int


def run_session(toml: str, recipe: dict[str, Any], seconds: float, half_s: float = HALF_S) -> Session:
    """Run `recipe`, of halves of `half_s`, on a daemon with the settings `toml`; watch it for so long once settled."""
    compile_kernels()
    with tempfile.TemporaryDirectory() as folder, Service(Path(folder), toml) as service:
        run_id = service.post("/api/v1/runs", recipe, timeout_s=90.0)["run_id"]
        service.wait_for(lambda s: s["run"] and s["run"]["state"] == "running" and s["run"]["frames"], 120)
        time.sleep(SETTLE_S)
        early, before, began_s = event_latencies(service), _accounts(service), time.monotonic()
        watch = Watch(service, half_s)
        watch.during(seconds)
        after, late, shared_mb = _accounts(service), event_latencies(service), watch.shared_once_mb()
        service.post(f"/api/v1/runs/{run_id}/stop")
        service.wait_for(lambda s: s["run"] is None, 60)
        with contextlib.suppress(AssertionError):  # the accounts of frames are looked at once a second
            service.wait_for(lambda s: s["frames"]["in_flight"] == 0, 15)
        run = service.get(f"/api/v1/runs/{run_id}")
        gap_s = longest_gap_s(Path(run["path"]), began_s)
        return Session(before, after, _accounts(service), watch, shared_mb, early, late, gap_s, run["particles"])


def _accounts(service: Service) -> dict[str, Any]:
    frames: dict[str, Any] = service.get("/api/v1/status")["frames"]
    return frames


class Watch:
    """Readings once a second of the daemon and the processes it started."""

    def __init__(self, service: Service, half_s: float) -> None:
        self._service = service
        self.tide_s = max(half_s, LEAST_TIDE_S)
        self.full_s = max(FULL_HALVES * half_s, WARM_UP_S)
        self.t_s: list[float] = []
        self.resident_bytes: dict[str, list[int]] = defaultdict(list)
        """By process; 0 while it does not live."""
        self.lag_s: list[float] = []
        self._cpu_s = self._cpu()
        self._started_s = time.monotonic()
        self.cores: dict[str, float] = {}
        """Processor time over time, by process; of those that live at the end of `during`."""

    def during(self, seconds: float) -> None:
        """Watch for so long."""
        deadline_s = time.monotonic() + seconds
        while (now_s := time.monotonic()) < deadline_s:
            found = self._resident()
            for name in found.keys() | self.resident_bytes.keys():
                self.resident_bytes[name] += [0] * (len(self.t_s) - len(self.resident_bytes[name]))
                self.resident_bytes[name].append(found.get(name, 0))
            self.t_s.append(now_s)
            self.lag_s.append(self._service.get("/api/v1/status")["loop_lag_s"])
            time.sleep(min(max(now_s + 1.0 - time.monotonic(), 0.0), max(deadline_s - time.monotonic(), 0.0)))
        passed_s = time.monotonic() - self._started_s
        self.cores = {name: (cpu_s - self._cpu_s.get(name, 0.0)) / passed_s for name, cpu_s in self._cpu().items()}

    def _processes(self) -> dict[str, psutil.Process]:
        daemon = psutil.Process(self._service.pid)
        named = {"daemon": daemon}
        for child in daemon.children(recursive=True):
            try:
                module = child.cmdline()[2]
            except (psutil.Error, IndexError):  # it ended, or is just being started
                continue
            named[module.rpartition(".")[2]] = child
        return named

    def _resident(self) -> dict[str, int]:
        found = {}
        for name, process in self._processes().items():
            with contextlib.suppress(psutil.Error):
                found[name] = process.memory_info().rss
        return found

    def _cpu(self) -> dict[str, float]:
        found = {}
        for name, process in self._processes().items():
            with contextlib.suppress(psutil.Error):  # it ended
                found[name] = sum(process.cpu_times()[:2])
        return found

    def shared_once_mb(self) -> float:
        """Memory of daemon and engine now, pages that both map counted once."""
        processes = [process for name, process in self._processes().items() if name in ("daemon", "engine")]
        return sum(process.memory_full_info().pss for process in processes) / 1e6

    def together(self) -> np.ndarray:
        """Resident bytes of daemon and engine, reading by reading."""
        return np.array([self.resident_bytes[name] for name in ("daemon", "engine")], float).sum(axis=0)

    def slope_mb_per_h(self, series: np.ndarray) -> tuple[float, float]:
        """Slope over the second half, after warm-up, and its standard deviation; readings in a row are alike."""
        half = max(len(series) // 2, int(np.searchsorted(self.t_s, self.t_s[0] + WARM_UP_S)))
        t_h, mb = np.array(self.t_s[half:]) / 3600.0, series[half:] / 1e6
        if len(mb) < LEAST_FIT_POINTS:
            return float("nan"), float("nan")
        t_h = t_h - t_h.mean()
        slope = float(t_h @ mb / (t_h @ t_h))
        rest = mb - mb.mean() - slope * t_h
        variance = float(rest @ rest) / (len(mb) - 2)
        alike = float(rest[1:] @ rest[:-1] / (rest @ rest)) if variance > 0 else 0.0
        alike = min(max(alike, 0.0), 0.98)
        return slope, float(np.sqrt(variance / (t_h @ t_h) * (1 + alike) / (1 - alike)))

    def low_water_mb_per_h(self, series: np.ndarray) -> tuple[float, float]:
        """Slope of the lowest readings of each `tide_s` after `full_s`, and its deviation; NaN of too short a run."""
        since_s = np.array(self.t_s) - self.t_s[0] - self.full_s
        tide = np.floor(since_s / self.tide_s).astype(int)
        whole = range(int((since_s[-1] + 1.0) // self.tide_s)) if since_s[-1] > 0 else range(0)
        if len(whole) < LEAST_TIDES:
            return float("nan"), float("nan")
        lows = np.array([np.quantile(series[tide == k], 0.05) for k in whole]) / 1e6
        t_h = (np.arange(len(lows)) - (len(lows) - 1) / 2) * self.tide_s / 3600.0
        slope = float(t_h @ lows / (t_h @ t_h))
        rest = lows - lows.mean() - slope * t_h
        return slope, float(np.sqrt(rest @ rest / (len(lows) - 2) / (t_h @ t_h)))


def memory_figures(session: Session, limit_mb: float | None) -> list[Figure]:
    """Highest resident memory, split by process."""
    watch = session.watch
    together = watch.together().max() / 1e6
    name = "resident memory, daemon + engine, highest"
    split = [
        Figure(f"  {name}", f"{max(readings) / 1e6:.0f} MB", "")
        for name, readings in sorted(watch.resident_bytes.items())
    ]
    total = Figure(name, f"{together:.0f} MB", "") if limit_mb is None else at_most(name, together, limit_mb, "MB", 0)
    return [total, *split, Figure("  pages that both map counted once, at the end", f"{session.shared_mb:.0f} MB", "")]


def slope_figures(session: Session, limit_mb_per_h: float) -> list[Figure]:
    """Growth after warm-up; without a verdict when the fit is not sure of it."""
    watch = session.watch
    processes = {name: np.array(watch.resident_bytes[name], float) for name in ("daemon", "engine")}
    figures = []
    for what, fit in (
        ("memory's slope over the second half", watch.slope_mb_per_h),
        (f"  of the lowest of each {watch.tide_s:g} s after {watch.full_s:g} s", watch.low_water_mb_per_h),
    ):
        slope, sigma = fit(watch.together())
        if figures and not np.isfinite(slope):
            break  # a run that is too short for the first figure says so there
        told = np.isfinite(slope) and 2 * sigma <= abs(slope - limit_mb_per_h)
        met = bool(slope <= limit_mb_per_h) if told else None
        figures.append(Figure(what, _slope(slope, sigma), f"<= {limit_mb_per_h:g} MB/h", met))
        figures += [Figure(f"    {name}", _slope(*fit(series)), "") for name, series in processes.items()]
    return figures


def _slope(slope: float, sigma: float) -> str:
    return f"{slope:+.2f} ± {sigma:.2f} MB/h" if np.isfinite(slope) else "too short a run"


def longest_gap_s(path: Path, t0_host_s: float) -> float:
    """Longest time between two frames' arrivals from host time `t0_host_s` on."""
    with RunReader(path) as reader:
        host_t_s = reader.frames()["host_t_s"]
    gaps = np.diff(host_t_s[host_t_s >= t0_host_s])
    return float(gaps.max()) if gaps.size else float("nan")


def event_latencies(service: Service) -> dict[float, float]:
    """The daemon's own event latencies so far: events up to each bucket's upper edge, seconds."""
    with urllib.request.urlopen(service.url + "/api/v1/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    prefix = 'instrument_event_latency_seconds_bucket{le="'
    return {
        float(line[len(prefix) :].split('"')[0].replace("+Inf", "inf")): float(line.split()[-1])
        for line in lines
        if line.startswith(prefix)
    }


def latency_figures(session: Session, limit_ms: float) -> list[Figure]:
    """99th percentile (a bucket's upper edge) while it was watched, and how many events that were.

    Before, the baseline is still measured: what happens in its second is told when it is over.
    """
    counts = {edge: count - session.early.get(edge, 0.0) for edge, count in session.late.items()}
    total = counts.get(float("inf"), 0.0)
    if not total:
        return [Figure("events", "0", "")]
    p99_s = next(edge for edge, count in counts.items() if count >= 0.99 * total)
    return [
        at_most("frame to event feed, p99", 1e3 * p99_s, limit_ms, "ms", 0),
        Figure("  events", f"{total:.0f}", ""),
    ]


def accounts_figures(session: Session) -> list[Figure]:
    """Captured, dropped and unaccounted frames."""
    before, after, end = session.before, session.after, session.end
    dropped = {
        name: rise for name, count in after["dropped"].items() if (rise := count - before["dropped"].get(name, 0))
    }
    unaccounted = end["captured"] - end["idle"] - end["stored"] - sum(end["dropped"].values())
    return [
        Figure("particles", str(session.particles), ""),
        Figure("frames captured", str(after["captured"] - before["captured"]), ""),
        at_most("frames dropped after the first 5 s", sum(dropped.values()), 0, "", 0),
        *(Figure(f"  {name}", str(count), "") for name, count in sorted(dropped.items())),
        at_most("frames unaccounted for at the end", abs(unaccounted), 0, "", 0),
    ]


def stall_figures(session: Session, frame_s: float) -> list[Figure]:
    """The longest that the camera thread and the event loop were held up."""
    late_ms = 1e3 * max(session.longest_gap_s - frame_s, 0.0)
    lags_s = session.watch.lag_s[LAG_MEMORY:] or session.watch.lag_s[-1:]
    return [
        Figure("longest stall of the camera thread (frame to frame beyond their interval)", f"{late_ms:.0f} ms", ""),
        Figure("longest lag of the daemon's event loop", f"{1e3 * max(lags_s):.0f} ms", ""),
    ]


def core_figures(session: Session, limit_cores: float | None, note: str) -> list[Figure]:
    """Processor time of daemon and engine; `note` says what else is in it."""
    cores = session.watch.cores
    name, total = f"cores used by daemon + engine{note}", cores.get("daemon", 0.0) + cores.get("engine", 0.0)
    return [
        Figure(name, f"{total:.2f}", "") if limit_cores is None else at_most(name, total, limit_cores, "cores"),
        *(Figure(f"  {name}", f"{cores[name]:.2f}", "") for name in ("daemon", "engine") if name in cores),
    ]
