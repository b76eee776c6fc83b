"""The masks of a run: their versions, their outlines, and edits that take effect between two frames."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from aiohttp import web
from pydantic import Field

from daemon.api import accept, longwork, models
from daemon.api.endpoint import Call, Endpoint, Query
from daemon.api.operations import Job
from daemon.api.runs import RunPath
from daemon.mask_edits import MaskChange


class MasksQuery(Query):
    """Which version."""

    version: int | None = Field(default=None, ge=1, description="This version and its outlines; the list when absent.")


async def show_masks(call: Call) -> web.Response:
    """The versions, or one of them as outlines or as a picture of particle ids."""
    media_type = accept.choose(call.request, (accept.JSON, accept.PNG))
    return await call.read("masks", media_type, version=call.query.version)


async def edit_masks(call: Call) -> web.StreamResponse:
    """All edits between the same two frames, or none."""
    run_id, change = call.path.run_id, call.body
    await call.parts.runs.get(run_id)

    async def work(job: Job) -> dict[str, Any]:
        editing = call.parts.runs.edit_masks(run_id, change, call.actor.name)
        about = await asyncio.shield(asyncio.ensure_future(editing))  # what has begun takes effect as a whole
        done = ", ".join(f"{edit['action']} {_whom(edit)}" for edit in about.edits)
        await call.audit("run.masks", f"{run_id} version {about.version} from frame {about.from_frame}: {done}")
        return {"run_id": run_id, **asdict(about)}

    job, _ = await longwork.begin(call, "run.masks", work)
    return await longwork.answer_soon(call, job)


def _whom(edit: dict[str, Any]) -> str:
    return " by ".join(str(edit[name]) for name in ("particle_id", "new_particle_id") if name in edit)


ENDPOINTS = (
    Endpoint(
        "GET",
        "/runs/{run_id}/masks",
        show_masks,
        "The versions of a run's masks, or one version's outlines.",
        path_model=RunPath,
        query=MasksQuery,
        answer=models.MaskVersionList,
        media_types=(accept.JSON, accept.PNG),
        statuses={404: "The run has no such version."},
    ),
    Endpoint(
        "PATCH",
        "/runs/{run_id}/masks",
        edit_masks,
        "Edit the masks of the run in progress, between two frames.",
        scope="operate",
        path_model=RunPath,
        body=MaskChange,
        answer=models.MaskEditReply,
        answers_operation=True,
        statuses={
            404: "There is no such particle.",
            409: "The run is not measuring, or the version is not the newest.",
            422: "An outline cannot be used.",
        },
    ),
)
