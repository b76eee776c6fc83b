from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store import rows
from daemon.store.aside import set_aside
from daemon.store.backup import back_up
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.recovery import SEQ_GAP, recover, remake
from daemon.store.schema import wal_path
from tests.daemon.store.helpers import WAIT_S, copy_database, event, frames, open_run, running, summary


@pytest.fixture
def cut(tmp_path):
    """A state directory as a power cut leaves it: `r1` running, an ended run, a run that never got its file."""
    live, state = tmp_path / "live", tmp_path / "state"
    live.mkdir()
    (state / "runs").mkdir(parents=True)
    with open_run(live, commit_interval_s=0.02) as (writer, _):
        writer.put_events([event(0.1), event(0.2)]).result(WAIT_S)
        writer.close_run().result(WAIT_S)
        writer.update_run("r1", state="done", ended_utc="2026-01-02T03:05:00+00:00").result(WAIT_S)
        second = live / "runs" / "r2.db"
        writer.create_run(second, {}, summary("r2", second, state="stopping")).result(WAIT_S)
        writer.put_chunk(*frames(0, 51))
        writer.put_events([event(0.3)]).result(WAIT_S)
        writer.set_metadata({"x": 1}).result(WAIT_S)
        for name in ("instrument.db", "runs/r1.db", "runs/r2.db"):
            copy_database(live / name, state / name)
    return state


def test_runs_that_never_ended_become_interrupted(cut):
    assert [run.run_id for run in recover(cut / "instrument.db")] == ["r2"]
    with CatalogueReader(cut / "instrument.db") as catalogue:
        run = catalogue.run("r2")
        assert (run.state, run.reason, run.frames) == ("interrupted", "run.interrupted", 51)
        assert run.ended_utc == "2026-01-02T03:04:05.500000+00:00"
        assert run.path == cut / "runs" / "r2.db"
        assert catalogue.run("r1").state == "done"
    with RunReader(cut / "runs" / "r2.db") as reader:
        assert reader.metadata()["state"] == "interrupted"
        assert reader.metadata()["frames"] == 51
        assert len(reader.frames()["frame"]) == 51
    assert not wal_path(cut / "runs" / "r2.db").exists()
    assert recover(cut / "instrument.db") == []


def test_events_that_only_reached_the_catalogue_are_completed(cut):
    with sqlite3.connect(cut / "runs" / "r2.db") as conn:
        assert conn.execute("delete from events").rowcount == 1
    conn.close()
    recover(cut / "instrument.db")
    with RunReader(cut / "runs" / "r2.db") as reader:
        assert [(each.seq, each.event_id, each.t_s) for each in reader.events()] == [(3, 1, 0.3)]


@pytest.mark.parametrize("place", [3, 70])
def test_a_run_whose_first_bytes_are_damaged_is_set_aside(cut, place):
    """It no longer looks like a database, or like one of ours."""
    path = cut / "runs" / "r2.db"
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    wal_path(path).unlink(missing_ok=True)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    run = recover(cut / "instrument.db")[0]
    aside = path.with_name("r2.db.damaged-1")
    assert (run.state, run.reason, run.path) == ("interrupted", "store.corrupt", aside)
    assert "SQLite database" in run.detail and run.detail.endswith(f"the file is kept as {aside.name}")
    assert aside.read_bytes() == content and not path.exists()


def test_a_run_whose_file_was_being_made_is_interrupted_and_stays(cut):
    path = cut / "runs" / "r2.db"
    wal_path(path).unlink()
    path.write_bytes(b"")
    run = recover(cut / "instrument.db")[0]
    assert (run.state, run.reason, run.path) == ("interrupted", "store.not_a_run", path)
    assert path.exists()


def test_a_run_without_its_file_is_interrupted_too(cut):
    for name in ("r2.db", "r2.db-wal"):
        (cut / "runs" / name).unlink(missing_ok=True)
    run = recover(cut / "instrument.db")[0]
    assert (run.state, run.reason) == ("interrupted", "store.not_writable")
    assert "r2.db" in run.detail
    assert not (cut / "runs" / "r2.db").exists()


