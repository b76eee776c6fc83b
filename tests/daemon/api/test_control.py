"""Runs, camera and cell."""

from __future__ import annotations

import asyncio
import threading

import pytest

from daemon.api import audit
from daemon.api.app import SERVICES
from daemon.api.endpoint import Call
from daemon.errors import ApiError, EngineError, EngineReason, StoreError, StoreReason
from tests.daemon.api.conftest import Served


async def test_a_run_is_started_listed_and_stopped(served: Served) -> None:
    served.fakes.runs.held = asyncio.Event()
    recipe = {"name": "first", "experiment": {"steps": ["Charge at 1C until 4.2 V"]}}
    async with served.ask("POST", "/runs", json=recipe) as response:
        operation = await response.json()
        assert response.headers["Location"] == operation["url"]
    assert (response.status, operation["run_id"], operation["result"]) == (202, "run-1", {"run_id": "run-1"})
    assert (await served.json("GET", "/runs/run-1"))["state"] == "preparing"
    served.fakes.runs.held.set()
    found = await served.finished(operation)
    assert (found["state"], found["result"]["run"]["state"]) == ("done", "running")
    listed = await served.json("GET", "/runs")
    assert [run["run_id"] for run in listed["runs"]] == ["run-1"]
    assert listed["runs"][0]["recipe"]["name"] == "first"
    stopped = await served.json("POST", "/runs/run-1/stop")
    assert (stopped["run_id"], stopped["state"]) == ("run-1", "done")
    assert served.fakes.runs.stopped == [("run-1", "operator")]
    assert [action for _, action, _ in served.fakes.audited] == ["run.start", "run.stop"]


async def test_a_second_run_is_refused(served: Served) -> None:
    await served.json("POST", "/runs", 202)
    problem = await served.json("POST", "/runs", 409)
    assert problem["code"] == "run.busy"


