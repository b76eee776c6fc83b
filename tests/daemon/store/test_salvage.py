"""What is recovered from damaged files: everything that is still whole, and nothing else."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store.check import check_file
from daemon.store.pages import rows_of_pages
from daemon.store.reader import RunReader
from daemon.store.salvage import salvage
from daemon.store.schema import wal_path
from tests.daemon.store.helpers import WAIT_S, cell_row, copy_database, running, without_proof
from tests.faults.state import RUN_CALLS, ask, make_state


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return make_state(tmp_path_factory.mktemp("state"))[0]


@pytest.fixture
def finished(state, tmp_path):
    return shutil.copy(state / "runs" / "r1.db", tmp_path / "a.db")


def told(path):
    """What its readers tell, without what names the file itself."""
    found = ask(path, RunReader, RUN_CALLS)
    kept = {name: {row for row in rows if "salvaged_from" not in row} for name, (rows, _) in found.items()}
    return {name: {row.replace("run_id='a'", "run_id='r1'") for row in rows} for name, rows in kept.items()}


def overwrite(path, first_page, pages=1, byte=0xA5):
    with path.open("r+b") as file:
        file.seek((first_page - 1) * 4096)
        file.write(bytes([byte]) * 4096 * pages)


def test_everything_of_a_sound_file(finished, tmp_path):
    report = salvage(finished, tmp_path / "out.db")
    assert (report.lost, report.unread, report.from_pages) == ({}, [], 0)
    assert told(tmp_path / "out.db") == told(finished)
    assert check_file(tmp_path / "out.db").is_sound


@pytest.mark.parametrize("pages", [1, 40])
def test_everything_behind_a_lost_header_and_schema(finished, tmp_path, pages):
    truth = told(finished)
    overwrite(finished, 1, pages)
    report = salvage(finished, tmp_path / "out.db")
    assert report.unread and report.from_pages == sum(report.recovered.values()) > 100
    found = told(tmp_path / "out.db")
    for name, rows in found.items():
        if name not in ("frame count", "metadata"):
            assert rows <= truth[name], name
    if pages == 1:
        same = {name for name in truth if found[name] == truth[name]}
        assert {"particles", "events", "echem", "dense", "axial", "clips' pixels"} <= same


@pytest.fixture
def recorded(tmp_path):
    """A finished run with many rows of tables without a number of their own, over several pages each."""
    path = tmp_path / "a.db"
    with running(None) as writer:
        writer.create_run(path, {"run_id": "a", "state": "done"}, None).result(WAIT_S)
        writer.put_cell_samples([cell_row(float(t)) for t in range(1000)])
        writer.put_ensemble([{"t_s": float(t)} for t in range(1000)])
        for t in range(200):
            writer.put_fault("a.code", "a sentence that fills pages", float(t))
        writer.close_run().result(WAIT_S)
    return path


def numbered(path, table):
    with closing(sqlite3.connect(path)) as conn:
        return conn.execute(f"select rowid, t_s from {table} order by rowid").fetchall()


@pytest.mark.parametrize("first", [1, 8])
def test_rows_found_in_pages_keep_their_order(recorded, tmp_path, first):
    """Pages are looked through from the last: what goes by the order written would run backwards in time."""
    tables = ("cell_samples", "ensemble", "faults")
    truth = {table: numbered(recorded, table) for table in tables}
    with closing(sqlite3.connect(recorded)) as conn:
        roots = [conn.execute("select rootpage from sqlite_master where name = ?", (table,)) for table in tables]
        pages = [root.fetchone()[0] for root in roots] if first > 1 else [1]
    for page in pages:
        overwrite(recorded, page)
    report = salvage(recorded, tmp_path / "out.db")
    assert report.from_pages > 100
    assert {table: numbered(tmp_path / "out.db", table) for table in tables} == truth
    with RunReader(tmp_path / "out.db") as reader:
        times = [row["t_s"] for page in reader.iter_rows("cell_samples", page=300) for row in page]
    assert times == [float(t) for t in range(1000)]
    assert check_file(tmp_path / "out.db").is_sound


@pytest.mark.parametrize("number", [2**62, -3, 900, 5])
def test_a_damaged_number_of_a_row_with_a_key_costs_no_row(recorded, tmp_path, monkeypatch, number):
    """No check sum vouches for the number of such a row: it may be absurd, or another row's."""

    def damaged(path):
        for rowid, values in rows_of_pages(path):
            yield number if rowid == 7 else rowid, values

    monkeypatch.setattr("daemon.store.salvage.rows_of_pages", damaged)
    overwrite(recorded, 1)
    salvage(recorded, tmp_path / "out.db")
    found = numbered(tmp_path / "out.db", "ensemble")
    assert sorted(t_s for _, t_s in found) == [float(t) for t in range(1000)]
    assert sum(rowid == t_s + 1 for rowid, t_s in found) >= 998
    assert check_file(tmp_path / "out.db").is_sound


def test_an_unfinished_file_with_its_log_and_without(state, tmp_path):
    copy_database(state / "runs" / "r2.db", tmp_path / "a.db")
    truth = told(tmp_path / "a.db")
    salvage(tmp_path / "a.db", tmp_path / "out.db")
    assert told(tmp_path / "out.db") == truth
    copy_database(state / "runs" / "r2.db", tmp_path / "b.db")
    overwrite(tmp_path / "b.db", 1)
    salvage(tmp_path / "b.db", tmp_path / "with.db")
    assert told(tmp_path / "with.db")["events"] == truth["events"]
    wal_path(tmp_path / "b.db").unlink()
    salvage(tmp_path / "b.db", tmp_path / "without.db")
    events = told(tmp_path / "without.db")["events"]
    assert events < truth["events"] and len(events) == 25


def test_a_torn_file_gives_what_is_left_of_it(finished, tmp_path):
    truth = told(finished)
    content = finished.read_bytes()
    finished.write_bytes(content[: len(content) * 6 // 10])
    report = salvage(finished, tmp_path / "out.db")
    found = told(tmp_path / "out.db")
    assert sum(report.recovered.values()) > 100 and found["pages of cycles"]
    assert all(rows <= truth[name] for name, rows in found.items() if name not in ("frame count", "metadata"))


def test_no_flipped_bit_gets_into_the_new_file(finished, tmp_path):
    truth, content, rng = told(finished), finished.read_bytes(), random.Random(4)
    for trial in range(12):
        damaged = bytearray(content)
        for _ in range(40):
            damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        finished.write_bytes(damaged)
        out = tmp_path / f"{trial}.db"
        salvage(finished, out)
        found = told(out)
        assert all(rows <= truth[name] for name, rows in found.items() if name not in ("frame count", "metadata"))


def test_a_file_of_an_earlier_version_is_read_as_far_as_sqlite_can(finished, tmp_path):
    truth = told(finished)
    without_proof(finished)
    report = salvage(finished, tmp_path / "out.db")
    assert report.unproven > 100
    assert told(tmp_path / "out.db") == truth


def test_what_is_no_run_or_exists_already(finished, tmp_path):
    (tmp_path / "notes").write_bytes(b"nothing of the kind" * 9999)
    for source, out, reason in (
        (tmp_path / "notes", tmp_path / "out.db", StoreReason.CORRUPT),
        (tmp_path / "nothing", tmp_path / "out.db", StoreReason.NOT_A_RUN),
        (finished, finished, StoreReason.EXISTS),
    ):
        with pytest.raises(StoreError) as caught:
            salvage(source, out)
        assert caught.value.reason is reason
    assert not (tmp_path / "out.db").exists()
    assert check_file(finished).is_sound
