"""Steps of the wall clock are told, and nothing else is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from daemon.diagnostics.clock_watch import ClockWatch, wall_time_s

PERIOD_S = 0.02


class Wall:
    """A wall clock that can be set."""

    def __init__(self) -> None:
        self.offset_s = 1_700_000_000.0
        self.looks = 0
        self.delay_s = 0.0
        self.held_s = 0.0

    def __call__(self) -> float:
        self.looks += 1
        self.held_s += self.delay_s
        return time.clock_gettime(time.CLOCK_BOOTTIME) + self.offset_s

    async def wait(self, looks: int) -> None:
        target = self.looks + looks
        async with asyncio.timeout(2):
            while self.looks < target:
                await asyncio.sleep(PERIOD_S / 4)


@pytest.mark.parametrize("step_s", [3.0, -7200.0, 0.6])
async def test_a_step_is_told_once_with_its_sign(step_s: float) -> None:
    wall, told = Wall(), list[float]()
    watch = ClockWatch(told.append, period_s=PERIOD_S, wall_s=wall)
    await watch.start()
    await wall.wait(2)
    wall.offset_s += step_s
    await wall.wait(4)
    await watch.stop()
    assert told == [pytest.approx(step_s, abs=0.1)]
    assert watch.steps == 1
    assert watch.moved_s == told[0]


async def test_slewing_and_small_corrections_are_no_steps() -> None:
    wall, told = Wall(), list[float]()
    watch = ClockWatch(told.append, period_s=PERIOD_S, wall_s=wall)
    await watch.start()
    for _ in range(8):
        wall.offset_s += 0.2  # 1.6 s altogether
        await wall.wait(2)
    await watch.stop()
    assert told == []


async def test_a_suspend_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    slept_s = 0.0
    real: Callable[[int], float] = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda clock: real(clock) + slept_s * (clock == time.CLOCK_BOOTTIME))
    wall, told = Wall(), list[float]()
    watch = ClockWatch(told.append, period_s=PERIOD_S, wall_s=wall)
    await watch.start()
    await wall.wait(2)
    slept_s = 3600.0
    await wall.wait(4)
    await watch.stop()
    assert told == []


async def test_a_look_that_was_held_up_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, told = Wall(), list[float]()
    real: Callable[[int], float] = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda clock: real(clock) + wall.held_s)
    watch = ClockWatch(told.append, period_s=PERIOD_S, wall_s=wall)
    await watch.start()
    await wall.wait(1)
    wall.delay_s = 10.0  # between the two readings
    await wall.wait(3)
    assert told == []
    wall.delay_s = 0.0
    wall.offset_s += 5
    await wall.wait(4)
    await watch.stop()
    assert told[0] == pytest.approx(5, abs=0.1)


async def test_stop_is_idempotent_and_nothing_is_told_after_it() -> None:
    wall, told = Wall(), list[float]()
    watch = ClockWatch(told.append, period_s=PERIOD_S, wall_s=wall)
    await watch.stop()
    await watch.start()
    await watch.start()
    await watch.stop()
    await watch.stop()
    wall.offset_s += 100
    await asyncio.sleep(3 * PERIOD_S)
    assert told == []


def test_the_wall_clock_is_posix_time() -> None:
    assert wall_time_s() == pytest.approx(time.time(), abs=1)