@pytest.mark.parametrize("damage", [b"\0" * 8192, b"garbage " * 2000])
def test_a_damaged_catalogue_is_set_aside_and_made_again(cut, damage):
    wal_path(cut / "instrument.db").unlink()
    (cut / "instrument.db").write_bytes(damage)
    assert [run.run_id for run in recover(cut / "instrument.db")] == ["r2"]
    assert (cut / "instrument.db.corrupt-1").read_bytes() == damage
    with CatalogueReader(cut / "instrument.db") as catalogue:
        assert {run.run_id: run.state for run in catalogue.runs()} == {"r1": "done", "r2": "interrupted"}
        assert [each.seq for each in catalogue.events()] == [1, 2, 3]
        assert catalogue.run("r1").recipe == {"name": "a name", "masks": {"min_area_px": 30}}
    with running(cut / "instrument.db") as writer:
        assert writer.put_events([event(1.0)]).result(WAIT_S)[0].seq == 3 + SEQ_GAP + 1


@pytest.mark.parametrize("place", [3, 70])
def test_a_catalogue_whose_first_bytes_are_damaged_is_made_again(cut, place):
    """It no longer looks like a database, or like one of ours."""
    catalogue = cut / "instrument.db"
    with closing(sqlite3.connect(catalogue)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    wal_path(catalogue).unlink(missing_ok=True)
    content = bytearray(catalogue.read_bytes())
    content[place] ^= 1
    catalogue.write_bytes(content)
    assert [run.run_id for run in recover(catalogue)] == ["r2"]
    assert (cut / "instrument.db.corrupt-1").read_bytes() == content


@pytest.mark.parametrize("log_is_left", [False, True])
def test_a_catalogue_that_is_missing_is_made_again_and_told(cut, log_is_left):
    catalogue = cut / "instrument.db"
    catalogue.unlink()
    if not log_is_left:
        wal_path(catalogue).unlink()
    told = []
    assert [run.run_id for run in recover(catalogue, told.append)] == ["r2"]
    (error,) = told
    assert error.reason is StoreReason.CORRUPT and "is not there" in error.detail
    assert "instrument.db.corrupt-1" in error.detail and (cut / "instrument.db.corrupt-1").read_bytes() == b""
    assert wal_path(cut / "instrument.db.corrupt-1").exists() == log_is_left
    with CatalogueReader(catalogue) as reader:
        assert {run.run_id: run.state for run in reader.runs()} == {"r1": "done", "r2": "interrupted"}
        assert [each.seq for each in reader.events()] == [1, 2, 3]


def test_a_run_with_half_a_write_is_in_the_catalogue_that_is_made_again(cut):
    path = cut / "runs" / "r1.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = DELETE")
        conn.execute("PRAGMA cache_size = 1")  # so that pages reach the file before the commit
        conn.execute("BEGIN")
        conn.execute("CREATE TABLE half AS SELECT randomblob(200000) AS bytes")
        left = {name: (cut / "runs" / name).read_bytes() for name in ("r1.db", "r1.db-journal")}
        conn.execute("ROLLBACK")
    for name, content in left.items():
        (cut / "runs" / name).write_bytes(content)
    (cut / "instrument.db").unlink()
    recover(cut / "instrument.db")
    with CatalogueReader(cut / "instrument.db") as reader:
        assert {run.run_id: run.state for run in reader.runs()} == {"r1": "done", "r2": "interrupted"}


def test_a_damaged_catalogue_is_told_of(cut):
    told = []
    lose(cut / "instrument.db")
    recover(cut / "instrument.db", told.append)
    assert "instrument.db.corrupt-1" in told[0].detail and "its header does not know of" in told[0].detail


def lose(catalogue, first=0):
    """Damage all of a catalogue that nobody has open, or what follows its byte `first`; None: remove it."""
    if first is None:
        catalogue.unlink()
        return
    content = catalogue.read_bytes()
    catalogue.write_bytes(content[:first] + b"\xa5" * (len(content) - first))


def between_runs(catalogue, count=2):
    """Numbers of events that belong to no run."""
    with running(catalogue) as writer:
        return [each.seq for each in writer.put_events([event(9.0)] * count).result(WAIT_S)]


def test_a_number_is_never_given_twice_however_often_the_catalogue_is_lost(tmp_path):
    catalogue = tmp_path / "instrument.db"
    with open_run(tmp_path) as (writer, _):
        writer.put_events([event(0.1)] * 3).result(WAIT_S)
        writer.update_run("r1", state="done").result(WAIT_S)
    given = between_runs(catalogue)
    assert given == [4, 5]
    for first in (0, 8192, None, 0, None, None):  # with 8192 the schema can be read, and nothing else
        lose(catalogue, first)
        recover(catalogue)
        (now, last) = between_runs(catalogue)
        assert now > given[-1] and last == now + 1
        given += [now, last]
    with CatalogueReader(catalogue) as reader:
        assert [each.seq for each in reader.events()] == [1, 2, 3, *given[-2:]]
        assert [each.seq for each in reader.events(after_seq=given[-3])] == given[-2:]
        assert not reader.damaged_rows


