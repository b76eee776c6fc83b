"""Running the checks: all at once, each with a deadline, every outcome a result. Once by itself after each start."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from daemon.diagnostics.checks.base import SEVERITY, Check, CheckResult

log = logging.getLogger(__name__)

DEADLINE_S = 10.0  # a healthy check takes milliseconds; a dying disk takes for ever
SETTLE_S = 30.0  # a camera that is going to deliver does within this, on the slowest machine tried
SETTLE_POLL_S = 0.5


class SelfTest:
    """The checks and their last results. `on_result(check, severity)` feeds the metrics.

    `start` runs them once, as soon as `settled()` or after `SETTLE_S`: what fails is logged and shown, and stops
    nothing. What makes a start dangerous or pointless has refused it before.
    """

    def __init__(
        self,
        checks: Sequence[Check],
        *,
        deadline_s: float = DEADLINE_S,
        on_result: Callable[[str, int], None] = lambda check, severity: None,
        settled: Callable[[], bool] = lambda: True,
    ) -> None:
        self._checks = list(checks)
        self._deadline_s = deadline_s
        self._on_result = on_result
        self._settled = settled
        self._hanging: dict[str, threading.Thread] = {}
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.last: dict[str, Any] | None = None
        """The last report, None before the first run."""

    async def run(self) -> dict[str, Any]:
        """Run every check; ``{"outcome": worst, "utc": when, "checks": [{name, outcome, measured, limit, remedy}]}``.

        A check that misses its deadline fails; as long as it hangs it is not started again. One run at a time.
        """
        async with self._turn:
            results = await asyncio.gather(*(self._run_one(check) for check in self._checks))
            for result in results:
                self._on_result(result.name, SEVERITY[result.outcome])
            self.last = report(results) | {"utc": datetime.now(UTC).isoformat(timespec="seconds")}
            return self.last

    async def start(self) -> None:
        """Begin the self-test of this start; returns at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._after_start(), name="selftest-at-start")

    async def stop(self) -> None:
        """Give it up when it is not over; idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def summary(self) -> dict[str, Any] | None:
        """The last result for the status: outcome, when, and the names of what failed and warned."""
        last = self.last
        if last is None:
            return None
        names = {
            outcome: [check["name"] for check in last["checks"] if check["outcome"] == outcome]
            for outcome in ("fail", "warn")
        }
        return {"outcome": last["outcome"], "utc": last["utc"], "failed": names["fail"], "warned": names["warn"]}

    async def _after_start(self) -> None:
        deadline_s = time.monotonic() + SETTLE_S
        while True:
            if self._settled() or time.monotonic() > deadline_s:
                break
            await asyncio.sleep(SETTLE_POLL_S)
        result = await self.run()
        for check in result["checks"]:
            if check["outcome"] != "pass":
                level = logging.ERROR if check["outcome"] == "fail" else logging.INFO
                log.log(level, "self-test: %(name)s: %(outcome)s: %(measured)s, wanted: %(limit)s. %(remedy)s", check)
        log.info("the self-test of this start: %s", result["outcome"])

    async def _run_one(self, check: Check) -> CheckResult:
        limit = f"an answer within {self._deadline_s:g} s"
        hanging = self._hanging.get(check.name)
        if hanging is not None and hanging.is_alive():
            return check.result("fail", "still hanging since an earlier self-test", limit)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[CheckResult] = loop.create_future()

        def work() -> None:
            result = run_check(check)
            with suppress(RuntimeError):  # the loop ended while the check hung
                loop.call_soon_threadsafe(_answer, answer, result)

        # a thread of its own: a pool's would keep the process from ending while the disk hangs
        thread = threading.Thread(target=work, name=f"selftest-{check.name}", daemon=True)
        self._hanging[check.name] = thread
        thread.start()
        try:
            result = await asyncio.wait_for(answer, self._deadline_s)
        except TimeoutError:
            return check.result("fail", "no answer", limit)
        await asyncio.to_thread(thread.join, 1.0)  # it has answered: its end is a moment away
        return result


def run_check(check: Check) -> CheckResult:
    """The check's result; a check that fails by itself is a failed check. Blocking."""
    try:
        return check.run()
    except Exception as error:
        log.exception("self-test check %s failed by itself", check.name)
        return check.result("fail", f"the check itself failed: {type(error).__name__}: {error}", "an answer")


def report(results: Sequence[CheckResult]) -> dict[str, Any]:
    """Results as plain values, with the worst outcome of all."""
    worst = max((result.outcome for result in results), key=SEVERITY.__getitem__, default="pass")
    return {"outcome": worst, "checks": [asdict(result) for result in results]}


def _answer(future: asyncio.Future[CheckResult], result: CheckResult) -> None:
    if not future.done():
        future.set_result(result)
