"""Running the checks: all at once, each with a deadline, every outcome a result."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from daemon.diagnostics.checks.base import SEVERITY, Check, CheckResult
from daemon.diagnostics.checks.clock import Clock
from daemon.diagnostics.checks.free_space import FreeSpace
from daemon.diagnostics.checks.kernel_cache import KernelCache
from daemon.diagnostics.checks.sqlite_version import SqliteVersion
from daemon.diagnostics.checks.state_directory import StateDirectory

log = logging.getLogger(__name__)

DEADLINE_S = 10.0  # a healthy check takes milliseconds; a dying disk takes for ever


def machine_checks(state_dir: Path, min_free_mb: int) -> list[Check]:
    """The checks that need no running daemon."""
    return [StateDirectory(state_dir), FreeSpace(state_dir, min_free_mb), SqliteVersion(), KernelCache(), Clock()]


class SelfTest:
    """The checks and their last results. `on_result(check, severity)` feeds the metrics."""

    def __init__(
        self,
        checks: Sequence[Check],
        *,
        deadline_s: float = DEADLINE_S,
        on_result: Callable[[str, int], None] = lambda check, severity: None,
    ) -> None:
        self._checks = list(checks)
        self._deadline_s = deadline_s
        self._on_result = on_result
        self._hanging: dict[str, threading.Thread] = {}
        self.last: dict[str, Any] | None = None
        """The last report, None before the first run."""

    async def run(self) -> dict[str, Any]:
        """Run every check; ``{"outcome": worst, "checks": [{name, outcome, measured, limit, remedy}]}``.

        A check that misses its deadline fails; as long as it hangs it is not started again.
        """
        results = await asyncio.gather(*(self._run_one(check) for check in self._checks))
        for result in results:
            self._on_result(result.name, SEVERITY[result.outcome])
        self.last = report(results)
        return self.last

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
