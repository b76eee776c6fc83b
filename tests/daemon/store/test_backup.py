from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store import backup as module
from daemon.store import copying
from daemon.store.backup import back_up
from daemon.store.backup_child import back_up_in_child
from daemon.store.lock import StateLock
from daemon.store.manifest import NAME, read_manifest
from daemon.store.offline import back_up_offline
from daemon.store.paths import StateLayout
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.recovery import recover
from daemon.store.restore import FOLDER, restore
from tests.daemon.store.helpers import WAIT_S, event, frames, running, summary


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    layout = StateLayout(tmp_path_factory.mktemp("template") / "state")
    layout.prepare()
    with quick(layout) as writer:
        for run_id in ("r1", "r2"):
            add_run(layout, writer, run_id)
    return layout.state_dir


@pytest.fixture
def state(tmp_path, template):
    """A state directory with the finished runs r1 and r2, nobody using it."""
    shutil.copytree(template, tmp_path / "state")
    return StateLayout(tmp_path / "state")


def quick(layout):
    """A writer that need not be waited for."""
    return running(layout.catalogue, commit_interval_s=0.02)


class PowerCut(BaseException):
    """Nothing of what follows happens."""


def failing(nth, error, original=lambda *arguments: None):
    """`original` until its `nth` call, which raises."""
    calls = iter(range(nth))

    def call(*arguments):
        if next(calls, None) is None:
            raise error
        return original(*arguments)

    return call


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


def add_run(layout, writer, run_id, state="done", count=50):
    path = layout.run_path(run_id)
    writer.create_run(path, {}, summary(run_id, path)).result(WAIT_S)
    writer.put_chunk(*frames(0, count)).result(WAIT_S)
    writer.put_events([event(1.0)]).result(WAIT_S)
    writer.update_run(run_id, state=state).result(WAIT_S)
    if state == "done":
        writer.close_run().result(WAIT_S)


def refused(reason, call, *arguments, **options):
    with pytest.raises(StoreError) as caught:
        call(*arguments, **options)
    assert caught.value.reason is reason, caught.value
    return caught.value.detail


def whole(target):
    """Every file of the backup there matches; run ids."""
    manifest = read_manifest(target)
    for entry in manifest.files:
        found = copying._hashed(target / entry.stored_as, copying._no_rest)
        assert (found.sha256, found.size_bytes) == (entry.sha256, entry.size_bytes)
        with sqlite3.connect(f"file:{target / entry.stored_as}?mode=ro&immutable=1", uri=True) as conn:
            assert conn.execute("pragma integrity_check").fetchone() == ("ok",)
        conn.close()
    return sorted(entry.run_id for entry in manifest.files if entry.run_id)


def files(target):
    return {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}


def test_a_backup_holds_everything_and_a_second_copies_only_what_is_new(state, target):
    shares = []
    first = back_up(state.state_dir, target, shares.append)
    assert whole(target) == ["r1", "r2"] == sorted(first.whole_runs)
    assert (first.copied, first.unchanged, first.kept, first.damaged) == (3, 0, 0, [])
    assert shares == sorted(shares) and shares[-1] == 1.0
    before = files(target)
    with quick(state) as writer:
        add_run(state, writer, "r3")
    second = back_up(state.state_dir, target)
    assert whole(target) == ["r1", "r2", "r3"]
    assert (second.copied, second.unchanged) == (2, 2)  # the run and the catalogue
    assert len(files(target)) == len(before) + 1  # the older catalogue is gone


def test_a_run_in_progress_is_copied_at_one_moment_and_again_once_it_is_done(state, target):
    with running(state.catalogue, commit_interval_s=0.02) as writer:
        add_run(state, writer, "r3", state="running", count=100)
        stop = threading.Event()

        def measure():
            first = 100
            while not stop.is_set():
                writer.put_chunk(*frames(first, 20), wait_s=5.0)
                first += 20
                time.sleep(0.002)

        thread = threading.Thread(target=measure, name="measuring")
        thread.start()
        try:
            commits = writer.stats().commits
            report = back_up(state.state_dir, target, lambda share: time.sleep(0.02), gentle=True)
            assert writer.stats().commits > commits + 1, "the writer went on meanwhile"
        finally:
            stop.set()
            thread.join(WAIT_S)
        assert writer.stats().lost_frames == 0 and writer.stats().failed_commits == 0
        assert whole(target) == ["r1", "r2", "r3"] and sorted(report.whole_runs) == ["r1", "r2"]
        entry = read_manifest(target).entry("runs/r3.db")
        with RunReader(target / entry.stored_as) as reader:
            stored = reader.frames()["frame"]
            assert reader.corrupt_chunks == 0 and list(stored) == list(range(len(stored))) and len(stored) >= 100
        writer.update_run("r3", state="done").result(WAIT_S)
        writer.close_run().result(WAIT_S)
        again = back_up(state.state_dir, target)
    assert (again.copied, again.unchanged) == (2, 2)
    assert sorted(again.whole_runs) == ["r1", "r2", "r3"] == whole(target)


