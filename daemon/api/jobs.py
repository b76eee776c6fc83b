"""Watching and cancelling operations, and fetching the files they made."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from daemon.api import accept, longwork, models
from daemon.api.endpoint import Call, Endpoint, Query
from daemon.api.operations import Job


class OperationPath(Query):
    """An operation's path."""

    operation_id: Annotated[str, Field(pattern="^[0-9a-f]{1,32}$")]


def _job(call: Call) -> Job:
    job = call.services.operations.get(call.path.operation_id)
    call.actor.require(job.scope)
    return job


async def list_operations(call: Call) -> dict[str, Any]:
    """Newest first; those that whoever asks may look at."""
    jobs = [job for job in call.services.operations.jobs() if call.actor.may(job.scope)]
    return {"operations": [longwork.reply(job) for job in jobs]}


async def get_operation(call: Call) -> dict[str, Any]:
    """One operation."""
    return longwork.reply(_job(call))


async def cancel_operation(call: Call) -> dict[str, Any]:
    """Ask it to stop and show it; a finished one stays as it is."""
    job = _job(call)
    call.services.operations.cancel(job)
    await call.services.operations.wait(job)
    await call.audit("operation.cancel", f"{job.kind} {job.operation_id}")
    return longwork.reply(job)


async def get_file(call: Call) -> web.StreamResponse:
    """The archive an operation made."""
    return await longwork.send_file(call, _job(call))


_ONE = "/operations/{operation_id}"

ENDPOINTS = (
    Endpoint(
        "GET",
        "/operations",
        list_operations,
        "Operations in memory that the token's scope allows to see.",
        answer=models.OperationList,
    ),
    Endpoint(
        "GET",
        _ONE,
        get_operation,
        "State, progress, log and result of an operation.",
        path_model=OperationPath,
        answer=models.OperationReply,
    ),
    Endpoint(
        "DELETE",
        _ONE,
        cancel_operation,
        "Cancel an operation.",
        scope="operate",
        path_model=OperationPath,
        answer=models.OperationReply,
    ),
    Endpoint(
        "POST",
        f"{_ONE}/cancel",
        cancel_operation,
        "Cancel an operation, for clients without DELETE.",
        scope="operate",
        path_model=OperationPath,
        answer=models.OperationReply,
    ),
    Endpoint(
        "GET",
        f"{_ONE}/file",
        get_file,
        "The archive an operation made.",
        path_model=OperationPath,
        media_types=(accept.ZIP, accept.GZIP, accept.HTML),
    ),
)
