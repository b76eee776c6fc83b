"""For the field engineer: self-test, diagnostics bundle, logs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BeforeValidator, Field

from daemon.api import accept, longwork, models
from daemon.api.dispatch import json_response
from daemon.api.endpoint import Call, Endpoint, Query
from daemon.api.jsonio import dumps
from daemon.api.operations import Job
from daemon.api.parts import LogEntry

MAX_SINCE_S = 400 * 86_400.0


def _moment(value: Any) -> Any:
    """Seconds back from now, or an ISO 8601 time with offset."""
    if not isinstance(value, str):
        return value
    try:
        seconds = float(value)
    except ValueError:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("must be seconds back, or an ISO 8601 time with offset (write '+' as %2B)") from None
        return moment
    if not 0 <= seconds <= MAX_SINCE_S:
        raise ValueError(f"must be between 0 and {MAX_SINCE_S:g} seconds back")
    return datetime.now(UTC) - timedelta(seconds=seconds)


class LogQuery(Query):
    """Which lines."""

    since: Annotated[datetime | None, BeforeValidator(_moment)] = Field(
        default=None, description="Seconds back, or an ISO 8601 time with offset."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least important level.")
    follow: bool = Field(default=False, description="Wait for further lines (newline-delimited JSON).")


async def selftest(call: Call) -> web.Response:
    """Run every check; always an operation."""

    async def work(job: Job) -> dict[str, Any]:
        await call.audit_first("selftest")
        return await call.parts.selftest()

    job, _ = await longwork.begin(call, "selftest", work)
    return longwork.accepted(job)


async def bundle(call: Call) -> web.StreamResponse:
    """Logs, settings without secrets, versions, status and recent faults in one file."""

    def make(_: Job, path: Path) -> None:
        call.parts.bundle(path)

    name = f"photometryd-bundle-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz"
    return await longwork.archive(call, "bundle", make, name=name, media_type=accept.GZIP, key="bundle")


async def logs(call: Call) -> web.StreamResponse:
    """The service's log."""
    query = call.query
    media_type = accept.NDJSON if query.follow else accept.choose(call.request, (accept.JSON, accept.NDJSON))
    read = partial(call.parts.logs, since_utc=query.since, level=query.level)
    if query.follow:
        response = web.StreamResponse(headers={"Content-Type": media_type, "X-Accel-Buffering": "no"})
        return await call.follow(response, _log_pieces(read(follow=True)))
    entries = await call.work(read, follow=False)
    if media_type == accept.JSON:
        return json_response({"entries": entries})
    return web.Response(body=_lines(entries), content_type=media_type)


async def _log_pieces(batches: list[LogEntry] | AsyncIterator[list[LogEntry]]) -> AsyncGenerator[bytes, None]:
    if isinstance(batches, list):
        yield _lines(batches)
        return
    try:
        async for batch in batches:
            yield _lines(batch) or b"\n"
    finally:
        if isinstance(batches, AsyncGenerator):
            await batches.aclose()


def _lines(entries: list[LogEntry]) -> bytes:
    return b"".join(dumps(entry) + b"\n" for entry in entries)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/selftest",
        selftest,
        "Run every check of the instrument.",
        scope="operate",
        answers_operation=True,
        always_operation=True,
    ),
    Endpoint(
        "GET",
        "/diagnostics/bundle",
        bundle,
        "Everything a support engineer asks for, as tar.gz.",
        scope="admin",
        media_types=(accept.GZIP,),
        answers_operation=True,
    ),
    Endpoint(
        "GET",
        "/logs",
        logs,
        "The service's log.",
        scope="admin",
        query=LogQuery,
        answer=models.LogList,
        media_types=(accept.JSON, accept.NDJSON),
    ),
)
