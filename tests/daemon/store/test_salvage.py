"""What is recovered from damaged files: everything that is still whole, and nothing else."""

from __future__ import annotations

import random
import shutil

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store.check import check_file
from daemon.store.reader import RunReader
from daemon.store.salvage import salvage
from daemon.store.schema import wal_path
from tests.daemon.store.helpers import copy_database, without_proof
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
