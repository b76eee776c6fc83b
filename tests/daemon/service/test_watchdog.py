"""The watchdog is fed by progress and by nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from daemon.errors import ServiceReason
from daemon.service.notify import Notifier
from daemon.service.watchdog import PINGS_PER_INTERVAL, Watchdog, interval_from

INTERVAL_S = 0.2


class Ear(Notifier):
    """Remembers what systemd would have heard."""

    def __init__(self) -> None:
        super().__init__({})
        self.ping_times_s: list[float] = []
        self.texts: list[str] = []

    def watchdog(self) -> None:
        self.ping_times_s.append(time.monotonic())

    def status(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
async def watchdog(ear: Ear) -> AsyncIterator[Watchdog]:
    watchdog = Watchdog(ear, stall_s=0.3, interval_s=INTERVAL_S)
    await watchdog.start()
    yield watchdog
    await watchdog.stop()


async def until(condition: object, deadline_s: float = 3.0) -> None:
    end_s = time.monotonic() + deadline_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end_s
        await asyncio.sleep(0.01)


async def test_pings_come_well_within_the_interval(watchdog: Watchdog, ear: Ear) -> None:
    beat = watchdog.register("store")
    for _ in range(20):
        beat()
        await asyncio.sleep(0.02)
    assert len(ear.ping_times_s) >= PINGS_PER_INTERVAL
    assert watchdog.status().state == "ready"


async def test_a_silent_part_stops_the_pings_and_is_named(watchdog: Watchdog, ear: Ear) -> None:
    watchdog.register("store")
    await until(lambda: ear.texts)
    assert "watchdog not fed: store made no progress" in ear.texts[0]
    assert list(watchdog.stalled()) == ["store"]
    pings = len(ear.ping_times_s)
    await asyncio.sleep(2 * INTERVAL_S)
    assert len(ear.ping_times_s) == pings
    status = watchdog.status()
    assert (status.state, status.reason) == ("degraded", ServiceReason.STALLED.code)


async def test_progress_resumes_the_pings(watchdog: Watchdog, ear: Ear) -> None:
    beat = watchdog.register("store")
    await until(lambda: ear.texts)
    pings = len(ear.ping_times_s)
    beat()
    await until(lambda: len(ear.ping_times_s) > pings)
    assert ear.texts[-1] == "ready"


async def test_one_silent_part_among_lively_ones_is_enough(watchdog: Watchdog, ear: Ear) -> None:
    watchdog.register("cell")
    end = threading.Event()

    def work() -> None:
        beat = watchdog.register("engine")
        while not end.wait(0.02):
            beat()

    thread = threading.Thread(target=work)
    thread.start()
    await until(lambda: ear.texts)
    end.set()
    thread.join()
    assert list(watchdog.stalled()) == ["cell"]


async def test_a_part_stopped_on_purpose_is_not_missed(watchdog: Watchdog, ear: Ear) -> None:
    beat = watchdog.register("engine")
    watchdog.unregister("engine")
    beat()
    await asyncio.sleep(0.5)
    assert watchdog.stalled() == {}
    assert ear.texts == []


async def test_each_stall_is_reported_once(ear: Ear) -> None:
    stalls: list[str] = []
    watchdog = Watchdog(ear, stall_s=0.05, interval_s=0.1, on_stall=lambda name, silence_s: stalls.append(name))
    await watchdog.start()
    beat = watchdog.register("store")
    await asyncio.sleep(0.3)
    assert stalls == ["store"]
    beat()
    await until(lambda: len(stalls) == 2)
    await watchdog.stop()


async def test_a_loop_that_ran_late_withholds_the_ping(watchdog: Watchdog, ear: Ear) -> None:
    await until(lambda: ear.ping_times_s)
    time.sleep(2 * INTERVAL_S)  # noqa: ASYNC251  the fault under test
    late_s = time.monotonic()
    await until(lambda: ear.texts)
    assert "event loop ran" in ear.texts[0]
    await until(lambda: ear.ping_times_s[-1] > late_s)  # a single lateness is forgiven
    assert watchdog.lateness_s < INTERVAL_S


async def test_without_a_supervisor_stalls_are_still_seen(ear: Ear) -> None:
    watchdog = Watchdog(ear, stall_s=0.01)
    watchdog.register("store")
    await watchdog.start()
    await asyncio.sleep(0.05)
    assert list(watchdog.stalled()) == ["store"]
    assert ear.ping_times_s == []
    await watchdog.stop()
    await watchdog.stop()


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_interval_from_the_environment(environ: dict[str, str], interval_s: float | None) -> None:
    assert interval_from(environ) == interval_s
