from __future__ import annotations

import asyncio
import time

import pytest

from daemon.diagnostics.metrics import Metrics
from daemon.errors import StoreError, StoreReason
from daemon.store import maintenance as module
from daemon.store.maintenance import Job, Maintenance
from daemon.store.retention import Interrupted

DAY_S = 86_400.0


class Rig:
    """Maintenance over jobs that say what they are asked to."""

    def __init__(self, *jobs, settle_s=0.0):
        self.measuring = False
        self.told = []
        self.one = Maintenance(
            jobs, lambda: self.measuring, lambda *told: self.told.append(told), settle_s=settle_s, look_s=0.005
        )

    async def __aenter__(self):
        await self.one.start()
        return self

    async def __aexit__(self, *_):
        await self.one.stop()

    async def until(self, met):
        async with asyncio.timeout(10):
            while not met():
                await asyncio.sleep(0.005)


def slow(stop):
    """Goes on until it is told to stop."""
    while not stop():
        time.sleep(0.002)
    raise Interrupted


async def test_jobs_run_one_after_the_other_and_tell_how_they_went():
    names = []

    def job(name):
        return Job(name, DAY_S, lambda stop: names.append(name) or f"did {name}")

    async with Rig(job("a"), job("b")) as rig:
        await rig.until(lambda: len(rig.told) == 2)
        await asyncio.sleep(0.05)
    assert names == ["a", "b"]  # and none again before its period is over
    assert [told[:2] for told in rig.told] == [("a", "done"), ("b", "done")]
    status = rig.one.status()
    assert status.state == "ready" and status.values["a"]["detail"] == "did a"
    assert status.values["b"].keys() == {"outcome", "detail", "utc", "took_s"}


async def test_nothing_runs_beside_a_run_or_right_after_it():
    ran = []
    rig = Rig(Job("a", DAY_S, lambda stop: str(ran.append(time.monotonic()))), settle_s=0.1)
    rig.measuring = True
    async with rig:
        await asyncio.sleep(0.05)
        assert not ran
        rig.measuring, ended_s = False, time.monotonic()
        await rig.until(lambda: ran)
    assert ran[0] - ended_s >= 0.09


async def test_a_run_that_begins_interrupts_the_job_which_is_the_next_to_run():
    async with Rig(Job("slow", DAY_S, slow), Job("other", DAY_S, lambda stop: "done")) as rig:
        await rig.until(lambda: rig.one.running == "slow")
        rig.measuring, began_s = True, time.monotonic()
        await rig.until(lambda: rig.told)
        assert time.monotonic() - began_s < 5
        assert rig.told[0][:2] == ("slow", "interrupted")
        rig.measuring = False
        await rig.until(lambda: rig.one.running == "slow")
        assert rig.one.status().state == "ready"
    assert rig.told[-1][:2] == ("slow", "interrupted")  # by the end of the service


async def test_a_job_that_fails_is_told_with_its_remedy_and_tried_again_later():
    def fails(stop):
        raise StoreError(StoreReason.NOT_WRITABLE, "the disk is gone")

    async with Rig(Job("retention", DAY_S, fails), Job("b", DAY_S, lambda stop: "fine")) as rig:
        await rig.until(lambda: len(rig.told) == 2)
    status = rig.one.status()
    assert (status.state, status.reason) == ("degraded", "store.not_writable")
    assert status.detail == "retention: the disk is gone" and status.remedy


async def test_a_fault_of_the_software_does_not_end_maintenance(caplog):
    def broken(stop):
        raise ZeroDivisionError

    async with Rig(Job("broken", DAY_S, broken), Job("b", DAY_S, lambda stop: "fine")) as rig:
        await rig.until(lambda: len(rig.told) == 2)
    assert rig.one.last["broken"].outcome == "failed" and rig.one.last["b"].outcome == "done"
    assert "ZeroDivisionError" in caplog.text


async def test_the_way_down_does_not_wait_for_a_disk_that_hangs(monkeypatch):
    monkeypatch.setattr(module, "STOP_S", 0.05)
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hangs(stop):
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20)
        return ""

    rig = Rig(Job("hangs", DAY_S, hangs))
    await rig.one.start()
    await rig.until(lambda: rig.one.running == "hangs")
    task, began_s = rig.one._task, time.monotonic()
    await rig.one.stop()
    assert time.monotonic() - began_s < 5
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_metrics_of_a_job():
    metrics = Metrics()
    metrics.maintenance("retention", "interrupted", 0.5)
    assert b'instrument_maintenance_runs_total{job="retention",outcome="interrupted"} 1.0' in metrics.text()
    assert b"instrument_maintenance_done_timestamp_seconds{" not in metrics.text()
    metrics.maintenance("retention", "done", 2.5)
    assert b'instrument_maintenance_duration_seconds{job="retention"} 2.5' in metrics.text()
    assert b'instrument_maintenance_done_timestamp_seconds{job="retention"} 1' in metrics.text()
