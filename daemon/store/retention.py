"""Which finished runs may go, and taking one away so that a power cut at any step leaves it whole or gone.

A deletion is four steps, each durable before the next: the intent and its audit row in one transaction; the file
removed; the folder synced; the run's row marked. What was cut short is completed by `finish_deletions`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from daemon.diagnostics.checks.clock import is_synchronised
from daemon.errors import RunError, RunReason, StoreError, StoreReason
from daemon.parts import FINISHED, RunSummary
from daemon.store import rows
from daemon.store.backup import BackupReport
from daemon.store.backup_child import back_up_in_child
from daemon.store.copying import sync_folder
from daemon.store.faults import file_error
from daemon.store.operations import utc_now
from daemon.store.paths import StateLayout
from daemon.store.proof import prove_again
from daemon.store.reader import CatalogueReader
from daemon.store.schema import remove_files
from daemon.store.session import Session
from daemon.store.writer import StoreWriter

COMMIT_S = 10.0  # the writer's own longest wait for the disk, twice

Stop = Callable[[], bool]

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """Raised by a job of maintenance that was told to stop."""


@dataclass(frozen=True)
class Policy:
    """When runs are deleted by themselves; the defaults delete nothing."""

    keep_days: float | None = None
    keep_free_mb: int = 0
    delete_unexported: bool = False
    backup_deadline_s: float = 21600.0
    min_free_mb: int = 0


class Keeper:
    """Deletes runs, by itself or when asked, and knows which were taken elsewhere. Blocking; any thread.

    `current()` is the id of the run in progress, None without; `tell(run, why)` hears of runs deleted by themselves.
    """

    def __init__(
        self,
        layout: StateLayout,
        writer: StoreWriter,
        policy: Policy,
        current: Callable[[], str | None],
        tell: Callable[[RunSummary, str], None] = lambda run, why: None,
        clock_is_right: Callable[[], bool | None] = is_synchronised,
    ) -> None:
        self._layout = layout
        self._writer = writer
        self._policy = policy
        self._current = current
        self._tell = tell
        self._clock_is_right = clock_is_right
        self._one = threading.Lock()
        self.deleted = 0
        """Runs deleted in this life of the daemon."""

    def back_up(self, target: Path, progress: Callable[[float], None]) -> BackupReport:
        """Bring the backup in `target` up to date and mark what it holds. Raises `StoreError` as `back_up` does."""
        policy = self._policy
        report = back_up_in_child(
            self._layout.state_dir, target, progress, deadline_s=policy.backup_deadline_s, spare_mb=policy.min_free_mb
        )
        self.mark_exported(report.whole_runs, str(target))
        return report

    def mark_exported(self, run_ids: Sequence[str], where: str) -> None:
        """Runs that are now elsewhere too, as a whole. Raises `StoreError`."""
        self._commit("exported", partial(set_exported, run_ids, where))

    def delete(self, run_id: str, actor: str, *, unexported: bool = False) -> RunSummary:
        """Delete a run for `actor`; its row stays. Deleting one that is deleted changes nothing.

        Raises `RunError`: NOT_FOUND, BUSY for the one in progress, NOT_EXPORTED unless `unexported`, IN_USE; and
        `StoreError`.
        """
        run = self._run(run_id)
        if run.state == "deleted":
            return run
        if run.exported_utc is None and not unexported:
            raise RunError(RunReason.NOT_EXPORTED, f"no backup and no export holds run '{run_id}'")
        with self._one:
            self._delete(run, actor, "asked for")
        return self._run(run_id)

    def retain(self, stop: Stop) -> str:
        """Complete deletions that were cut short, then delete what the policy says, oldest first; what was done.

        Raises `Interrupted` between two runs, `StoreError`.
        """
        completed = self.finish_deletions()
        taken = []
        for run in self._candidates():
            if stop():
                raise Interrupted
            why = self._why(run)
            if why and not holders(run.path):
                with suppress(FileNotFoundError), self._one:
                    size_mb = run.path.stat().st_size / 1e6
                    self._delete(run, "retention", why)
                    taken.append(run.run_id)
                    self._tell(run, f"{why}; {size_mb:.0f} MB")
        if completed or taken:
            return f"deleted {', '.join(taken) or f'{completed} that were begun earlier'}"
        return self._idle()

    def finish_deletions(self) -> int:
        """Complete deletions that a power cut or a failing disk cut short; how many. Raises `StoreError`."""
        with self._one:
            left = [run for run in self._runs() if run.deleting_utc is not None]
            for run in left:
                self._remove(run)
        return len(left)

    def _idle(self) -> str:
        if self._policy.keep_days is not None and not self._clock_is_right():
            return "the clock is not synchronised: no run is deleted for its age"
        short_mb = self._policy.keep_free_mb - self._layout.free_mb()
        return f"{short_mb} MB short of room, and no run that may be deleted" if short_mb > 0 else "nothing to do"

    def _candidates(self) -> Iterator[RunSummary]:
        """Finished runs with a file that the policy may take, oldest first."""
        if self._policy.keep_days is None and not self._policy.keep_free_mb:
            return
        for run in reversed(self._runs()):
            may_go = run.exported_utc is not None or self._policy.delete_unexported
            if may_go and self._obstacle(run) is None and run.path.exists():
                yield run

    def _why(self, run: RunSummary) -> str:
        """Why a run is to go now; empty when it may stay."""
        free_mb = self._layout.free_mb()
        if free_mb < self._policy.keep_free_mb:
            return f"{free_mb} MB were free, store.keep_free_mb wants {self._policy.keep_free_mb}"
        days = self._policy.keep_days
        # a clock ten years ahead must not make every run old
        if days is None or not self._clock_is_right():
            return ""
        age = datetime.now(UTC) - datetime.fromisoformat(run.started_utc)
        return f"it began {age.days} days ago, store.keep_days is {days:g}" if age > timedelta(days=days) else ""

    def _obstacle(self, run: RunSummary) -> RunError | None:
        if run.state not in FINISHED or self._current() == run.run_id:
            return RunError(RunReason.BUSY, f"run '{run.run_id}' is {run.state}")
        if run.path.absolute().parent != self._layout.runs_dir.absolute():
            return RunError(RunReason.NOT_FOUND, f"'{run.path}' is not where the store keeps runs")
        return None

    def _delete(self, run: RunSummary, actor: str, why: str) -> None:
        obstacle = self._obstacle(run)
        if obstacle is not None:
            raise obstacle
        if pids := holders(run.path):
            whom = "by this service" if os.getpid() in pids else f"by process {pids[0]}"
            raise RunError(RunReason.IN_USE, f"run '{run.run_id}' is being read {whom}")
        self._commit("deletion", partial(set_deleting, run, actor, why))
        self._remove(run)
        self.deleted += 1
        log.info("run %s was deleted by %s: %s", run.run_id, actor, why)

    def _remove(self, run: RunSummary) -> None:
        if self._obstacle(run) is not None:
            return
        try:
            remove_files(run.path)
            sync_folder(run.path.parent)
        except OSError as error:
            raise file_error(error, run.path, "cannot delete") from error
        self._commit("deletion", partial(set_deleted, run.run_id))

    def _run(self, run_id: str) -> RunSummary:
        with CatalogueReader(self._layout.catalogue) as catalogue:
            run = catalogue.run(run_id)
        if run is None:
            raise RunError(RunReason.NOT_FOUND, f"there is no run '{run_id[:100]}'")
        return run

    def _runs(self) -> list[RunSummary]:
        """Those that are not deleted, newest first."""
        with CatalogueReader(self._layout.catalogue) as catalogue:
            return [run for run in catalogue.runs(limit=-1) if run.deleted_utc is None]

    def _commit(self, what: str, step: Callable[[Session], Any]) -> None:
        try:
            self._writer.change_catalogue(what, step).result(COMMIT_S)
        except TimeoutError as error:
            raise StoreError(StoreReason.OVERLOADED, f"the catalogue took no '{what}' within {COMMIT_S:g} s") from error


def set_exported(run_ids: Sequence[str], where: str, session: Session) -> None:
    """Mark runs as taken elsewhere."""
    assert session.catalogue is not None
    mark_exported(session.catalogue.conn, run_ids, where)


def mark_exported(conn: sqlite3.Connection, run_ids: Sequence[str], where: str) -> None:
    """The same on a connection of one's own."""
    for run_id in run_ids:
        change_row(conn, run_id, exported_utc=utc_now(), exported_to=where)


