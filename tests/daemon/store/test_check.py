"""What the full check says of damaged chunks."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from daemon.store.check import check_file
from daemon.store.codec import checksum
from daemon.store.rows import set_metadata
from daemon.store.schema import RUN, finish_file, open_writing
from tests.daemon.store.helpers import without_proof

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
