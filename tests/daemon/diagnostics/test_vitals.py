"""Loop lag and memory are measured while the daemon runs."""

from __future__ import annotations

import asyncio
import os
import time

from daemon.diagnostics import vitals
from daemon.diagnostics.metrics import Metrics
from daemon.diagnostics.vitals import Vitals, resident_bytes, written_bytes


async def test_a_blocked_loop_shows_as_lag() -> None:
    probe = Vitals(Metrics(), dict)
    await probe.start()
    await asyncio.sleep(0.05)
    time.sleep(0.3)  # noqa: ASYNC251  the fault under test
    await asyncio.sleep(0.05)
    assert 0.2 < probe.worst_lag_s < 5
    await probe.stop()
    await probe.stop()


async def test_memory_of_living_processes_is_published() -> None:
    metrics = Metrics()
    probe = Vitals(metrics, lambda: {"daemon": os.getpid(), "engine": 2**22 + 1})
    await probe.start()
    for _ in range(300):
        if probe.resident_bytes:
            break
        await asyncio.sleep(0.01)
    await probe.stop()
    assert list(probe.resident_bytes) == ["daemon"]
    assert 10e6 < probe.resident_bytes["daemon"] < 10e9
    assert b'instrument_resident_memory_bytes{process="daemon"}' in metrics.text()
    assert vitals.LAG_PERIOD_S < vitals.MEMORY_PERIOD_S


def test_no_processes_no_figures() -> None:
    assert resident_bytes({}) == {}


def test_what_this_process_wrote_is_known() -> None:
    assert written_bytes({"daemon": os.getpid(), "engine": 2**22 + 1}).keys() == {("daemon", os.getpid())}