def test_the_copy_of_a_run_does_not_begin_anew_with_each_commit(state, target, monkeypatch):
    """A page at a time and a commit between any two: without the one reading transaction it would never end."""
    monkeypatch.setattr(copying, "PAGES_A_STEP", 1)
    with running(state.catalogue, commit_interval_s=0.001) as writer:
        add_run(state, writer, "r3", state="running", count=200)
        steps = 0

        def commit(share):
            nonlocal steps
            steps += 1
            writer.put_drop("store", "test", 1, 0.0).result(WAIT_S)

        back_up(state.state_dir, target, commit)
        pages = sum(os.path.getsize(target / entry.stored_as) // 4096 for entry in read_manifest(target).files)
    assert 10 < steps < 2 * pages + 50


def test_a_backup_cut_short_at_any_step_leaves_the_earlier_one_whole(state, target):
    back_up(state.state_dir, target)
    with quick(state) as writer:
        add_run(state, writer, "r3")
    for step in range(100):
        try:
            back_up(state.state_dir, target, failing(step, PowerCut()))
        except PowerCut:
            assert whole(target) in (["r1", "r2"], ["r1", "r2", "r3"])
        else:
            break
    assert step > 2 and whole(target) == ["r1", "r2", "r3"]
    assert len(files(target)) == 5


@pytest.mark.parametrize("name", ["fsync", "replace", "pwrite"])
def test_a_failing_call_at_any_place_leaves_the_earlier_one_whole(state, target, monkeypatch, name):
    back_up(state.state_dir, target)
    with quick(state) as writer:
        add_run(state, writer, "r3")
        owner = Path if name == "replace" else os
        original, failures = getattr(owner, name), 0
        for nth in range(50):
            with monkeypatch.context() as patched:
                patched.setattr(owner, name, failing(nth, OSError(5, "Input/output error"), original))
                try:
                    back_up(state.state_dir, target)
                except StoreError as error:
                    assert error.reason is StoreReason.BACKUP_FAILED
                    failures += 1
                else:
                    break
            assert whole(target)[:2] == ["r1", "r2"]
    assert failures >= 1 and whole(target) == ["r1", "r2", "r3"]


def test_a_full_share_is_said_before_and_while_copying(state, target, small_disk, monkeypatch):
    with quick(state) as writer:
        add_run(state, writer, "big", count=4000)
    assert "MB free" in refused(StoreReason.BACKUP_FULL, back_up, state.state_dir, small_disk)
    monkeypatch.setattr(module, "SPARE_BYTES", -(10**9))
    refused(StoreReason.BACKUP_FULL, back_up, state.state_dir, small_disk)
    assert not [name for name in files(small_disk) if "partial" in name] and read_manifest(small_disk) is None
    with quick(state) as writer:  # the online copy says it too
        add_run(state, writer, "live", state="running", count=4000)
        for run_id in ("r1", "r2", "big"):
            state.run_path(run_id).unlink()
        refused(StoreReason.BACKUP_FULL, back_up, state.state_dir, small_disk)
    assert read_manifest(small_disk) is None


def test_room_on_the_stores_own_disk_is_left_to_runs(state, target):
    free_mb = shutil.disk_usage(target).free // 1_000_000
    detail = refused(StoreReason.BACKUP_FULL, back_up, state.state_dir, target, spare_mb=free_mb)
    assert "needs" in detail and read_manifest(target) is None


def test_a_backup_ends_at_its_deadline(state, target):
    detail = refused(StoreReason.BACKUP_LATE, back_up, state.state_dir, target, deadline_s=-1.0)
    assert "MB were copied" in detail
    assert read_manifest(target) is None


@pytest.mark.parametrize("place", ["missing", "state/inside", "strange", "relative"])
def test_places_that_are_none(state, target, tmp_path, monkeypatch, place):
    (tmp_path / "state" / "inside").mkdir()
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "holiday.jpg").touch()
    monkeypatch.chdir(tmp_path)
    where = Path("share") if place == "relative" else tmp_path / place
    refused(StoreReason.BACKUP_PLACE, back_up, state.state_dir, where)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 2, "files": []}', '{"format": 1}', '{"format": 1, "files": [{}]}',
     '{"format": 1, "made_utc": "", "software": "", "files": [{"path": "../../etc/passwd", "stored_as": "x",'
     ' "sha256": "", "size_bytes": 1, "source_size_bytes": 1, "source_mtime_ns": 1}]}'],
)  # fmt: skip
def test_a_manifest_that_makes_no_sense_is_refused(state, target, tmp_path, text):
    (target / NAME).write_text(text)
    refused(StoreReason.BACKUP_DAMAGED, back_up, state.state_dir, target)
    refused(StoreReason.BACKUP_DAMAGED, restore, target, tmp_path / "new")


