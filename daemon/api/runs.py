"""Starting, stopping and finding runs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from daemon.api import longwork, models
from daemon.api.endpoint import Call, Endpoint, Query
from daemon.api.jsonio import plain
from daemon.api.operations import Job
from daemon.parts import RunSummary
from daemon.recipe import Recipe

START_DEADLINE_S = 5.0  # entering the catalogue is one commit


class RunPath(Query):
    """A run's path."""

    run_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class RunsQuery(Query):
    """How many runs."""

    limit: int = Field(default=100, ge=1, le=10_000, description="Most runs answered.")


async def list_runs(call: Call) -> dict[str, Any]:
    """Newest first."""
    return {"runs": await call.parts.runs.list(call.query.limit)}


async def get_run(call: Call) -> RunSummary:
    """One run."""
    return await call.parts.runs.get(call.path.run_id)


async def start_run(call: Call) -> web.Response:
    """202 once the run is in the catalogue; the operation ends when it measures."""

    async def work(job: Job) -> dict[str, Any]:
        run = await call.parts.runs.start(call.body)
        try:  # from here on the run lives: however early the start is cancelled, it is stopped
            job.result = {"run_id": run.run_id}
            job.say(f"run {run.run_id} is being prepared")
            job.announced.set()
            await call.audit("run.start", run.run_id)
            running = await call.parts.runs.wait_running(run.run_id)
        except asyncio.CancelledError:
            await call.parts.runs.stop(run.run_id, "operator")
            raise
        job.say(f"run {run.run_id} is {running.state}")
        return {"run_id": run.run_id, "run": plain(running)}

    job, _ = await longwork.begin(call, "run.start", work)
    await call.services.operations.wait_announced(job, START_DEADLINE_S)
    if job.failure is not None and job.result is None:
        raise job.failure
    return longwork.accepted(job)


async def stop_run(call: Call) -> web.StreamResponse:
    """Cell off first, everything measured so far stored."""
    run_id = call.path.run_id
    await call.parts.runs.get(run_id)

    async def work(job: Job) -> dict[str, Any]:
        run = await asyncio.shield(asyncio.ensure_future(call.parts.runs.stop(run_id, "operator")))
        await call.audit("run.stop", run_id)
        return dict(plain(run))

    job, _ = await longwork.begin(call, "run.stop", work)
    return await longwork.answer_soon(call, job)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/runs",
        start_run,
        "Start a run from a recipe.",
        scope="operate",
        body=Recipe,
        body_optional=True,
        answers_operation=True,
        always_operation=True,
        statuses={409: "A run or a calibration is in progress already."},
    ),
    Endpoint("GET", "/runs", list_runs, "Runs, newest first.", query=RunsQuery, answer=models.RunList),
    Endpoint("GET", "/runs/{run_id}", get_run, "One run.", path_model=RunPath, answer=models.RunReply),
    Endpoint(
        "POST",
        "/runs/{run_id}/stop",
        stop_run,
        "Stop a run: cell off first, all results kept.",
        scope="operate",
        path_model=RunPath,
        answer=models.RunReply,
        answers_operation=True,
    ),
)
