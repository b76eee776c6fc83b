"""Regular measurements of the process itself: event loop lag, memory, bytes written."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import psutil

from daemon.diagnostics.metrics import Metrics

LAG_PERIOD_S = 0.1
LAG_WINDOW = 600  # samples kept for `worst_lag_s`: a minute
MEMORY_PERIOD_S = 5.0


class Vitals:
    """Two probe tasks. `processes()` names the pids whose memory counts, e.g. ``{"daemon": 12, "engine": 34}``."""

    def __init__(self, metrics: Metrics, processes: Callable[[], dict[str, int]]) -> None:
        self._metrics = metrics
        self._processes = processes
        self._lags_s: deque[float] = deque(maxlen=LAG_WINDOW)
        self._tasks: list[asyncio.Task[None]] = []
        self.resident_bytes: dict[str, int] = {}
        """Resident memory by process, as last measured."""
        self._written: dict[tuple[str, int], int] = {}

    @property
    def worst_lag_s(self) -> float:
        """Largest loop lag of the last minute."""
        return max(self._lags_s, default=0.0)

    async def start(self) -> None:
        """Begin to probe."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._probe_lag(), name="loop-lag"),
                asyncio.create_task(self._probe_memory(), name="memory"),
            ]

    async def stop(self) -> None:
        """Stop probing; idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _probe_lag(self) -> None:
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(LAG_PERIOD_S)
            lag_s = max(0.0, time.monotonic() - before_s - LAG_PERIOD_S)
            self._lags_s.append(lag_s)
            self._metrics.loop_lag(lag_s)

    async def _probe_memory(self) -> None:
        while True:
            self.resident_bytes = await asyncio.to_thread(resident_bytes, self._processes())
            for name, size_bytes in self.resident_bytes.items():
                self._metrics.resident_memory(name, size_bytes)
            for (name, pid), count in (await asyncio.to_thread(written_bytes, self._processes())).items():
                self._metrics.storage_written(name, max(0, count - self._written.get((name, pid), 0)))
                self._written[name, pid] = count
            await asyncio.sleep(MEMORY_PERIOD_S)


def resident_bytes(processes: dict[str, int]) -> dict[str, int]:
    """Resident memory of each process that still lives, bytes. Blocking."""
    found = {}
    for name, pid in processes.items():
        try:
            found[name] = psutil.Process(pid).memory_info().rss
        except psutil.Error:  # it ended
            continue
    return found


def written_bytes(processes: dict[str, int]) -> dict[tuple[str, int], int]:
    """Bytes that each process that still lives has sent to storage, by name and pid. Blocking."""
    found = {}
    for name, pid in processes.items():
        try:
            found[name, pid] = psutil.Process(pid).io_counters().write_bytes
        except (psutil.Error, OSError):  # it ended, or the system does not tell
            continue
    return found
