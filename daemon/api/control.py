"""Acting on the instrument: camera settings, calibrations, and the cell."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator

from daemon.api import longwork, models
from daemon.api.endpoint import Call, Endpoint, Query
from daemon.api.instrument import cell_reply
from daemon.api.operations import Job
from daemon.errors import RunError, RunReason
from daemon.recipe import ExperimentSpec, Positive, Strict

REFUSAL_S = 0.1  # what keeps a calibration from beginning shows by then


class CameraChange(Strict):
    """What of the camera can be changed while it runs; what is absent stays."""

    exposure_us: Positive | None = None
    frame_rate_hz: Positive | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> CameraChange:
        if not self.model_dump(exclude_none=True):
            raise ValueError("give exposure_us or frame_rate_hz")
        return self


class CameraReply(BaseModel):
    """What was changed."""

    model_config = ConfigDict(extra="allow")

    changed: dict[str, float]


class CalibrationPath(Query):
    """Which calibration."""

    kind: Literal["dark", "flat"]


class CalibrationRequest(Strict):
    """How to calibrate."""

    frames: int = Field(default=200, ge=2, le=10_000)
    """Frames averaged; the calibration's noise falls with their square root."""


class CellOffQuery(Query):
    """Why the cell is switched off."""

    reason: Annotated[str, Field(max_length=200)] = "operator"


async def change_camera(call: Call) -> web.StreamResponse:
    """Exposure or frame rate, at once."""
    settings = call.body.model_dump(exclude_none=True)

    async def work(job: Job) -> dict[str, Any]:
        await call.parts.engine.configure_camera(settings)
        await call.audit("camera.configure", ", ".join(f"{name}={value:g}" for name, value in settings.items()))
        return {"changed": settings}

    job, _ = await longwork.begin(call, "camera.configure", work)
    return await longwork.answer_soon(call, job)


async def calibrate(call: Call) -> web.Response:
    """Average frames into a calibration for later runs; always an operation, unless it is refused at once."""
    kind, frames = call.path.kind, call.body.frames

    async def work(job: Job) -> dict[str, Any]:
        run = call.parts.runs.current()
        if run is not None:
            raise RunError(RunReason.BUSY, f"run '{run.run_id}' is in progress, and its camera is not to be restarted")
        job.say(f"averaging {frames} frames")
        summary = await call.parts.engine.calibrate(kind, frames)
        await call.audit(f"calibration.{kind}", f"{frames} frames")
        return {"kind": kind, "frames": frames, "summary": summary}

    job, _ = await longwork.begin(call, f"calibration.{kind}", work)
    await call.services.operations.wait(job, REFUSAL_S)
    if job.failure is not None:
        raise job.failure
    return longwork.accepted(job)


async def start_experiment(call: Call) -> web.StreamResponse:
    """Check the experiment, then begin."""

    async def work(job: Job) -> dict[str, Any]:
        await call.parts.cell.start_experiment(call.body)
        detail = f"{len(call.body.steps)} steps, {call.body.cycles} cycles"
        call.services.auditor.note(call.actor.name, "cell.experiment", detail)  # no wait: it could be cancelled there
        return cell_reply(call)

    job, _ = await longwork.begin(call, "cell.experiment", work)
    return await longwork.answer_soon(call, job)


async def pause(call: Call) -> dict[str, Any]:
    """Open circuit; the experiment can go on later."""
    await call.parts.cell.pause()
    await call.audit("cell.pause")
    return cell_reply(call)


async def resume(call: Call) -> dict[str, Any]:
    """Go on after a pause."""
    await call.parts.cell.resume()
    await call.audit("cell.resume")
    return cell_reply(call)


async def off(call: Call) -> dict[str, Any]:
    """Cell off before anything else: no body is read, no line is waited in, and hanging up changes nothing."""
    reason = call.query.reason
    await asyncio.shield(asyncio.ensure_future(call.parts.cell.off(reason)))
    call.services.auditor.note(call.actor.name, "cell.off", reason)
    return cell_reply(call)


ENDPOINTS = (
    Endpoint(
        "PATCH",
        "/camera",
        change_camera,
        "Change the exposure or the frame rate.",
        scope="operate",
        body=CameraChange,
        answer=CameraReply,
        answers_operation=True,
    ),
    Endpoint(
        "POST",
        "/calibrations/{kind}",
        calibrate,
        "Measure a dark or flat calibration.",
        scope="operate",
        path_model=CalibrationPath,
        body=CalibrationRequest,
        body_optional=True,
        answers_operation=True,
        always_operation=True,
        statuses={409: "A run or another calibration is in progress."},
    ),
    Endpoint(
        "POST",
        "/cell/experiment",
        start_experiment,
        "Run an experiment on the cell.",
        scope="operate",
        body=ExperimentSpec,
        answer=models.CellReply,
        answers_operation=True,
    ),
    Endpoint("POST", "/cell/pause", pause, "Open circuit, to go on later.", scope="operate", answer=models.CellReply),
    Endpoint("POST", "/cell/resume", resume, "Go on after a pause.", scope="operate", answer=models.CellReply),
    Endpoint(
        "POST",
        "/cell/off",
        off,
        "Cell off and experiment ended; answered first.",
        scope="operate",
        urgent=True,
        query=CellOffQuery,
        answer=models.CellReply,
    ),
)
