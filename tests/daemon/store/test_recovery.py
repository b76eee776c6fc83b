from __future__ import annotations

import sqlite3

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.recovery import recover
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
        assert writer.put_events([event(1.0)]).result(WAIT_S)[0].seq == 4


def test_a_run_file_that_cannot_be_read_is_left_out_of_the_new_catalogue(cut):
    wal_path(cut / "instrument.db").unlink()
    (cut / "instrument.db").write_bytes(b"garbage " * 2000)
    (cut / "runs" / "r1.db").write_bytes(b"garbage " * 2000)
    assert [run.run_id for run in recover(cut / "instrument.db")] == ["r2"]


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