async def test_no_calibration_during_a_run_or_another_one(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    await served.json("POST", "/runs", 202)
    problem = await served.json("POST", "/calibrations/dark", 409)
    assert problem["code"] == "run.busy" and "run-1" in problem["detail"]
    await served.json("POST", "/runs/run-1/stop")

    async def refuse(kind: str, frames: int) -> dict[str, float]:
        raise EngineError(EngineReason.BUSY, "another calibration is being taken")

    with monkeypatch.context() as patched:
        patched.setattr(served.fakes.engine, "calibrate", refuse)
        assert (await served.json("POST", "/calibrations/flat", 409))["code"] == "engine.busy"
    await served.json("POST", "/calibrations/flat", 202)


async def test_the_same_key_starts_one_run(served: Served) -> None:
    key = {"Idempotency-Key": "abc"}
    answers = await asyncio.gather(*(served.json("POST", "/runs", 202, json={}, headers=key) for _ in range(5)))
    assert {answer["operation_id"] for answer in answers} == {answers[0]["operation_id"]}
    assert {answer["run_id"] for answer in answers} == {"run-1"}
    assert served.fakes.runs.started == 1
    problem = await served.json("POST", "/runs", 422, json={"name": "other"}, headers=key)
    assert problem["code"] == "api.conflict"
    assert (await served.json("POST", "/runs", 400, json={}, headers={"Idempotency-Key": "k" * 300}))["code"]


async def test_a_cancelled_start_stops_the_run(served: Served) -> None:
    served.fakes.runs.held = asyncio.Event()
    operation = await served.json("POST", "/runs", 202)
    cancelled = await served.json("DELETE", operation["url"])
    assert cancelled["state"] == "cancelled"
    async with asyncio.timeout(5):
        while not served.fakes.runs.stopped:
            await asyncio.sleep(0.01)
    assert served.fakes.runs.stopped == [("run-1", "operator")]


async def test_a_start_that_is_cancelled_before_it_is_audited_stops_the_run_too(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never_audited(call: Call, action: str, detail: str = "") -> None:
        if action == "run.start":
            await asyncio.Event().wait()

    monkeypatch.setattr(Call, "audit", never_audited)
    operation = await served.json("POST", "/runs", 202)
    await served.json("DELETE", operation["url"])
    async with asyncio.timeout(5):
        while not served.fakes.runs.stopped:
            await asyncio.sleep(0.01)
    assert served.fakes.runs.stopped == [("run-1", "operator")]


@pytest.mark.parametrize("body", [{}, {"exposure_us": 0}, {"exposure_us": "fast"}, {"gain": 2}])
async def test_bad_camera_settings_are_refused(served: Served, body: dict[str, object]) -> None:
    await served.json("PATCH", "/camera", 400, json=body)
    assert served.fakes.engine.settings == []


async def test_camera_settings_are_passed_on(served: Served) -> None:
    answer = await served.json("PATCH", "/camera", json={"exposure_us": 250, "frame_rate_hz": 50.0})
    assert answer == {"changed": {"exposure_us": 250.0, "frame_rate_hz": 50.0}}
    assert served.fakes.engine.settings == [{"exposure_us": 250.0, "frame_rate_hz": 50.0}]


async def test_what_takes_longer_becomes_an_operation(served: Served) -> None:
    served.fakes.engine.held = asyncio.Event()
    answer = await served.json("PATCH", "/camera", 202, json={"exposure_us": 250})
    assert answer["kind"] == "camera.configure"
    served.fakes.engine.held.set()
    assert (await served.finished(answer))["result"] == {"changed": {"exposure_us": 250.0}}


async def test_the_cell_obeys(served: Served) -> None:
    spec = {"steps": ["Rest for 1 hour"]}
    assert (await served.json("POST", "/cell/experiment", json=spec))["state"] == "running"
    assert (await served.json("POST", "/cell/pause"))["state"] == "paused"
    assert (await served.json("POST", "/cell/resume"))["state"] == "running"
    off = await served.json("POST", "/cell/off?reason=smoke")
    assert (off["state"], off["values"]["voltage_v"], off["values"]["current_ma"]) == ("off", 3.7, None)
    assert served.fakes.cell.calls == ["start", "off: smoke"]


async def test_cell_off_waits_for_nothing(served: Served) -> None:
    """Neither for threads that are all taken, nor a body that never ends, nor work on the cell under way."""
    services = served.server._runner.app[SERVICES]  # type: ignore[union-attr]
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    gate = threading.Event()
    taken = [asyncio.ensure_future(services.workers.run(gate.wait, 5)) for _ in range(60)]
    served.fakes.cell.held = release
    starting = asyncio.ensure_future(served.json("POST", "/cell/experiment", json={"steps": ["Rest for 1 hour"]}))
    await asyncio.sleep(0.05)
    began_s = loop.time()
    answer = await served.json("POST", "/cell/off", data=b"{ this is not json", headers={"Content-Type": "text/plain"})
    assert answer["state"] == "off"
    assert loop.time() - began_s < 0.5
    gate.set()
    release.set()
    await asyncio.gather(*taken)
    await starting
    assert "cell.off" in [action for _, action, _ in served.fakes.audited]


ACTIONS = (
    ("POST", "/cell/experiment", {"steps": ["Rest for 1 hour"]}, "cell.experiment"),
    ("POST", "/cell/pause", None, "cell.pause"),
    ("POST", "/cell/resume", None, "cell.resume"),
    ("PATCH", "/camera", {"exposure_us": 250}, "camera.configure"),
    ("POST", "/runs", {}, "run.start"),
    ("POST", "/runs/run-1/stop", None, "run.stop"),
    ("POST", "/cell/off", None, "cell.off"),
)


async def _act(served: Served) -> None:
    for method, path, body, _ in ACTIONS:
        async with served.ask(method, path, json=body) as response:
            answer = await response.json(content_type=None)
            assert response.status in (200, 202), answer
        if response.status == 202:
            assert (await served.finished(answer))["state"] == "done"


async def test_who_takes_every_thread_keeps_no_action_from_the_audit(served: Served) -> None:
    services = served.server._runner.app[SERVICES]  # type: ignore[union-attr]
    gate = threading.Event()
    taken = [asyncio.ensure_future(services.workers.run(gate.wait, 20)) for _ in range(68)]
    try:
        await asyncio.sleep(0)
        with pytest.raises(ApiError):
            await services.workers.run(int)
        await _act(served)
    finally:
        gate.set()
        await asyncio.gather(*taken)
    await services.auditor.stop()
    assert [action for _, action, _ in served.fakes.audited] == [action for *_, action in ACTIONS]


async def test_what_is_done_is_answered_so_when_the_audit_fails(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: str) -> None:
        raise StoreError(StoreReason.OVERLOADED, "the disk takes nothing")

    served.server._parts.audit = full
    await _act(served)
    await served.server._runner.app[SERVICES].auditor.stop()  # type: ignore[union-attr]
    assert caplog.text.count("the audit has no record of it") == len(ACTIONS)
    assert [code for code, *_ in served.fakes.faulted] == [StoreReason.OVERLOADED.code] * len(ACTIONS)


async def test_what_is_done_is_answered_when_the_audit_takes_its_time(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "ANSWER_WAITS_S", 0.01)
    gate = threading.Event()
    served.server._parts.audit = lambda *_: gate.wait(20)  # type: ignore[assignment,return-value]
    try:
        assert (await asyncio.wait_for(served.json("POST", "/cell/resume"), 10))["state"] == "running"
    finally:
        gate.set()


async def test_what_needs_its_row_first_is_not_done_without_one(served: Served) -> None:
    def full(*_: str) -> None:
        raise StoreError(StoreReason.OVERLOADED, "the disk takes nothing")

    served.server._parts.audit = full
    assert (await served.json("GET", "/logs", 503))["code"] == StoreReason.OVERLOADED.code
    operation = await served.json("POST", "/selftest", 202)
    assert (await served.finished(operation))["state"] == "failed"


async def test_cell_off_holds_when_the_audit_fails(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    def full(*_: str) -> None:
        raise OSError("disk full")

    served.server._parts.audit = full
    assert (await served.json("POST", "/cell/off"))["state"] == "off"
    await asyncio.sleep(0.05)
    assert "the audit has no record of it" in caplog.text
