"""Reads in a process of their own: they answer as reads do here, fail aloud, and leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from daemon.api import read_process
from daemon.api.media import CSV, JSON
from daemon.api.read_process import MAX_OPEN, Progress, ReadFailedError, ReadProcess
from daemon.api.reads import READS
from daemon.errors import ApiError, ApiReason, InstrumentError, NamedFieldsError, RunReason, StoreReason
from daemon.service.priority import FRAMES_FIRST


@pytest.fixture
async def reads():
    process = ReadProcess()
    yield process
    await process.stop()
    assert process.pid is None and process.open_calls == 0


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(read_process, "MODULE", "tests.daemon.api.fake_reads")
    return lambda how: monkeypatch.setenv("FAKE_READS", how)


def asked(run_file, media_type=JSON, **further):
    return {"path": str(run_file.path), "run_id": "r1", "media_type": media_type} | further


SPAN = {"from_s": None, "to_s": None, "points": 50}
ALL = {
    "particles": {},
    "events": {"after": 0, "limit": 10, "particle_id": None, "kind": None},
    "ensemble": SPAN,
    "echem": SPAN,
    "page": {"table": "cycles", "asked": {"after": 0, "limit": 5}},
    "traces": SPAN | {"particle_ids": [10, 12], "columns": ["contrast", "soc"]},
    "masks": {"version": 1},
}


def test_every_read_is_tried_here():
    assert READS.keys() - ALL.keys() == {"clip"}  # which this run has none of


async def test_they_answer_as_they_would_here(reads, run_file):
    for name, further in ALL.items():
        wanted = asked(run_file, **further)
        assert await reads.run(name, wanted) == await asyncio.to_thread(READS[name].function, **wanted), name
    table = asked(run_file, CSV, **ALL["traces"])
    assert await reads.run("traces", table) == await asyncio.to_thread(READS["traces"].function, **table)


async def test_answers_find_who_asked(reads, run_file):
    limits = [1, 2, 3] * 10
    calls = [reads.run("events", asked(run_file, **(ALL["events"] | {"limit": limit}))) for limit in limits]
    answers = await asyncio.gather(*calls)
    assert [len(json.loads(answer.body)["events"]) for answer in answers] == limits


async def test_refusals_are_those_of_the_read(reads, run_file, tmp_path):
    with pytest.raises(InstrumentError) as caught:
        await reads.run("clip", asked(run_file, clip_id=7))
    assert caught.value.reason is RunReason.NOT_FOUND and "no clip 7" in caught.value.detail
    with pytest.raises(NamedFieldsError) as named:
        await reads.run("traces", asked(run_file, **(ALL["traces"] | {"particle_ids": [99]})))
    assert named.value.errors == [{"field": "particles", "detail": "the run has no particle 99"}]
    with pytest.raises(InstrumentError) as missing:
        await reads.run("particles", asked(run_file) | {"path": str(tmp_path / "none.db")})
    assert missing.value.reason is StoreReason.NOT_A_RUN


async def test_a_fault_of_the_software_comes_with_its_traceback(reads, run_file):
    with pytest.raises(ReadFailedError, match="TypeError"):
        await reads.run("particles", asked(run_file, nonsense=1))
    assert (await reads.run("particles", asked(run_file))).body  # and the process goes on


async def test_it_gives_way_to_the_measurement(reads, run_file):
    await reads.run("particles", asked(run_file))
    assert psutil.Process(reads.pid).nice() == min(19, psutil.Process().nice() + FRAMES_FIRST)


async def test_one_that_was_killed_is_followed_by_another(reads, run_file):
    await reads.run("particles", asked(run_file))
    first = reads.pid
    os.kill(first, signal.SIGKILL)
    while reads.pid == first:
        await asyncio.sleep(0.01)
    assert (await reads.run("particles", asked(run_file))).body
    assert reads.pid != first


async def test_the_reads_of_one_that_dies_fail(reads, fake):
    fake("dies")
    with pytest.raises(ApiError) as caught:
        await asyncio.wait_for(reads.run("particles", {}), 30.0)
    assert caught.value.reason is ApiReason.UNAVAILABLE and "died" in caught.value.detail


async def test_one_that_hangs_is_ended(fake):
    fake("hangs")
    process = ReadProcess(hangs_s=0.1)
    try:
        with pytest.raises(ApiError, match="did not answer"):
            await asyncio.wait_for(process.run("particles", {}), 30.0)
    finally:
        await process.stop()


def test_what_waits_in_line_does_not_hang():
    progress = Progress()
    assert progress.silent_s(1000.0) == 0.0
    for number in range(18):
        progress.ordered(number, 0.0)
    for number in range(18):  # one at a time, a minute each
        progress.heard("begun", number, 60.0 * number)
        assert progress.silent_s(60.0 * number + 59.0) == 59.0
        progress.heard("answer", number, 60.0 * number + 60.0)
    assert progress.silent_s(5000.0) == 0.0


def test_what_was_begun_hangs_though_others_are_answered_and_nobody_waits_for_it():
    progress = Progress()
    progress.ordered(1, 0.0)
    progress.heard("begun", 1, 10.0)
    for number in range(2, 50):
        progress.ordered(number, 10.0 * number)
        progress.heard("begun", number, 10.0 * number)
        progress.heard("refused", number, 10.0 * number)
    assert progress.silent_s(500.0) == 490.0


def test_one_that_begins_nothing_hangs():
    progress = Progress()
    progress.ordered(1, 100.0)
    progress.ordered(2, 150.0)
    assert progress.silent_s(200.0) == 100.0
    progress.heard("begun", 1, 200.0)
    progress.heard("failed", 1, 210.0)
    assert progress.silent_s(220.0) == 10.0


async def test_it_says_when_it_begins(reads, run_file, monkeypatch):
    told, heard = [], Progress.heard

    def note(self, kind, number, now_s):
        told.append((kind, number))
        heard(self, kind, number, now_s)

    monkeypatch.setattr(Progress, "heard", note)
    await reads.run("particles", asked(run_file))
    with pytest.raises(InstrumentError):
        await reads.run("clip", asked(run_file, clip_id=7))
    assert told == [("begun", 1), ("answer", 1), ("begun", 2), ("refused", 2)]


async def test_garbage_ends_it(reads, fake, caplog):
    fake("garbage")
    with pytest.raises(ApiError) as caught:
        await asyncio.wait_for(reads.run("particles", {}), 30.0)
    assert caught.value.reason is ApiReason.UNAVAILABLE and "makes no sense" in caplog.text


async def test_an_answer_that_nobody_waits_for_is_dropped(reads, fake):
    fake("stranger")
    with pytest.raises(InstrumentError) as caught:
        await asyncio.wait_for(reads.run("particles", {}), 30.0)
    assert caught.value.reason is RunReason.NOT_FOUND


async def test_too_many_at_once_are_refused_and_slow_ones_leave_room_for_quick_ones(reads, fake):
    fake("hangs")
    slow = [asyncio.create_task(reads.run("traces", {})) for _ in range(MAX_OPEN[True])]
    await asyncio.sleep(0)
    with pytest.raises(ApiError) as caught:
        await reads.run("traces", {})
    assert caught.value.reason is ApiReason.BUSY and reads.refused == 1
    quick = asyncio.create_task(reads.run("particles", {}))
    await asyncio.sleep(0)
    assert reads.open_calls == len(slow) + 1
    while reads.pid is None:
        await asyncio.sleep(0.01)
    await reads.stop()
    ended = await asyncio.gather(*slow, quick, return_exceptions=True)
    assert {type(each) for each in ended} == {ApiError}


async def test_it_ends_when_nobody_has_read_for_a_while(run_file):
    process = ReadProcess(idle_s=0.05)
    try:
        await process.run("particles", asked(run_file))
        until_s = time.monotonic() + 20
        while process.pid is not None:
            assert time.monotonic() < until_s
            await asyncio.sleep(0.05)
        assert (await process.run("particles", asked(run_file))).body
    finally:
        await process.stop()


async def test_no_process_to_be_had_is_said(reads, monkeypatch):
    async def spawn(module):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(read_process, "spawn", spawn)
    with pytest.raises(ApiError, match="temporarily unavailable") as caught:
        await reads.run("particles", {})
    assert caught.value.reason is ApiReason.UNAVAILABLE


HOLDER = """
import asyncio, os, sys
from daemon.api.read_process import ReadProcess
async def main():
    reads = ReadProcess()
    await reads.run("particles", {"path": sys.argv[1], "run_id": "r1", "media_type": "application/json"})
    print(reads.pid, flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


def test_it_does_not_outlive_a_daemon_that_was_killed(run_file):
    killed = subprocess.run(
        [sys.executable, "-c", HOLDER, str(run_file.path)], stdout=subprocess.PIPE, timeout=50, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    pid, until_s = int(killed.stdout), time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until_s
        time.sleep(0.02)
