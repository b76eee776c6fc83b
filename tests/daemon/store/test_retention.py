from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.errors import RunError, RunReason, StoreError, StoreReason
from daemon.store import retention as module
from daemon.store.paths import StateLayout
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.retention import Interrupted, Keeper, Policy, holders, remove_orphans
from tests.daemon.store.helpers import WAIT_S, frames, running, summary


def ago(days):
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


class Instrument:
    """A writer, finished runs r1 (oldest) and on, and a keeper."""

    def __init__(self, folder, writer):
        self.layout, self.writer = StateLayout(folder), writer
        self.current, self.told = None, []

    def add(self, run_id, days_old=1.0, state="done"):
        path = self.layout.run_path(run_id)
        self.writer.create_run(path, {}, summary(run_id, path, started_utc=ago(days_old))).result(WAIT_S)
        self.writer.put_chunk(*frames(0, 10))
        self.writer.update_run(run_id, state=state).result(WAIT_S)
        self.writer.close_run().result(WAIT_S)

    def keeper(self, clock_is_right=True, **policy):
        return Keeper(
            self.layout, self.writer, Policy(**policy), lambda: self.current,
            lambda run, why: self.told.append((run.run_id, why)), lambda: clock_is_right,
        )  # fmt: skip

    def run(self, run_id):
        with CatalogueReader(self.layout.catalogue) as catalogue:
            return catalogue.run(run_id)

    def audit(self):
        with CatalogueReader(self.layout.catalogue) as catalogue:
            return catalogue.audit()

    @property
    def files(self):
        return sorted(path.stem for path in self.layout.runs_dir.glob("*.db"))


@contextmanager
def instrument_in(folder):
    layout = StateLayout(folder)
    layout.prepare()
    with running(layout.catalogue, commit_interval_s=0.02) as writer:
        yield Instrument(folder, writer)


@pytest.fixture
def instrument(tmp_path):
    with instrument_in(tmp_path) as one:
        yield one


def never():
    return False


def refused(reason, call, *arguments, **options):
    with pytest.raises(RunError) as caught:
        call(*arguments, **options)
    assert caught.value.reason is reason
    return caught.value.detail


def test_by_default_nothing_is_deleted(instrument):
    instrument.add("r1", days_old=5000)
    keeper = instrument.keeper()
    keeper.mark_exported(["r1"], "/share")
    assert keeper.retain(never) == "nothing to do"
    assert instrument.files == ["r1"] and not instrument.audit()


def test_old_exported_runs_go_and_leave_what_they_were(instrument):
    for number, days in enumerate((30, 20, 2), start=1):
        instrument.add(f"r{number}", days_old=days)
    keeper = instrument.keeper(keep_days=10)
    keeper.mark_exported(["r1", "r3"], "/share")
    assert keeper.retain(never) == "deleted r1"  # r2 is nowhere else, r3 is young
    assert instrument.files == ["r2", "r3"]
    gone = instrument.run("r1")
    assert (gone.state, gone.name, gone.recipe) == ("deleted", "a name", summary("r1", Path()).recipe)
    assert gone.deleted_utc and gone.exported_utc
    (row,) = instrument.audit()
    assert (row["actor"], row["action"]) == ("retention", "run.delete")
    assert row["detail"].startswith("r1 (done, exported 20") and "store.keep_days is 10" in row["detail"]
    ((run_id, why),) = instrument.told
    assert run_id == "r1" and why.startswith("it began 30 days ago")
    assert keeper.deleted == 1 and keeper.retain(never) == "nothing to do"


def test_a_clock_that_cannot_be_trusted_makes_no_run_old(instrument):
    instrument.add("r1", days_old=3650)
    for right in (False, None):
        keeper = instrument.keeper(clock_is_right=right, keep_days=10)
        keeper.mark_exported(["r1"], "/share")
        assert "not synchronised" in keeper.retain(never)
    assert instrument.files == ["r1"]


def test_room_is_made_from_the_oldest_on_until_there_is_enough(instrument, monkeypatch):
    for number in range(1, 6):
        instrument.add(f"r{number}", days_old=100 - number)
    keeper = instrument.keeper(keep_free_mb=900, clock_is_right=False)
    keeper.mark_exported(["r1", "r2", "r4", "r5"], "/share")
    monkeypatch.setattr(StateLayout, "free_mb", lambda self: 1000 - 50 * len(instrument.files))
    assert keeper.retain(never) == "deleted r1, r2, r4"
    assert instrument.files == ["r3", "r5"]


def test_when_nothing_more_may_go_it_says_so(instrument, monkeypatch):
    instrument.add("r1")
    monkeypatch.setattr(StateLayout, "free_mb", lambda self: 100)
    assert instrument.keeper(keep_free_mb=900).retain(never) == "800 MB short of room, and no run that may be deleted"
    assert instrument.keeper(keep_free_mb=900, delete_unexported=True).retain(never) == "deleted r1"


def test_the_run_in_progress_and_unfinished_ones_stay(instrument, monkeypatch):
    instrument.add("r1")
    instrument.add("r2", state="stopping")
    instrument.current = "r1"
    monkeypatch.setattr(StateLayout, "free_mb", lambda self: 0)
    keeper = instrument.keeper(keep_free_mb=900, delete_unexported=True)
    keeper.retain(never)
    assert instrument.files == ["r1", "r2"]
    for run_id in ("r1", "r2"):
        refused(RunReason.BUSY, keeper.delete, run_id, "me", unexported=True)
    assert not instrument.audit()


