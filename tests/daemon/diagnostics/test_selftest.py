"""The self-test: every check ends as a result, whatever it does."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from daemon.diagnostics.checks.base import Check, CheckResult
from daemon.diagnostics.selftest import SelfTest, machine_checks, report, run_check


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
    assert passing == {"name": "passing", "outcome": "pass", "measured": "1 ms", "limit": "2 ms", "remedy": ""}
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
    results = [run_check(check) for check in machine_checks(tmp_path, 1)]
    names = [result.name for result in results]
    assert names == ["state_directory", "free_space", "sqlite_version", "kernel_cache", "clock"]
    assert results[0].outcome != "fail"
    assert all(bool(result.remedy) == (result.outcome != "pass") for result in results)
    assert all(result.measured and result.limit for result in results)
    assert list(tmp_path.iterdir()) == []
