from __future__ import annotations

import os

import pytest

from daemon.store.schema import RUN, open_reading, wal_path
from daemon.store.session import CHECKPOINT_WAL_BYTES, OpenFile, used_bytes

FRAME_BYTES = 4096 + 24


class Outcome:
    result = error = None


@pytest.fixture
def file(tmp_path):
    one = OpenFile.open(tmp_path / "r1.db", RUN, create=True)
    yield one
    one.finish()


def write(file, kilobytes):
    row = (os.urandom(1000 * kilobytes),)
    file.execute([(Outcome(), lambda: file.conn.execute("insert into masks (labels) values (?)", row))])


def frames_by_sqlite(file):
    """SQLite's own count of the log's present round; the checkpoint moves, and empties nothing."""
    return file.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]


def test_what_a_log_holds_is_what_sqlite_says_round_after_round(file):
    sizes = []
    for kilobytes in (900, 3, 40, 200, 1, 700):
        write(file, kilobytes)
        used = used_bytes(wal_path(file.path))
        frames = frames_by_sqlite(file)
        assert used == 32 + frames * FRAME_BYTES
        sizes.append((used, wal_path(file.path).stat().st_size))
    assert any(used < size / 4 for used, size in sizes), "the file keeps the size of its largest round"


def test_logs_that_hold_nothing(tmp_path):
    for content in (b"", b"\x37\x7f\x06\x82" + bytes(20), b"\x37\x7f\x06\x82" + bytes(4) + b"\0\0\x10\0" + bytes(20)):
        (tmp_path / "a-wal").write_bytes(content)
        assert used_bytes(tmp_path / "a-wal") <= 32


def test_a_log_is_emptied_when_it_holds_much_not_when_its_file_is_large(file):
    statements = []
    file.conn.set_trace_callback(statements.append)
    for _ in range(12):
        write(file, 1000)
        file.checkpoint_when_large()
    checkpoints = sum("wal_checkpoint" in statement for statement in statements)
    assert 2 <= checkpoints <= 3  # 12 MB by 4 MB
    assert file.wal_bytes() < 2 * CHECKPOINT_WAL_BYTES


def test_a_reader_that_never_lets_go_holds_up_nothing_but_the_log(file):
    write(file, 1)
    reader = open_reading(file.path, RUN)
    try:
        reader.conn.execute("begin")
        reader.conn.execute("select count(*) from masks").fetchone()
        for _ in range(12):
            write(file, 1000)
            file.checkpoint_when_large()
        assert file.wal_bytes() > 2 * CHECKPOINT_WAL_BYTES
        reader.conn.rollback()
        file.checkpoint_when_large()
        write(file, 1)
        assert used_bytes(wal_path(file.path)) < CHECKPOINT_WAL_BYTES
    finally:
        reader.close()
