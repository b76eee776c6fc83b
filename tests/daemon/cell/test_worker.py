from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from daemon.cell.worker import DeviceThread
from daemon.errors import CellReason, PotentiostatError


class Recorder:
    """What a `DeviceThread` called, in order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.delivered: list[int] = []
        self.idled = 0

    def thread(self, idle_s: float = 10.0, idle: Callable[[], None] | None = None) -> DeviceThread[int]:
        thread: DeviceThread[int] = DeviceThread(
            "worker-under-test",
            idle_s=idle_s,
            idle=idle or self.idle,
            last_words=lambda: self.done.append("last words"),
            report=lambda: len(self.done),
            deliver=self.delivered.append,
        )
        thread.start()
        return thread

    def idle(self) -> None:
        self.idled += 1

    def job(self, name: str, gate: threading.Event | None = None) -> str:
        if gate is not None:
            gate.wait(10.0)
        self.done.append(name)
        return name


async def test_jobs_run_in_order_and_urgent_ones_first() -> None:
    recorder, gate = Recorder(), threading.Event()
    thread = recorder.thread()
    futures = [thread.submit(recorder.job, "first", gate), thread.submit(recorder.job, "second")]
    await asyncio.sleep(0.02)
    futures.append(thread.submit(recorder.job, "off", urgent=True))
    gate.set()
    assert await asyncio.gather(*futures) == ["first", "second", "off"]
    assert recorder.done == ["first", "off", "second"]
    await thread.stop()
    assert not thread.alive


async def test_report_is_delivered_before_the_result() -> None:
    recorder = Recorder()
    thread = recorder.thread()
    for expected in (1, 2, 3):
        await thread.submit(recorder.job, "x")
        assert recorder.delivered[-1] == expected
    await thread.stop()


async def test_exceptions_travel_and_dropped_ones_do_no_harm() -> None:
    recorder = Recorder()
    thread = recorder.thread()

    def fail() -> None:
        raise ValueError("it")

    with pytest.raises(ValueError, match="it"):
        await thread.submit(fail)
    thread.submit(fail)
    assert len(recorder.delivered) == 1
    await thread.stop()
    assert len(recorder.delivered) == 2


async def test_idle_is_called_even_while_the_loop_is_blocked() -> None:
    recorder = Recorder()
    thread = recorder.thread(idle_s=0.02)
    time.sleep(0.15)  # noqa: ASYNC251 - the loop is blocked on purpose
    assert recorder.idled >= 3
    await thread.stop()


async def test_a_failing_idle_does_not_end_the_thread() -> None:
    recorder = Recorder()

    def fail() -> None:
        recorder.idled += 1
        raise OSError("it")

    thread = recorder.thread(idle_s=0.01, idle=fail)
    await asyncio.sleep(0.1)
    assert recorder.idled >= 2
    assert await thread.submit(recorder.job, "x") == "x"
    await thread.stop()


async def test_an_abandoned_thread_fails_its_jobs_and_has_last_words() -> None:
    recorder, gate = Recorder(), threading.Event()
    thread = recorder.thread()
    futures = [thread.submit(recorder.job, "stuck", gate), thread.submit(recorder.job, "never")]
    await asyncio.sleep(0.02)
    thread.abandon("it does not return")
    for future in futures:
        with pytest.raises(PotentiostatError) as caught:
            await future
        assert caught.value.reason is CellReason.HUNG
    with pytest.raises(PotentiostatError):
        thread.submit(recorder.job, "later")
    await thread.stop()  # returns at once
    assert thread.alive
    gate.set()
    await asyncio.to_thread(thread._thread.join, 2.0)
    assert recorder.done == ["stuck", "last words"]
    assert recorder.delivered == []


async def test_cancelling_a_waiter_does_not_cancel_the_job() -> None:
    recorder, gate = Recorder(), threading.Event()
    thread = recorder.thread()

    async def wait() -> Any:
        return await thread.submit(recorder.job, "x", gate)

    waiter = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    waiter.cancel()
    gate.set()
    await thread.stop()
    assert recorder.done == ["x"]
    assert waiter.cancelled()


def test_outliving_the_loop_is_quiet() -> None:
    recorder, gate = Recorder(), threading.Event()

    async def leave() -> DeviceThread[int]:
        thread = recorder.thread()
        thread.submit(recorder.job, "x", gate)
        return thread

    thread = asyncio.run(leave())
    gate.set()
    thread._at_exit()
    assert not thread.alive
    assert recorder.done == ["x", "last words"]
