"""No descriptor beside SQLite's own: the locks of the writer stand whatever the process reads of its files."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store.check import check_file, kind_of
from daemon.store.checking import FileChecks
from daemon.store.held import held_bytes
from daemon.store.log_check import lost_log_bytes, unseen_log_bytes
from daemon.store.paths import StateLayout
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.schema import CATALOGUE, RUN, open_reading, open_writing, wal_path
from tests.daemon.store.helpers import WAIT_S, copy_database, open_run
from tests.locks import locks_stand, read_from_outside


@pytest.fixture
def files(tmp_path):
    """A catalogue and a run's file, both being written, with committed rows in their logs."""
    with open_run(tmp_path) as (writer, run):
        writer.put_fault("a.fault", "and its detail").result(WAIT_S)
        yield tmp_path / "instrument.db", run


@pytest.fixture
def database(tmp_path):
    """A plain database of SQLite's, `application_id` 258, and a connection to it."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as conn:
        conn.execute("PRAGMA application_id = 258")
        conn.execute("create table a (b)")
        yield tmp_path / "a.db", conn


def read_the_catalogue(files):
    with CatalogueReader(files[0]) as reader:
        assert [run.run_id for run in reader.runs()] == ["r1"] and len(reader.faults()) == 1
        assert not reader.damaged_rows


def read_the_run(files):
    with RunReader(files[1]) as reader:
        assert len(reader.faults()) == 1 and not reader.damaged_rows


def check_in_idle_time(files):
    told = []
    FileChecks(StateLayout(files[0].parent), check_file, told.append).run(lambda: False)
    assert not told


def open_for_reading(files):
    for path, kind in zip(files, (CATALOGUE, RUN), strict=True):
        open_reading(path, kind).close()


@pytest.mark.parametrize("read", [read_the_catalogue, read_the_run, check_in_idle_time, open_for_reading])
def test_the_writers_locks_outlive_readers(files, read):
    assert all(map(locks_stand, files))
    read(files)
    assert all(map(locks_stand, files))


@pytest.mark.parametrize("look", [check_file, kind_of, unseen_log_bytes, lost_log_bytes])
def test_the_writers_locks_outlive_a_look_at_its_files(files, look):
    for path in files:
        look(path)
    assert all(map(locks_stand, files))


def test_a_program_from_outside_leaves_the_log_of_a_living_writer(files):
    for path in files:
        before = os.stat(wal_path(path)).st_ino
        assert read_from_outside(path, "select count(*) from faults") == "1"
        assert os.stat(wal_path(path)).st_ino == before
        with closing(open_reading(path, CATALOGUE if path == files[0] else RUN)):
            assert read_from_outside(path, "select count(*) from faults") == "1"
        assert read_from_outside(path, "select count(*) from faults") == "1"
        assert os.stat(wal_path(path)).st_ino == before and Path(f"{path}-shm").exists()


def test_a_log_that_the_header_does_not_know_of_is_damage(files, tmp_path):
    copy_database(files[1], tmp_path / "copy.db")
    with (tmp_path / "copy.db").open("r+b") as file:
        file.seek(18)
        file.write(b"\1\1")
    with pytest.raises(StoreError) as caught:
        open_reading(tmp_path / "copy.db", RUN)
    assert caught.value.reason is StoreReason.CORRUPT and "header" in caught.value.detail


@pytest.mark.parametrize("kind", [CATALOGUE, RUN], ids=lambda kind: kind.name)
def test_the_kind_of_a_file_that_sqlite_refuses_is_told_by_its_header(tmp_path, kind):
    path = tmp_path / "a.db"
    open_writing(path, kind, create=True).close()
    with path.open("r+b") as file:
        file.write(b"no database")
    assert kind_of(path) is kind


def test_the_kind_of_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StoreError) as caught:
        kind_of(tmp_path / "a.db")
    assert caught.value.reason is StoreReason.NOT_WRITABLE


def test_bytes_of_a_file_that_a_connection_has_open(database):
    path, conn = database
    assert held_bytes(path, 16) == b"SQLite format 3\0" == path.read_bytes()[:16]
    assert held_bytes(path, 4, 68) == (258).to_bytes(4, "big")
    assert held_bytes(path, 10, path.stat().st_size - 3) == path.read_bytes()[-3:]
    conn.close()
    assert held_bytes(path, 16) == b""


def test_a_file_that_took_anothers_name_is_not_the_one_that_is_open(database):
    path, _ = database
    path.rename(path.with_name("b.db"))
    with pytest.raises(FileNotFoundError):
        held_bytes(path, 16)
    path.write_bytes(b"another")
    assert held_bytes(path, 16) == b"" and held_bytes(path.with_name("b.db"), 6) == b"SQLite"


def test_a_descriptor_that_is_closed_while_it_is_read_is_passed_over(database, monkeypatch):
    path, _ = database
    real, failed = os.pread, []

    def closed_once(fd, size, at):
        if not failed:
            failed.append(fd)
            raise OSError(9, "Bad file descriptor")
        return real(fd, size, at)

    monkeypatch.setattr(os, "pread", closed_once)
    with closing(sqlite3.connect(path)):
        assert held_bytes(path, 6) == b"SQLite" and failed