def test_a_damaged_run_is_copied_as_it_is(state, target):
    with state.run_path("r1").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff" * 100)
    report = back_up(state.state_dir, target)
    assert report.damaged == [] and len(report.whole_runs) == 2
    entry = read_manifest(target).entry("runs/r1.db")
    assert (target / entry.stored_as).read_bytes() == state.run_path("r1").read_bytes()


def test_a_damaged_run_with_a_log_is_named_and_the_others_are_copied(state, target):
    state.run_path("r1").write_bytes(b"no database at all" * 500)
    Path(f"{state.run_path('r1')}-wal").touch()
    report = back_up(state.state_dir, target)
    assert [each["run_id"] for each in report.damaged] == ["r1"] and report.whole_runs == ["r2"]
    assert whole(target) == ["r2"] and read_manifest(target).damaged == tuple(report.damaged)


def test_runs_that_the_instrument_deleted_stay_in_the_backup_and_come_back(state, target, tmp_path):
    back_up(state.state_dir, target)
    with quick(state) as writer:
        writer.update_run("r1", state="deleted").result(WAIT_S)
        state.run_path("r1").unlink()
    report = back_up(state.state_dir, target)
    assert (report.kept, report.unchanged) == (1, 1) and whole(target) == ["r1", "r2"]
    restore(target, tmp_path / "new")
    with CatalogueReader(tmp_path / "new" / "instrument.db") as catalogue:
        assert {run.run_id: run.state for run in catalogue.runs()} == {"r1": "done", "r2": "done"}


def test_what_is_restored_is_what_was_and_goes_on(state, target, tmp_path):
    with quick(state) as writer:
        add_run(state, writer, "r3", state="running")
        back_up(state.state_dir, target)
        last_seq = writer.put_events([event(2.0)]).result(WAIT_S)[0].seq
    new = StateLayout(tmp_path / "new")
    restored = restore(target, new.state_dir)
    assert restored.runs == 3 and not (new.state_dir / FOLDER).exists()
    for run_id in ("r1", "r2"):
        assert new.run_path(run_id).read_bytes() == state.run_path(run_id).read_bytes()
    assert [run.run_id for run in recover(new.catalogue)] == ["r3"]
    with CatalogueReader(new.catalogue) as catalogue:
        assert catalogue.run("r3").state == "interrupted" and catalogue.last_seq() == last_seq - 1
    with quick(new) as writer:
        add_run(new, writer, "r4")
    with RunReader(new.run_path("r3")) as reader:
        assert reader.frame_count() == 50 and reader.corrupt_chunks == 0


def test_a_restore_takes_a_directory_where_only_runs_are_missing(state, target, tmp_path):
    back_up(state.state_dir, target)
    new = StateLayout(tmp_path / "new")
    new.prepare()
    for folder in ("logs", "snapshots", "tmp"):
        (new.state_dir / folder / "inner").mkdir(parents=True)
    for name in ("faults.jsonl", "tokens.json"):
        (new.state_dir / name).write_text("{}")
    assert restore(target, new.state_dir).runs == 2
    assert (new.state_dir / "snapshots" / "inner").is_dir() and (new.state_dir / "tokens.json").read_text() == "{}"


def test_a_restore_refuses_a_directory_that_is_used_or_holds_something(state, target, tmp_path):
    back_up(state.state_dir, target)
    refused(StoreReason.EXISTS, restore, target, state.state_dir)
    refused(StoreReason.BACKUP_PLACE, restore, tmp_path / "nothing", tmp_path / "new")
    used = StateLayout(tmp_path / "used")
    used.prepare()
    with StateLock(used.lock):
        # another process would hold it: the lock counts per open file, so this one stands for it
        assert "in use" in refused(StoreReason.LOCKED, restore, target, used.state_dir)
    restore(target, used.state_dir)


