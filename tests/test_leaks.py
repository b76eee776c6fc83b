"""The harness notices what it promises to notice, and nothing else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from blockbuster import BlockingError

from daemon.config import load_settings
from tests import leaks
from tests.leaks import Snapshot, leaks_since, recording_cancel


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "SETTLE_S", 0.1)


def test_nothing_new_is_no_leak() -> None:
    assert leaks_since(Snapshot.take()) == []


def test_a_running_thread_is_named() -> None:
    before, end = Snapshot.take(), threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten", daemon=True)
    thread.start()
    assert "thread 'forgotten'" in leaks_since(before)[0]
    end.set()
    thread.join()
    assert leaks_since(before) == []


def test_a_thread_on_its_way_out_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "SETTLE_S", 2.0)
    before = Snapshot.take()
    threading.Thread(target=time.sleep, args=(0.05,)).start()
    assert leaks_since(before) == []


def test_an_open_file_is_named(tmp_path: Path) -> None:
    before = Snapshot.take()
    number = os.open(tmp_path / "left-open", os.O_CREAT | os.O_RDWR)
    assert "left-open" in leaks_since(before)[0]
    os.close(number)
    assert leaks_since(before) == []


def test_a_child_process_is_named() -> None:
    before = Snapshot.take()
    child = subprocess.Popen(["sleep", "30"])
    try:
        # for a moment after it was started a process has no command line yet
        deadline_s = time.monotonic() + 5.0
        while not any("sleep 30" in leak for leak in leaks_since(before)):
            assert time.monotonic() < deadline_s, leaks_since(before)
    finally:
        child.kill()
        child.wait()
    assert leaks_since(before) == []


def test_a_task_alive_at_the_end_of_its_loop_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    recorder = recording_cancel(found, lambda loop: [task.cancel() for task in asyncio.all_tasks(loop)])
    monkeypatch.setattr(asyncio.runners, "_cancel_all_tasks", recorder)

    async def forget() -> None:
        task = asyncio.create_task(asyncio.sleep(30), name="forgotten")
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(forget())
    assert len(found) == 1
    assert "task 'forgotten' (sleep)" in found[0]


async def test_our_code_reading_a_file_in_the_loop_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.touch()
    with pytest.raises(BlockingError):
        load_settings(path)
    assert (await asyncio.to_thread(load_settings, path)).path == path
