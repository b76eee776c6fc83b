"""The self-test: every check ends as a result, whatever it does."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path

import pytest

from daemon.diagnostics import selftest as module
from daemon.diagnostics.checks.base import Check, CheckResult
from daemon.diagnostics.checks.table import Site, machine_checks
from daemon.diagnostics.selftest import SelfTest, report, run_check


class Passing(Check):
    name = "passing"
    remedy = "Nothing."

    def run(self) -> CheckResult:
        return self.result("pass", "1 ms", "2 ms")


class Broken(Check):
    name = "broken"
    remedy = "Report it."

    def run(self) -> CheckResult:
        raise ZeroDivisionError("division by zero")


class Hanging(Check):
    name = "hanging"
    remedy = "Replace the disk."

    def __init__(self) -> None:
        self.release = threading.Event()
        self.runs = 0

    def run(self) -> CheckResult:
        self.runs += 1
        self.release.wait(10)
        return self.result("pass", "", "")


async def test_the_report_has_every_check_and_the_worst_outcome() -> None:
    severities: dict[str, int] = {}
    selftest = SelfTest([Passing(), Broken()], on_result=severities.__setitem__)
    assert selftest.last is None
    report = await selftest.run()
    assert report == selftest.last
    assert report["outcome"] == "fail"
    passing, broken = report["checks"]
    assert passing == {
        "name": "passing", "outcome": "pass", "measured": "1 ms", "limit": "2 ms", "remedy": "", "surroundings": False,
    }  # fmt: skip
    assert "ZeroDivisionError: division by zero" in broken["measured"]
    assert broken["remedy"] == "Report it."
    assert severities == {"passing": 0, "broken": 2}


async def test_a_hanging_check_fails_in_time_and_is_not_started_twice() -> None:
    hanging = Hanging()
    selftest = SelfTest([hanging, Passing()], deadline_s=0.1)
    began_s = time.monotonic()
    first = await selftest.run()
    second = await selftest.run()
    assert time.monotonic() - began_s < 2
    assert [check["outcome"] for check in first["checks"]] == ["fail", "pass"]
    assert first["checks"][0]["measured"] == "no answer"
    assert second["checks"][0]["measured"] == "still hanging since an earlier self-test"
    assert hanging.runs == 1
    hanging.release.set()


def test_no_checks_pass() -> None:
    assert report([]) == {"outcome": "pass", "checks": []}


def test_the_machine_checks_run_here(tmp_path: Path) -> None:
    results = [run_check(check) for check in machine_checks(Site(tmp_path, 1))]
    names = [result.name for result in results]
    assert names[:3] == ["state_directory", "free_space", "disk_wear"]
    assert results[0].outcome != "fail"
    assert all(bool(result.remedy) == (result.outcome != "pass") for result in results)
    assert all(result.measured and result.limit for result in results)
    assert list(tmp_path.iterdir()) == []


async def test_a_start_tests_itself_once_settled_and_tells(caplog: pytest.LogCaptureFixture) -> None:
    settled = [False, False, True]
    selftest = SelfTest([Passing(), Broken()], settled=lambda: settled.pop(0))
    assert selftest.summary() is None
    with caplog.at_level(logging.INFO), pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SETTLE_POLL_S", 0.01)
        await selftest.start()
        async with asyncio.timeout(10):
            while selftest.last is None:
                await asyncio.sleep(0.01)
    summary = selftest.summary()
    assert summary is not None
    assert (summary["outcome"], summary["failed"], summary["warned"]) == ("fail", ["broken"], [])
    assert summary["utc"].endswith("+00:00")
    assert settled == []
    await selftest.stop()
    await selftest.stop()
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert any("self-test: broken: fail: the check itself failed" in line and "Report it." in line for line in errors)


async def test_a_start_that_never_settles_is_tested_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_S", 0.02)
    monkeypatch.setattr(module, "SETTLE_POLL_S", 0.01)
    selftest = SelfTest([Passing()], settled=lambda: False)
    await selftest.start()
    async with asyncio.timeout(10):
        while selftest.last is None:
            await asyncio.sleep(0.01)
    assert selftest.last["outcome"] == "pass"
    await selftest.stop()


async def test_two_at_once_run_one_after_the_other() -> None:
    hanging = Hanging()
    selftest = SelfTest([hanging])
    both = asyncio.gather(selftest.run(), selftest.run())
    await asyncio.sleep(0.05)
    assert hanging.runs == 1
    hanging.release.set()
    assert [result["outcome"] for result in await both] == ["pass", "pass"]
