"""Does the store keep up, and did every commit succeed?"""

from __future__ import annotations

from collections.abc import Callable

from daemon.diagnostics.checks.base import Check, CheckResult
from daemon.parts import PartStatus
from daemon.store.writer import StoreStats

SLOW_COMMIT_S = 1.0  # commits are made once a second


class StoreHealth(Check):
    """The writer's last commit, failed commits, refused frames and how far it is behind.

    `part()` is its line of the status.
    """

    name = "store"
    remedy = (
        "See the store's line in the status and the self-test's `state_directory` and `disk_wear`; replace a bad disk."
    )

    def __init__(self, stats: Callable[[], StoreStats], part: Callable[[], PartStatus]) -> None:
        self._stats = stats
        self._part = part

    def run(self) -> CheckResult:
        stats, part = self._stats(), self._part()
        bound_s = 2 * stats.loss_bound_s
        limit = f"commits within {SLOW_COMMIT_S:g} s, none failed, at most {bound_s:g} s behind, no frame refused"
        tried = stats.commits + stats.failed_commits
        measured = (
            f"last commit {stats.last_commit_took_s * 1e3:.1f} ms, {stats.failed_commits} of {tried} failed, "
            f"{stats.lag_s:.1f} s behind, {stats.lost_frames} frames refused"
        )
        if part.state != "ready":
            return self.result("fail", f"{part.detail or part.state}; {measured}", limit)
        slow = stats.last_commit_took_s > SLOW_COMMIT_S or stats.lag_s > bound_s
        return self.result("warn" if slow or stats.failed_commits or stats.lost_frames else "pass", measured, limit)
