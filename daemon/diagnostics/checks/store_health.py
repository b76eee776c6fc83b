"""Does the store keep up, did every commit succeed, and was it checked?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daemon.diagnostics.checks.base import Check, CheckResult
from daemon.parts import PartStatus
from daemon.store.writer import StoreStats

SLOW_COMMIT_S = 1.0  # commits are made once a second


class StoreHealth(Check):
    """The writer's last commit, failed commits, refused frames, how far it is behind, and the last full check.

    `part()` is its line of the status, `full_check()` what maintenance tells of that job: utc, outcome, detail.
    """

    name = "store"
    remedy = (
        "See the store's line in the status and the self-test's `state_directory` and `disk_wear`; replace a bad disk."
    )

    def __init__(
        self,
        stats: Callable[[], StoreStats],
        part: Callable[[], PartStatus],
        full_check: Callable[[], dict[str, Any] | None] = lambda: None,
    ) -> None:
        self._stats = stats
        self._part = part
        self._full_check = full_check

    def run(self) -> CheckResult:
        stats, part, checked = self._stats(), self._part(), self._full_check()
        bound_s = 2 * stats.loss_bound_s
        limit = f"commits within {SLOW_COMMIT_S:g} s, none failed, at most {bound_s:g} s behind, no frame refused"
        tried = stats.commits + stats.failed_commits
        measured = (
            f"last commit {stats.last_commit_took_s * 1e3:.1f} ms, {stats.failed_commits} of {tried} failed, "
            f"{stats.lag_s:.1f} s behind, {stats.lost_frames} frames refused, {_told(checked)}"
        )
        if part.state != "ready":
            return self.result("fail", f"{part.detail or part.state}; {measured}", limit)
        slow = stats.last_commit_took_s > SLOW_COMMIT_S or stats.lag_s > bound_s
        bad = stats.failed_commits or stats.lost_frames or (checked is not None and checked.get("outcome") == "failed")
        return self.result("warn" if slow or bad else "pass", measured, limit)


def _told(checked: dict[str, Any] | None) -> str:
    if checked is None:
        return "no full check yet"
    return f"full check {checked.get('utc')}: {checked.get('detail') or checked.get('outcome')}"
