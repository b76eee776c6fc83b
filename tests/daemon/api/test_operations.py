"""Long work: its life, its keys, its end."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from daemon.api.operations import MAX_KEPT_FILES, MAX_LOG_LINES, Job, Operations, in_thread
from daemon.api.workers import Workers
from daemon.errors import ApiError, ApiReason, RunError, RunReason
from tests.daemon.api.conftest import Serve, Served
from tests.daemon.api.fakes import ADMIN, OPERATE, READ, TOKENS


async def done(job: Job) -> dict[str, int]:
    job.advance(0.5)
    return {"answer": 42}


async def test_an_operation_runs_and_is_remembered() -> None:
    operations = Operations()
    job, is_new = operations.begin("test", done, actor="me")
    assert is_new
    assert await operations.wait(job)
    assert (job.state, job.progress, job.result) == ("done", 1.0, {"answer": 42})
    assert operations.get(job.operation_id) is job
    await operations.stop()


async def test_the_same_key_joins_another_body_conflicts() -> None:
    operations = Operations()
    job, _ = operations.begin("test", done, actor="me", key="k", fingerprint="a")
    assert operations.begin("test", done, actor="me", key="k", fingerprint="a") == (job, False)
    with pytest.raises(ApiError) as refused:
        operations.begin("test", done, actor="me", key="k", fingerprint="b")
    assert refused.value.reason is ApiReason.CONFLICT
    await operations.stop()


async def test_a_failure_is_a_problem_and_frees_its_key(caplog: pytest.LogCaptureFixture) -> None:
    async def refused(job: Job) -> None:
        raise RunError(RunReason.BUSY, "run 'r1' is in progress")

    async def broken(job: Job) -> None:
        raise ZeroDivisionError

    operations = Operations()
    first, _ = operations.begin("test", refused, actor="me", key="k")
    await operations.wait(first)
    assert first.state == "failed"
    assert first.error is not None
    assert first.error["code"] == "run.busy"
    second, is_new = operations.begin("test", broken, actor="me", key="k")
    await operations.wait(second)
    assert is_new
    assert second.error is not None
    assert second.error["log_id"] in caplog.text
    await operations.stop()


async def test_what_runs_and_what_is_kept_is_bounded() -> None:
    async def endless(job: Job) -> None:
        await asyncio.Event().wait()

    operations = Operations(keep=3, max_running=2)
    jobs = [operations.begin("test", endless, actor="me")[0] for _ in range(2)]
    with pytest.raises(ApiError) as refused:
        operations.begin("test", done, actor="me")
    assert refused.value.reason is ApiReason.BUSY
    operations.cancel(jobs[0])
    assert await operations.wait(jobs[0])
    assert jobs[0].state == "cancelled"
    for _ in range(5):
        await operations.wait(operations.begin("test", done, actor="me")[0])
    assert len(operations) == 3
    assert operations.get(jobs[1].operation_id) is jobs[1]
    await operations.stop()
    assert jobs[1].state == "cancelled"


async def test_a_cancelled_thread_is_waited_for() -> None:
    operations, workers = Operations(), Workers("test", threads=1, max_waiting=1)
    left, begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(job: Job) -> None:
        loop.call_soon_threadsafe(begun.set)
        try:
            while True:
                job.advance(0.1)
                time.sleep(0.005)
        finally:
            left.set()

    async def work(job: Job) -> None:
        await in_thread(job, workers, lambda: slow(job))

    job, _ = operations.begin("test", work, actor="me")
    await begun.wait()
    operations.cancel(job)
    assert await operations.wait(job)
    assert left.is_set()
    assert job.state == "cancelled"
    await operations.stop()
    await workers.stop()


async def test_files_go_with_their_operations(tmp_path: Path) -> None:
    async def make(job: Job) -> None:
        folder = tmp_path / job.operation_id
        await asyncio.to_thread(folder.mkdir)
        job.file = folder / "archive.zip"
        await asyncio.to_thread(job.file.write_bytes, b"x")

    async def fail(job: Job) -> None:
        await make(job)
        raise RunError(RunReason.BUSY, "no")

    operations = Operations()
    for _ in range(MAX_KEPT_FILES + 2):
        await operations.wait(operations.begin("test", make, actor="me")[0])
    await operations.wait(operations.begin("test", fail, actor="me")[0])
    await asyncio.sleep(0.05)
    assert len(os.listdir(tmp_path)) <= MAX_KEPT_FILES + 1
    await operations.stop()
    assert os.listdir(tmp_path) == []


def test_the_log_of_an_operation_is_bounded() -> None:
    job = Job("a", "test", "me", "read")
    for number in range(MAX_LOG_LINES + 10):
        job.say(str(number))
    assert len(job.log) == MAX_LOG_LINES
    assert job.log[-1] == str(MAX_LOG_LINES + 9)


async def test_workers_refuse_when_the_line_is_full() -> None:
    workers = Workers("test", threads=1, max_waiting=1)
    gate = threading.Event()
    waiting = [asyncio.ensure_future(workers.run(gate.wait, 5)) for _ in range(2)]
    await asyncio.sleep(0.02)
    with pytest.raises(ApiError) as refused:
        await workers.run(time.monotonic)
    assert refused.value.reason is ApiReason.BUSY
    gate.set()
    assert await asyncio.gather(*waiting) == [True, True]
    await asyncio.sleep(0.02)
    assert (workers.open_calls, workers.refused) == (0, 1)
    await workers.stop()


async def test_operations_are_listed_shown_and_cancelled_over_http(served: Served) -> None:
    served.fakes.engine.held = asyncio.Event()
    operation = await served.json("POST", "/calibrations/dark", 202, json={"frames": 10})
    assert operation["state"] in ("pending", "running")
    assert operation["url"] == f"/api/v1/operations/{operation['operation_id']}"
    listed = await served.json("GET", "/operations")
    assert [found["kind"] for found in listed["operations"]] == ["calibration.dark"]
    cancelled = await served.json("DELETE", operation["url"])
    assert cancelled["state"] == "cancelled"
    assert (await served.json("POST", f"{operation['url']}/cancel"))["state"] == "cancelled"
    assert (await served.json("GET", f"{operation['url']}/file", 404))["code"] == "api.not_found"


async def test_a_calibration_tells_its_summary(served: Served) -> None:
    operation = await served.json("POST", "/calibrations/flat", 202)
    found = await served.finished(operation)
    assert (found["state"], found["progress"]) == ("done", 1.0)
    assert found["result"]["summary"] == {"mean_dn": 12.5, "frames": 200.0}
    assert found["log"] == ["averaging 200 frames"]


async def test_the_list_shows_what_the_token_may_look_at(serve: Serve) -> None:
    served = await serve(tokens=TOKENS)
    as_whom = {token: {"Authorization": f"Bearer {token}"} for token in (READ, OPERATE, ADMIN)}
    await served.json("POST", "/backup", 202, json={"directory": "/srv/secret-place"}, headers=as_whom[ADMIN])
    await served.json("POST", "/selftest", 202, headers=as_whom[OPERATE])
    for token, kinds in ((READ, []), (OPERATE, ["selftest"]), (ADMIN, ["selftest", "backup"])):
        listed = (await served.json("GET", "/operations", headers=as_whom[token]))["operations"]
        assert [each["kind"] for each in listed] == kinds
        for each in listed:
            await served.json("GET", each["url"], headers=as_whom[token])
