"""A small sample of each campaign; `make faults` runs them whole."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store.check import check_file
from daemon.store.log_check import lost_log_bytes
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.recovery import recover
from daemon.store.schema import journal_path, wal_path
from tests.faults import cuts, flips, kills, refusals
from tests.faults.flips import ask_about, verdict
from tests.faults.state import make_state

SEED = 6


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    return make_state(tmp_path_factory.mktemp("state"))


def test_kills(tmp_path):
    outcomes = kills.run(tmp_path, 6, SEED)
    assert outcomes["kills"] == 6 and outcomes["kills while a run was going on"] > 2


def test_cut_logs(tmp_path):
    outcomes = cuts.run(tmp_path, 20, SEED)
    assert outcomes["cuts"] == 20 and outcomes["different ends"] > 5


def test_flipped_bits(states):
    outcomes = flips.run(states, 60, SEED)
    assert outcomes.keys() <= {"true", "told", "cut"}, outcomes
    assert outcomes["told"] > 5


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the disk that refuses is made by gcc")
def test_a_disk_that_refuses(tmp_path):
    outcomes = refusals.run(tmp_path, every=97)
    assert outcomes["runs that were refused something"] > 3
    assert outcomes["calls in a run"] > 100


def test_the_verdict_knows_a_false_row_and_a_missing_one(states):
    truth, cut, early = (ask_about(state, "runs/r2.db") for state in states)
    assert verdict(truth, truth, cut, early) == "true"
    assert verdict(cut, truth, cut, early) == "cut"
    rows, _ = truth["echem"]
    for changed, found in (
        ((rows[:-1], False), "unnoticed: echem"),
        ((rows[:-1], True), "told"),
        (([*rows[:-1], "{'t_s': 1.0}"], True), "false rows: echem"),
    ):
        assert verdict(truth | {"echem": changed}, truth, cut, early) == found


def copied(states, tmp_path):
    return shutil.copytree(states[0], tmp_path / "state")


def test_a_log_that_lost_promised_transactions_is_set_aside_whole(states, tmp_path):
    state = copied(states, tmp_path)
    path = state / "runs" / "r2.db"
    log = bytearray(wal_path(path).read_bytes())
    log[32 + 24 + 100] ^= 1
    wal_path(path).write_bytes(log)
    before = path.read_bytes()
    assert lost_log_bytes(path) > 4096
    with RunReader(path) as reader:
        assert reader.damage == {"log": 1}
    (run,) = recover(state / "instrument.db")
    aside = path.with_name("r2.db.damaged-1")
    assert (run.path, run.reason, run.state) == (aside, "store.corrupt", "interrupted")
    assert aside.name in run.detail
    assert (aside.read_bytes(), wal_path(aside).read_bytes()) == (before, bytes(log))
    assert not path.exists() and not wal_path(path).exists()
    with CatalogueReader(state / "instrument.db") as catalogue:
        assert catalogue.run("r2").path == aside
    assert recover(state / "instrument.db") == []


def test_the_last_transaction_cut_short_is_no_damage(states, tmp_path):
    path = copied(states, tmp_path) / "runs" / "r2.db"
    log = bytearray(wal_path(path).read_bytes())
    log[-100] ^= 1
    wal_path(path).write_bytes(log)
    assert lost_log_bytes(path) == 0
    (run,) = recover(path.parent.parent / "instrument.db")
    assert (run.path, run.reason) == (path, "run.interrupted")


def test_half_a_transaction_on_a_finished_file_is_taken_back(states, tmp_path):
    state = copied(states, tmp_path)
    path, live = state / "runs" / "r1.db", tmp_path / "live.db"
    truth = ask_about(state, "runs/r1.db")
    shutil.copy(path, live)
    with closing(sqlite3.connect(live, isolation_level=None)) as conn:
        conn.execute("PRAGMA cache_size = 2")
        conn.execute("begin")
        conn.execute("update cell_samples set voltage_v = 0")  # more pages than the cache holds
        shutil.copy(live, path)
        shutil.copy(journal_path(live), journal_path(path))
    with pytest.raises(StoreError) as caught:
        RunReader(path).open()
    assert caught.value.reason is StoreReason.NOT_WRITABLE
    recover(state / "instrument.db")
    assert not journal_path(path).exists()
    assert ask_about(state, "runs/r1.db") == truth


def test_a_check_finds_a_flipped_bit_and_stops_when_told(states, tmp_path):
    path = copied(states, tmp_path) / "runs" / "r1.db"
    sound = check_file(path)
    assert sound.is_sound and sound.has_proof and sound.rows > 500
    stopped = check_file(path, lambda: True)
    assert not stopped.finished and not stopped.is_sound and not stopped.findings
    content = bytearray(path.read_bytes())
    place = content.rindex(b"\xc2\xb0 7")  # inside an event's detail
    content[place + 3] ^= 1
    path.write_bytes(content)
    found = check_file(path)
    assert found.finished and not found.is_sound
    assert found.findings == ["1 rows of 'events' do not match their check sums"]
