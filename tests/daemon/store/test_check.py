"""What the full check says of damaged chunks, and of files that do not look like any."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store import check
from daemon.store.check import check_file
from daemon.store.codec import checksum
from daemon.store.rows import set_metadata
from daemon.store.schema import RUN, finish_file, open_writing
from tests.daemon.store.helpers import WAIT_S, event, running, without_proof

CHUNKS = 6


@pytest.fixture
def path(tmp_path):
    """A finished run's file with six chunks of no columns."""
    made = tmp_path / "a.db"
    with closing(open_writing(made, RUN, create=True)) as db:
        with db.atomic():
            set_metadata(db.conn, {"run_id": "a", "state": "done"})
            for number in range(1, CHUNKS + 1):
                fields = (number, number * 100, 100, 7, float(number), number + 0.99)
                db.conn.execute("insert into chunks values (?, ?, ?, ?, ?, ?, ?)", (*fields, checksum(b"", *fields)))
        finish_file(db)
    return made


def change(path, *statements):
    with closing(sqlite3.connect(path)) as conn, conn:
        for statement in statements:
            assert conn.execute(statement).rowcount == 1


@pytest.mark.parametrize("number", [CHUNKS, 3])
def test_a_flipped_bit_in_a_chunks_number_is_one_damaged_chunk(path, number):
    assert check_file(path).is_sound
    change(path, f"update chunks set chunk_id = chunk_id + 2097152 where chunk_id = {number}")
    outcome = check_file(path)
    assert outcome.findings == ["1 chunks or columns of chunks do not match their check sums"]
    assert (outcome.damaged_rows, outcome.missing_rows) == (1, 0)


@pytest.mark.parametrize("place", [3, 70])
def test_a_file_whose_first_bytes_are_damaged_is_damaged(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    outcome = check_file(path)
    assert outcome.finished and not outcome.is_sound
    (finding,) = outcome.findings
    assert "SQLite database" in finding


@pytest.mark.parametrize("content", [None, b""])
def test_a_file_that_is_not_there_or_empty_is_refused(path, content):
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        check_file(path)
    assert caught.value.reason is StoreReason.NOT_A_RUN


def test_missing_chunks_of_a_file_without_tallies_are_counted(path):
    without_proof(path)
    change(path, "delete from chunks where chunk_id = 2", "delete from chunks where chunk_id = 4")
    outcome = check_file(path)
    assert outcome.findings == ["2 chunks are missing"] and outcome.missing_rows == 2


def test_damaged_last_chunks_are_not_missing(path):
    change(path, *(f"update chunks set frames = 9 where chunk_id = {number}" for number in range(2, CHUNKS + 1)))
    outcome = check_file(path)
    assert outcome.findings == ["5 chunks or columns of chunks do not match their check sums"]
    assert (outcome.damaged_rows, outcome.missing_rows) == (5, 0)


def test_what_is_written_meanwhile_is_no_damage(tmp_path, monkeypatch):
    """Rows are summed first, and their tallies read then."""
    catalogue, opened, written = tmp_path / "instrument.db", check.open_reading, []

    with running(catalogue) as writer:
        writer.put_events([event(1.0)] * 3).result(WAIT_S)

        def at_the_worst_moment(statement):
            if statement.startswith("select * from tallies"):
                written.extend(writer.put_events([event(2.0)]).result(WAIT_S))

        def watched(*arguments):
            db = opened(*arguments)
            db.conn.set_trace_callback(at_the_worst_moment)
            return db

        monkeypatch.setattr(check, "open_reading", watched)
        assert check_file(catalogue).findings == []
    assert written
