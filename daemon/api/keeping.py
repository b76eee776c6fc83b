"""Taking runs elsewhere, and deleting them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from daemon.api import longwork, models
from daemon.api.endpoint import Call, Endpoint, Query
from daemon.api.operations import Job, in_thread
from daemon.api.runs import RunPath
from daemon.errors import StoreError, StoreReason
from daemon.parts import RunSummary
from daemon.store.backup import report_as_dict


class BackupRequest(BaseModel):
    """Where to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: Annotated[
        str, Field(max_length=4096, pattern=r"^[^\x00]*$", description="A folder of the instrument's; as configured.")
    ] = ""


class DeleteQuery(Query):
    """Whether it may be lost."""

    unexported: bool = Field(default=False, description="Delete it though no backup and no export holds it.")


async def back_up(call: Call) -> web.Response:
    """Always an operation; repeating the request joins the one under way."""
    configured = call.parts.settings.store.backup_dir
    directory = Path(call.body.directory) if call.body.directory else configured
    if directory is None:
        raise StoreError(StoreReason.BACKUP_PLACE, "no `directory` was named, and store.backup_dir is not set")

    async def work(job: Job) -> dict[str, Any]:
        await call.audit_first("backup", str(directory))
        job.say(f"copying to {directory}")
        back_up = partial(call.parts.keeping.back_up, directory, job.advance)
        report = await in_thread(job, call.services.backup_workers, back_up)
        for run in report.damaged:
            job.say(f"run {run['run_id']} was left out: {run['detail']}")
        call.services.operations.forget_key(job)
        return report_as_dict(report)

    job, _ = await longwork.begin(call, "backup", work, key=f"backup {directory}")
    return longwork.accepted(job)


async def delete_run(call: Call) -> RunSummary:
    """The file goes, what the run was stays in the catalogue."""
    delete = partial(call.parts.keeping.delete, unexported=call.query.unexported)
    return await call.work(delete, call.path.run_id, call.actor.name)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/backup",
        back_up,
        "Bring a backup of every run and the catalogue up to date.",
        scope="admin",
        body=BackupRequest,
        body_optional=True,
        answers_operation=True,
        always_operation=True,
        statuses={409: "The folder does not exist, or holds something else.", 507: "There is no room for it."},
    ),
    Endpoint(
        "DELETE",
        "/runs/{run_id}",
        delete_run,
        "Delete a finished run's file.",
        scope="admin",
        path_model=RunPath,
        query=DeleteQuery,
        answer=models.RunReply,
        statuses={409: "It is in progress, being read, or held by no backup and no export."},
    ),
)
