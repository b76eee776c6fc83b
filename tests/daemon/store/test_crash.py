"""Power cuts, kills and damaged bytes: what is left is a prefix of what was written, and nothing false."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import numpy as np
import pytest

from daemon.errors import StoreError
from daemon.store.reader import RunReader
from daemon.store.schema import wal_path
from tests.daemon.store.helpers import WAIT_S, copy_database, event, frames, open_run

TRANSACTIONS = 40


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """A run whose every transaction is still in the log, as a power cut leaves it."""
    folder = tmp_path_factory.mktemp("unfinished")
    with open_run(folder, commit_interval_s=0.001) as (writer, path):
        for number in range(TRANSACTIONS):
            waits = [writer.put_chunk(*frames(4 * number, 4)), writer.put_ensemble([{"t_s": float(number)}])]
            for wait in waits:
                wait.result(WAIT_S)
            writer.put_events([event(float(number))]).result(WAIT_S)
        copy_database(path, folder / "cut.db")
    return folder / "cut.db"


def is_prefix(path):
    """How far the run goes; fails when anything in it is out of order or false. None before the tables are there."""
    try:
        with RunReader(path) as run:
            numbers = run.frames()["frame"].tolist()
            rows, events = run.ensemble(), run.events()
            assert run.corrupt_chunks == 0
    except StoreError as error:
        assert error.code == "store.not_a_run"
        return None
    assert numbers == list(range(len(numbers)))
    assert [row["t_s"] for row in rows] == list(range(len(rows)))
    assert [each.t_s for each in events] == list(range(len(events)))
    assert abs(len(numbers) // 4 - len(rows)) <= 1 and 0 <= len(rows) - len(events) <= 1
    return len(events)


def test_a_log_cut_anywhere_is_a_prefix_of_whole_transactions(unfinished, tmp_path):
    log = wal_path(unfinished).read_bytes()
    rng = random.Random(1)
    copy_database(unfinished, tmp_path / "a.db")
    assert is_prefix(tmp_path / "a.db") == TRANSACTIONS
    seen = set()
    for _ in range(60):
        copy_database(unfinished, tmp_path / "a.db")
        wal_path(tmp_path / "a.db").write_bytes(log[: rng.randrange(len(log))])
        seen.add(is_prefix(tmp_path / "a.db"))
    assert len(seen) > 10


def test_a_bit_flipped_in_the_log_cuts_it_there(unfinished, tmp_path):
    log = wal_path(unfinished).read_bytes()
    rng = random.Random(2)
    seen = set()
    for _ in range(60):
        damaged = bytearray(log)
        damaged[rng.randrange(len(log))] ^= 1 << rng.randrange(8)
        copy_database(unfinished, tmp_path / "a.db")
        wal_path(tmp_path / "a.db").write_bytes(damaged)
        seen.add(is_prefix(tmp_path / "a.db"))
    assert len(seen) > 10


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of one file."""
    folder = tmp_path_factory.mktemp("finished")
    with open_run(folder, commit_interval_s=0.001) as (writer, path):
        for number in range(12):
            writer.put_chunk(*frames(20 * number, 20)).result(WAIT_S)
    return path


def truth_of(path):
    with RunReader(path) as run:
        frame, values = run.particle_columns(["contrast", "layer_core", "contrast_sigma", "flags"])
    return frame, values


def test_no_flipped_bit_comes_back_as_good_data(finished, tmp_path):
    frame_truth, truth = truth_of(finished)
    content = finished.read_bytes()
    rng = random.Random(3)
    target = tmp_path / "a.db"
    noticed = 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        target.write_bytes(damaged)
        try:
            with RunReader(target) as run:
                frame, values = run.particle_columns(list(truth))
                skipped = run.corrupt_chunks
        except StoreError:
            noticed += 1
            continue
        numbers = frame["frame"]
        assert len(numbers) == len(frame_truth["frame"]) - 20 * skipped
        for name, column in frame.items():
            assert column.tobytes() == frame_truth[name][numbers].tobytes()
        for name, column in values.items():
            assert column.tobytes() == truth[name][numbers].tobytes()
        noticed += bool(skipped)
    assert noticed > 25


def test_a_killed_writer_loses_at_most_the_last_second(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", KILLED_WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = []
    with child.stdout:
        deadline_s = None
        for line in child.stdout:
            lines.append(line.split())
            deadline_s = deadline_s or time.monotonic() + 0.9
            if time.monotonic() > deadline_s:
                break
        child.kill()
        lines += [line.split() for line in child.stdout if line.endswith("\n")]
    child.wait()
    submitted = max(int(number) for word, number in lines if word == "submitted")
    durable = max((int(number) for word, number in lines if word == "durable"), default=-1)
    announced = [int(number) for word, number in lines if word == "event"]
    with RunReader(tmp_path / "runs" / "r1.db") as run:
        numbers = run.frames()["frame"]
        assert np.array_equal(numbers, np.arange(len(numbers)))
        assert len(numbers) > durable >= 0
        assert submitted - len(numbers) <= 100, "more than a second of frames at 100 frames/s"
        assert {each.seq for each in run.events()} >= set(announced)


KILLED_WRITER = """
import os, sys, time
from pathlib import Path
from tests.daemon.store.helpers import event, frames, open_run

with open_run(Path(sys.argv[1]), commit_interval_s=0.2) as (writer, path):
    number, say = 0, lambda word, number: os.write(1, f"{word} {number}\\n".encode())
    while True:
        future = writer.put_chunk(*frames(number, 1))
        say("submitted", number)
        future.add_done_callback(lambda done, number=number: say("durable", number))
        if number % 20 == 0:
            writer.put_events([event(number / 100)]).add_done_callback(lambda done: say("event", done.result()[0].seq))
        number += 1
        time.sleep(0.01)
"""
