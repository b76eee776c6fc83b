"""What the writer does when the disk does not play along."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
from concurrent.futures import wait

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store import loop, session
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.schema import wal_path
from tests.daemon.store.helpers import WAIT_S, event, frames, open_run, running, summary


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(loop, "RETRY_PAUSES_S", (0.0,))


@pytest.fixture
def opened(monkeypatch):
    """The writer's own connections, by file name."""
    found = {}
    original = session.open_writing

    def remembered(path, kind, *, create=False):
        found[path.name] = original(path, kind, create=create)
        return found[path.name]

    monkeypatch.setattr(session, "open_writing", remembered)
    return found


def put_one_of_each(writer, number):
    """One transaction's worth; the futures of frames, rows and events."""
    dense = writer.put_chunk(*frames(10 * number, 10, particles=60))
    row = writer.put_ensemble([{"t_s": float(number)}])
    return [dense, row, writer.put_events([event(float(number))])]


def outcomes(futures):
    wait(futures, WAIT_S)
    return [future.exception(0) for future in futures]


def check_whole(path, good):
    """The file is sound and holds exactly the transactions numbered `good`."""
    conn = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    conn.close()
    with RunReader(path) as run:
        assert [row["t_s"] for row in run.ensemble()] == good
        assert [each.t_s for each in run.events()] == good
        assert sorted({frame // 10 for frame in run.frames()["frame"].tolist()}) == good
        assert run.corrupt_chunks == 0


@pytest.mark.parametrize("spare_pages", range(0, 16, 2))
def test_disk_full_at_any_page_loses_that_transaction_only(tmp_path, opened, spare_pages):
    told = []
    with open_run(tmp_path, commit_interval_s=0.02, on_fault=told.append) as (writer, path):
        results = [outcomes(put_one_of_each(writer, 0))]
        conn = opened["r1.db"].conn
        pages = conn.execute("PRAGMA page_count").fetchone()[0]
        conn.execute(f"PRAGMA max_page_count = {pages + spare_pages}")
        while len(results) < 30 and not any(results[-1]):
            results.append(outcomes(put_one_of_each(writer, len(results))))
        assert {error.reason for error in results[-1] if error} == {StoreReason.DISK_FULL}
        assert writer.status().reason == "store.disk_full" or not all(results[-1])
        assert {error.reason for error in told} == {StoreReason.DISK_FULL}
        conn.execute("PRAGMA max_page_count = 1000000")
        results.append(outcomes(put_one_of_each(writer, len(results))))
        assert not any(results[-1])
        assert writer.status().state == "ready"
        lost = writer.stats().lost_frames
        writer.close_run().result(WAIT_S)
    stored = [[number for number, result in enumerate(results) if result[i] is None] for i in range(3)]
    with RunReader(path) as run:
        assert sorted(set((run.frames()["frame"] // 10).tolist())) == stored[0]
        assert [row["t_s"] for row in run.ensemble()] == stored[1]
        assert [each.t_s for each in run.events()] == stored[2]
        assert sum(row["count"] for row in run.drops()) == lost == 10 * (len(results) - len(stored[0]))


def test_a_write_error_at_any_byte_leaves_whole_transactions(tmp_path):
    """A file size limit makes the kernel refuse the n-th byte, as a dying card would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_run(tmp_path, commit_interval_s=30.0) as (writer, path):
        good = []
        for number in range(14):
            size = wal_path(path).stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1 + 3001 * number, hard))
            try:
                results = outcomes([writer.put_ensemble([{"t_s": float(number)}]), writer.put_events([event(number)])])
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert all(error is None or error.reason is StoreReason.NOT_WRITABLE for error in results)
            assert len({error is None for error in results}) == 1
            good += [float(number)] if results[0] is None else []
        assert good and len(good) < 14
        assert outcomes([writer.put_ensemble([{"t_s": 99.0}]), writer.put_events([event(99.0)])]) == [None, None]
    with RunReader(path) as run:
        assert [row["t_s"] for row in run.ensemble()] == [*good, 99.0]
        assert [each.t_s for each in run.events()] == [*good, 99.0]


def test_a_really_full_disk(small_disk):
    with open_run(small_disk, commit_interval_s=0.02) as (writer, path):
        good, results = [], [None]
        number = 0
        while all(error is None for error in results) and number < 200:
            results = outcomes(put_one_of_each(writer, number))
            good += [number] if results == [None] * 3 else []
            number += 1
        assert good
        assert {error.reason for error in results if error} == {StoreReason.DISK_FULL}
        with RunReader(path) as run:
            assert set(good) <= {int(row["t_s"]) for row in run.ensemble()}
    conn = sqlite3.connect(path)
    assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    conn.close()


def test_no_room_for_a_new_run_leaves_no_file(small_disk):
    with running(small_disk / "instrument.db") as writer:
        (small_disk / "filler").write_bytes(b"")
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"\0" * 4096):
                pass
        with pytest.raises(StoreError) as caught:
            writer.create_run(small_disk / "r1.db", {}, summary("r1", small_disk / "r1.db")).result(WAIT_S)
        assert caught.value.reason is StoreReason.DISK_FULL
        assert not [each for each in small_disk.iterdir() if each.name.startswith("r1")]
        (small_disk / "filler").unlink()
        writer.create_run(small_disk / "r1.db", {}, summary("r1", small_disk / "r1.db")).result(WAIT_S)


def test_a_lock_that_passes_costs_nothing(tmp_path):
    with open_run(tmp_path, commit_interval_s=0.02) as (writer, path):
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("begin immediate")
        futures = put_one_of_each(writer, 0)
        assert not wait(futures, 0.1).done
        other.execute("rollback")
        other.close()
        assert outcomes(futures) == [None] * 3
    check_whole(path, [0])


def test_a_lock_that_stays_is_reported_and_survived(tmp_path):
    told = []
    with open_run(tmp_path, commit_interval_s=0.02, on_fault=told.append) as (writer, path):
        for file in writer._session.files:
            file.conn.execute("PRAGMA busy_timeout = 10")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("begin immediate")
        results = outcomes(put_one_of_each(writer, 0))
        other.execute("rollback")
        other.close()
        assert {error.reason for error in results} == {StoreReason.LOCKED}
        assert [error.reason for error in told] == [StoreReason.LOCKED]
        assert outcomes(put_one_of_each(writer, 1)) == [None] * 3
    check_whole(path, [1])


def test_a_number_is_never_given_twice_though_the_run_could_not_take_the_event(tmp_path, opened):
    with open_run(tmp_path) as (writer, path):
        conn = opened["r1.db"].conn
        conn.execute("PRAGMA query_only = 1")
        with pytest.raises(StoreError) as caught:
            writer.put_events([event(1.0)]).result(WAIT_S)
        assert caught.value.reason is StoreReason.NOT_WRITABLE
        conn.execute("PRAGMA query_only = 0")
        again = writer.put_events([event(2.0)]).result(WAIT_S)
        assert (again[0].seq, again[0].event_id) == (2, 2)
    with CatalogueReader(tmp_path / "instrument.db") as catalogue, RunReader(path) as run:
        assert [each.t_s for each in catalogue.events()] == [1.0, 2.0]
        assert [each.t_s for each in run.events()] == [2.0]


def test_a_receiver_of_faults_that_fails_does_not_stop_the_writer(tmp_path, opened, caplog):
    def broken(error):
        raise RuntimeError("receiver")

    with open_run(tmp_path, on_fault=broken) as (writer, _):
        opened["instrument.db"].conn.execute("PRAGMA query_only = 1")
        with pytest.raises(StoreError):
            writer.put_events([event(1.0)]).result(WAIT_S)
        opened["instrument.db"].conn.execute("PRAGMA query_only = 0")
        assert writer.put_events([event(1.0)]).result(WAIT_S)[0].seq == 1
    assert "receiver of store faults failed" in caplog.text


def test_losses_are_recorded_even_when_nothing_follows(tmp_path):
    with open_run(tmp_path, commit_interval_s=30.0) as (writer, path):
        writer._loop.losses.add("store.overloaded", 5, 2.0)
        writer._loop.losses.add("store.overloaded", 3, 4.0)
        writer.close_run().result(WAIT_S)
    with RunReader(path) as run:
        assert run.drops() == [{"stage": "store", "reason": "store.overloaded", "count": 8, "t_s": 2.0}]