def test_numbers_go_on_above_what_a_damaged_catalogue_still_tells(tmp_path):
    catalogue = tmp_path / "instrument.db"
    with open_run(tmp_path) as (writer, _):
        writer.update_run("r1", state="done").result(WAIT_S)
    with closing(sqlite3.connect(catalogue)) as conn, conn:
        rows.number_after(conn, 5 * SEQ_GAP)
    assert between_runs(catalogue) == [5 * SEQ_GAP + 1, 5 * SEQ_GAP + 2]
    remake(catalogue, StoreError(StoreReason.CORRUPT, "a page of the audit"))
    assert between_runs(catalogue)[0] == 5 * SEQ_GAP + 2 + SEQ_GAP + 1


def test_a_catalogue_that_lost_its_tables_gives_no_number_twice_either(cut):
    wal_path(cut / "instrument.db").unlink()
    (cut / "instrument.db").write_bytes(b"")
    assert [run.run_id for run in recover(cut / "instrument.db")] == ["r2"]
    assert between_runs(cut / "instrument.db")[0] == 3 + SEQ_GAP + 1


def test_a_run_file_that_cannot_be_read_is_in_the_new_catalogue_as_a_damaged_run(cut):
    wal_path(cut / "instrument.db").unlink()
    (cut / "instrument.db").write_bytes(b"garbage " * 2000)
    (cut / "runs" / "r1.db").write_bytes(b"garbage " * 2000)
    (cut / "runs" / "r3.db").touch()
    assert [run.run_id for run in recover(cut / "instrument.db")] == ["r2"]
    with CatalogueReader(cut / "instrument.db") as catalogue:
        assert {run.run_id: run.state for run in catalogue.runs()} == {"r1": "interrupted", "r2": "interrupted"}
        run = catalogue.run("r1")
    assert (run.path, run.reason) == (cut / "runs" / "r1.db", "store.corrupt")
    assert "not an SQLite database" in run.detail


@pytest.mark.parametrize("damage", [None, b"", b"garbage " * 2000])
def test_a_run_that_was_set_aside_is_in_the_new_catalogue(cut, damage):
    """One that opens all the same tells of itself; what names it is the file's name."""
    aside = set_aside(cut / "runs" / "r2.db")
    if damage is not None:
        wal_path(aside).unlink()
        aside.write_bytes(damage)
    older = aside.with_name("r1.db.damaged-1")
    older.write_bytes(b"garbage " * 2000)
    lose(cut / "instrument.db")
    assert recover(cut / "instrument.db") == []  # nothing completes it
    with CatalogueReader(cut / "instrument.db") as catalogue:
        runs = {run.run_id: run for run in catalogue.runs()}
        events = [each.seq for each in catalogue.events()]
    assert (runs["r1"].path.name, runs["r1"].state) == ("r1.db", "done")
    if damage == b"":
        assert list(runs) == ["r1"]
        return
    run = runs["r2"]
    assert (run.path, run.state, run.reason) == (aside, "interrupted", "store.corrupt")
    assert run.detail.endswith("the file is kept as r2.db.damaged-1")
    assert events == ([1, 2, 3] if damage is None else [1, 2])
    assert run.started_utc.startswith("2026-01-02" if damage is None else "20")
    copied = back_up(cut, folder(cut.parent / "backup"))
    assert sorted(copied.whole_runs) == ["r1", "r2"] and not copied.damaged


def folder(path):
    path.mkdir()
    return path


def test_a_newer_catalogue_is_left_alone(cut):
    with sqlite3.connect(cut / "instrument.db") as conn:
        conn.execute("insert into _sqlite_migrations (migration_set, name, applied_at)"
                     " values ('photometry-catalogue', '9999_later', '2030')")  # fmt: skip
    conn.close()
    before = (cut / "instrument.db").read_bytes()
    with pytest.raises(StoreError) as caught:
        recover(cut / "instrument.db")
    assert caught.value.reason is StoreReason.NEWER
    assert (cut / "instrument.db").read_bytes() == before


def test_nothing_to_recover(tmp_path):
    assert recover(tmp_path / "instrument.db") == []
    assert list(tmp_path.iterdir()) == []