def test_a_run_that_somebody_reads_stays(instrument, monkeypatch):
    instrument.add("r1")
    path = instrument.layout.run_path("r1")
    monkeypatch.setattr(StateLayout, "free_mb", lambda self: 0)
    keeper = instrument.keeper(keep_free_mb=900, delete_unexported=True)
    with RunReader(path) as reader:
        assert holders(path) == [os.getpid()]
        keeper.retain(never)
        assert "this service" in refused(RunReason.IN_USE, keeper.delete, "r1", "me", unexported=True)
        assert reader.frame_count() == 10
    assert instrument.files == ["r1"]
    code = f"open({str(path)!r}); print('open', flush=True); input()"
    command = [sys.executable, "-c", f"file = {code}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        assert holders(path) == [other.pid]
        assert str(other.pid) in refused(RunReason.IN_USE, keeper.delete, "r1", "me", unexported=True)
        other.communicate("\n")
    keeper.retain(never)
    assert instrument.files == []


def test_an_operator_deletes_what_is_elsewhere_or_may_be_lost(instrument):
    instrument.add("r1")
    keeper = instrument.keeper()
    refused(RunReason.NOT_EXPORTED, keeper.delete, "r1", "me")
    assert keeper.delete("r1", "me", unexported=True).state == "deleted"
    assert keeper.delete("r1", "me").state == "deleted"  # again changes nothing
    refused(RunReason.NOT_FOUND, keeper.delete, "r9", "me")
    assert [row["actor"] for row in instrument.audit()] == ["me"]


def test_only_files_where_the_store_keeps_runs_are_deleted(instrument, tmp_path):
    instrument.add("r1")
    elsewhere = tmp_path / "precious.db"
    elsewhere.write_bytes(b"mine")
    instrument.writer.record_run(summary("r2", elsewhere, state="done")).result(WAIT_S)
    refused(RunReason.NOT_FOUND, instrument.keeper().delete, "r2", "me", unexported=True)
    assert elsewhere.read_bytes() == b"mine"


def test_retention_stops_between_two_runs(instrument, monkeypatch):
    for number in range(1, 4):
        instrument.add(f"r{number}", days_old=10 - number)
    monkeypatch.setattr(StateLayout, "free_mb", lambda self: 0)
    keeper = instrument.keeper(keep_free_mb=900, delete_unexported=True)
    with pytest.raises(Interrupted):
        keeper.retain(lambda: len(instrument.files) < 3)
    assert instrument.files == ["r2", "r3"]


class PowerCut(BaseException):
    """Nothing of what follows happens."""


STEPS = [
    ("before the intent", "_commit", 0), ("before the file goes", "remove_files", 0),
    ("between two files", "unlink", 1), ("before the sync", "sync_folder", 0), ("before the row", "_commit", 1),
    ("after the row", "_commit", 2),
]  # fmt: skip


@pytest.mark.parametrize(("step", "after"), [step[1:] for step in STEPS], ids=[step[0] for step in STEPS])
def test_a_power_cut_at_any_step_leaves_the_run_whole_or_gone(tmp_path, monkeypatch, step, after):
    with instrument_in(tmp_path) as one:
        one.add("r1")
        one.add("r2")
        left = after

        def cut_at(function):
            def called(*arguments, **options):
                nonlocal left
                if left == 0:
                    raise PowerCut
                left -= 1
                return function(*arguments, **options)

            return called

        with monkeypatch.context() as patched:
            owner = {"_commit": Keeper, "unlink": Path}.get(step, module)
            patched.setattr(owner, step, cut_at(getattr(owner, step)))
            try:
                one.keeper().delete("r1", "me", unexported=True)
            except PowerCut:
                pass
            else:
                assert (step, after) == ("_commit", 2)  # there is no third
    with instrument_in(tmp_path) as again:
        completed = again.keeper().finish_deletions()
        run = again.run("r1")
        if step == "_commit" and after == 0:
            assert run.state == "done" and again.files == ["r1", "r2"] and not again.audit()
            with RunReader(run.path) as reader:
                assert reader.frame_count() == 10
        else:
            assert run.state == "deleted" and run.deleted_utc and again.files == ["r2"] and len(again.audit()) == 1
        assert completed == (0 if step == "_commit" and after in (0, 2) else 1)
        assert again.keeper().finish_deletions() == 0


def test_a_disk_that_refuses_is_an_error_and_tried_again(instrument, monkeypatch):
    instrument.add("r1")
    keeper = instrument.keeper()

    def refuses(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(module, "remove_files", refuses)
        with pytest.raises(StoreError) as caught:
            keeper.delete("r1", "me", unexported=True)
    assert caught.value.reason is StoreReason.NOT_WRITABLE
    assert keeper.retain(never) == "deleted 1 that were begun earlier"
    assert instrument.run("r1").state == "deleted"


def test_an_older_catalogue_learns_what_is_kept(tmp_path):
    with instrument_in(tmp_path) as one:
        one.add("r1")
    conn = sqlite3.connect(tmp_path / "instrument.db")
    for column in ("exported_utc", "exported_to", "deleting_utc", "deleted_utc"):
        conn.execute(f"alter table runs drop column {column}")
    conn.execute("delete from _sqlite_migrations where name = '0033+_keeping'")
    conn.commit()
    conn.close()
    with CatalogueReader(tmp_path / "instrument.db") as catalogue:  # recovery reads before the writer starts
        assert catalogue.run("r1").exported_utc is None
    with instrument_in(tmp_path) as one:
        one.keeper().mark_exported(["r1"], "/share")
        assert one.run("r1").exported_utc


def test_logs_without_their_database_are_removed(tmp_path):
    for name in ("a.db", "a.db-wal", "b.db-wal", "b.db-shm", "c.db-journal", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(Interrupted):
        remove_orphans(tmp_path, lambda: True)
    assert remove_orphans(tmp_path, never) == "removed 3 files"
    assert remove_orphans(tmp_path, never) == "nothing to do"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "a.db-wal", "notes.txt"]