def set_deleting(run: RunSummary, actor: str, why: str, session: Session) -> None:
    """The intent, in the run's row and in the audit."""
    assert session.catalogue is not None
    conn = session.catalogue.conn
    change_row(conn, run.run_id, deleting_utc=utc_now())
    detail = f"{run.run_id} ({run.state}, exported {run.exported_utc or 'never'}): {why}"
    row = {"utc": utc_now(), "actor": actor, "action": "run.delete", "detail": detail}
    rows.replace_rows(conn, "audit", tuple(row), [row])


def set_deleted(run_id: str, session: Session) -> None:
    """The file is gone for good."""
    assert session.catalogue is not None
    change_row(session.catalogue.conn, run_id, state="deleted", deleted_utc=utc_now())


def change_row(conn: sqlite3.Connection, run_id: str, **changes: str | None) -> None:
    """Change columns of a run's row in the catalogue that only this module and restores know."""
    assignments = ", ".join(f"{name} = ?" for name in changes)
    conn.execute(f"update runs set {assignments} where run_id = ?", (*changes.values(), run_id))
    prove_again(conn, "runs", "run_id = ?", (run_id,))


def holders(path: Path) -> list[int]:
    """Processes that have the file open, this one among them, as far as the user may see them.

    Who is not seen (another user's) keeps what it has open: the file system frees it when it is closed.
    """
    wanted = str(path.resolve())
    processes = (process for process in Path("/proc").iterdir() if process.name.isdigit())
    return [int(process.name) for process in processes if wanted in _open_files(process)]


def _open_files(process: Path) -> Iterator[str]:
    with suppress(OSError):  # another user's, or it ended
        for number in os.listdir(process / "fd"):
            with suppress(OSError):
                yield os.readlink(process / "fd" / number)


def remove_orphans(runs_dir: Path, stop: Stop) -> str:
    """Remove logs whose database is gone: what a deletion that was cut short, or another program, left behind."""
    removed = 0
    for suffix in ("-wal", "-shm", "-journal"):
        for left in runs_dir.glob(f"*.db{suffix}"):
            if stop():
                raise Interrupted
            if not left.with_name(left.name.removesuffix(suffix)).exists():
                left.unlink(missing_ok=True)
                removed += 1
    return f"removed {removed} files" if removed else "nothing to do"
