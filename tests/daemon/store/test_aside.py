"""Damage that shows while the store is being written: set aside whole, and the instrument goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store.aside import set_aside
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.recovery import SEQ_GAP
from tests.daemon.store.helpers import WAIT_S, event, frames, open_run, summary


def spoil(path):
    """Everything but the first page, where nobody's cache has it any more."""
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    return path.read_bytes()


def test_a_run_that_turns_out_damaged_is_set_aside_and_the_next_is_sound(tmp_path):
    told = []
    with open_run(tmp_path, commit_interval_s=0.01, on_fault=told.append) as (writer, path):
        writer.put_chunk(*frames(0, 20)).result(WAIT_S)
        content = spoil(path)
        with pytest.raises(StoreError) as caught:
            writer.put_ensemble([{"t_s": 1.0}]).result(WAIT_S)
        assert caught.value.reason is StoreReason.CORRUPT
        assert [error.reason for error in told] == [StoreReason.CORRUPT]
        writer.close_run().result(WAIT_S)
        writer.update_run("r1", state="failed").result(WAIT_S)
        aside = path.with_name("r1.db.damaged-1")
        assert aside.read_bytes() == content and not path.exists()
        second = path.with_name("r2.db")
        writer.create_run(second, {}, summary("r2", second)).result(WAIT_S)
        writer.put_chunk(*frames(0, 20)).result(WAIT_S)
    with CatalogueReader(tmp_path / "instrument.db") as catalogue:
        run = catalogue.run("r1")
        assert (run.path, run.state, run.reason) == (aside, "failed", "store.corrupt")
        assert aside.name in run.detail and not catalogue.damaged_rows
    with RunReader(second) as reader:
        assert reader.frame_count() == 20


def test_a_catalogue_that_turns_out_damaged_is_made_again_while_a_run_goes_on(tmp_path):
    with open_run(tmp_path, commit_interval_s=0.01) as (writer, path):
        writer.put_events([event(0.1), event(0.2)]).result(WAIT_S)
        content = spoil(tmp_path / "instrument.db")
        with pytest.raises(StoreError) as caught:
            writer.put_events([event(0.3)]).result(WAIT_S)
        assert caught.value.reason is StoreReason.CORRUPT
        assert writer.put_events([event(0.4)]).result(WAIT_S)[0].seq == 2 + SEQ_GAP + 1
        writer.put_chunk(*frames(0, 20)).result(WAIT_S)
    assert (tmp_path / "instrument.db.corrupt-1").read_bytes() == content
    with CatalogueReader(tmp_path / "instrument.db") as catalogue:
        assert [each.t_s for each in catalogue.events()] == [0.1, 0.2, 0.4]
        assert catalogue.run("r1").state == "running"
    with RunReader(path) as reader:
        assert reader.frame_count() == 20


def test_a_closed_run_is_set_aside_on_request_and_an_open_one_when_it_is_closed(tmp_path):
    why = StoreError(StoreReason.CORRUPT, "page 7 is gone")
    with open_run(tmp_path) as (writer, path):
        assert writer.set_aside("r1", path, why).result(WAIT_S) is None
        assert path.exists()
        writer.close_run().result(WAIT_S)
        first = path.with_name("r1.db.damaged-1")
        assert first.exists() and not path.exists()
        second = path.with_name("r2.db")
        writer.create_run(second, {}, summary("r2", second)).result(WAIT_S)
        writer.close_run().result(WAIT_S)
        assert writer.set_aside("r2", second, why).result(WAIT_S) == second.with_name("r2.db.damaged-1")
    with CatalogueReader(tmp_path / "instrument.db") as catalogue:
        assert [run.path.name for run in catalogue.runs()] == ["r2.db.damaged-1", "r1.db.damaged-1"]
        assert catalogue.run("r2").detail == "page 7 is gone; the file is kept as r2.db.damaged-1"


def test_a_name_is_never_used_twice(tmp_path):
    for number in (1, 2, 3):
        (tmp_path / "a.db").write_text(str(number))
        (tmp_path / "a.db-wal").write_text(f"log {number}")
        assert set_aside(tmp_path / "a.db") == tmp_path / f"a.db.damaged-{number}"
    assert (tmp_path / "a.db.damaged-2").read_text() == "2"
    assert (tmp_path / "a.db.damaged-2-wal").read_text() == "log 2"