@pytest.mark.parametrize("harm", ["flip", "cut", "missing"])
def test_a_damaged_backup_is_never_restored(state, target, tmp_path, harm):
    back_up(state.state_dir, target)
    victim = target / read_manifest(target).entry("runs/r2.db").stored_as
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    if harm == "missing":
        victim.unlink()
    else:
        victim.write_bytes(data if harm == "flip" else data[:-1])
    assert victim.name in refused(StoreReason.BACKUP_DAMAGED, restore, target, tmp_path / "new")
    assert not (tmp_path / "new" / "instrument.db").exists()
    assert back_up(state.state_dir, target).unchanged == (2 if harm == "flip" else 1)  # sizes tell, bits do not


def test_a_restore_cut_short_at_any_step_can_be_repeated(state, target, tmp_path, monkeypatch):
    from daemon.store import restore as restoring

    back_up(state.state_dir, target)
    for name in ("copy_plain", "sync_folder", "_revive", "_move_in", "_give_to_owner"):
        for nth in range(8):
            place = StateLayout(tmp_path / f"{name}-{nth}")
            with monkeypatch.context() as patched:
                patched.setattr(restoring, name, failing(nth, PowerCut(), getattr(restoring, name)))
                try:
                    restore(target, place.state_dir)
                except PowerCut:
                    pass
                else:
                    break
            if name != "_give_to_owner" and not (name == "sync_folder" and nth == 3):
                assert not place.catalogue.exists()
                restore(target, place.state_dir)
            with CatalogueReader(place.catalogue) as catalogue:
                assert len(catalogue.runs()) == 2
            assert place.run_path("r1").read_bytes() == state.run_path("r1").read_bytes()


def test_moving_in_can_be_completed(state, target, tmp_path, monkeypatch):
    back_up(state.state_dir, target)
    new = StateLayout(tmp_path / "new")
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", failing(1, PowerCut(), os.rename))
        with pytest.raises(PowerCut):
            restore(target, new.state_dir)
    assert new.run_path("r1").exists() and not new.catalogue.exists()
    restore(target, new.state_dir)
    assert new.catalogue.exists() and not (new.state_dir / FOLDER).exists()


def test_offline_the_state_directory_is_held_and_runs_are_marked(state, target):
    back_up_offline(state.state_dir, target)
    with CatalogueReader(state.catalogue) as catalogue:
        assert all(run.exported_utc for run in catalogue.runs())
    with StateLock(state.lock):
        refused(StoreReason.LOCKED, back_up_offline, state.state_dir, target)
    refused(StoreReason.NOT_A_RUN, back_up_offline, target, target)


def test_in_a_process_of_its_own(state, target):
    shares = []
    report = back_up_in_child(state.state_dir, target, shares.append, deadline_s=60.0, spare_mb=0)
    assert whole(target) == ["r1", "r2"] == sorted(report.whole_runs) and shares
    with pytest.raises(StoreError) as caught:
        back_up_in_child(state.state_dir, target / "none", shares.append, deadline_s=60.0, spare_mb=0)
    assert caught.value.reason is StoreReason.BACKUP_PLACE and "none" in caught.value.detail


def test_where_priorities_may_not_be_lowered_it_is_copied_all_the_same(state, target, monkeypatch, capsys):
    from daemon.service import priority
    from daemon.store import backup_child

    monkeypatch.setattr(priority.os, "nice", failing(0, PermissionError(1, "Operation not permitted")))
    monkeypatch.setattr(priority.psutil.Process, "ionice", failing(0, PermissionError(1, "Operation not permitted")))
    assert backup_child.main([str(state.state_dir), str(target), "60", "0"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["done"]["copied"] == 3
    assert backup_child.main([str(state.state_dir), str(target / "none"), "60", "0"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["code"] == "store.backup_place"


def test_a_process_that_hangs_is_given_up(state, target, monkeypatch):
    from daemon.store import backup_child

    monkeypatch.setattr(backup_child, "PATIENCE_S", -60.0)
    with pytest.raises(StoreError) as caught:
        back_up_in_child(state.state_dir, target, lambda share: None, deadline_s=60.0, spare_mb=0)
    assert caught.value.reason is StoreReason.BACKUP_LATE


def test_a_cancelled_one_ends_its_process(state, target):
    def cancelled(share):
        raise KeyboardInterrupt

    began_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        back_up_in_child(state.state_dir, target, cancelled, deadline_s=60.0, spare_mb=0)
    assert time.monotonic() - began_s < 20
    assert read_manifest(target) is None


def test_the_manifest_can_be_read_by_others(state, target):
    back_up(state.state_dir, target)
    document = json.loads((target / NAME).read_text())
    assert document["format"] == 1 and {each["path"] for each in document["files"]} == {
        "instrument.db", "runs/r1.db", "runs/r2.db",
    }  # fmt: skip
