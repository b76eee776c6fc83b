"""One record a route: what routing, authorisation, validation, OpenAPI and the docs' tests are all made from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from daemon.api.audit import Auditor
from daemon.api.auth import Actor
from daemon.api.followers import Followers
from daemon.api.operations import Operations
from daemon.api.parts import ApiParts
from daemon.api.reads import Reads
from daemon.api.workers import Workers
from daemon.config import Scope
from daemon.errors import RunError, RunReason
from daemon.parts import PartStatus, RunSummary

PREFIX = "/api/v1"


class Query(BaseModel):
    """Base of query and path parameters: unknown names and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass
class Services:
    """What handlers share beside the parts of the daemon."""

    workers: Workers
    """Short blocking work."""
    reads: Reads
    """What is read of runs' files."""
    slow_workers: Workers
    """Long blocking work: exports and bundles."""
    backup_workers: Workers
    """Backups, which take hours: a bundle must not wait for one."""
    operations: Operations
    followers: Followers
    auditor: Auditor
    line: Callable[[], PartStatus] = lambda: PartStatus("api", "starting")
    """The API's own line of the status; the server sets it."""

    @property
    def pools(self) -> tuple[Workers, ...]:
        """Every pool of threads."""
        return (self.workers, self.slow_workers, self.backup_workers)

    def counts(self) -> dict[str, int]:
        """What is going on, and what was turned away, for the status."""
        everywhere: tuple[Workers | Reads, ...] = (*self.pools, self.reads)
        return {
            "followers": len(self.followers),
            "followers_dropped": self.followers.dropped,
            "followers_refused": self.followers.refused,
            "calls_open": sum(pool.open_calls for pool in everywhere),
            "calls_refused": sum(pool.refused for pool in everywhere),
            "operations_running": self.operations.running,
        }


@dataclass(frozen=True)
class Call:
    """One admitted and validated request."""

    request: web.Request
    parts: ApiParts
    services: Services
    actor: Actor
    endpoint: Endpoint
    path: Any = None
    query: Any = None
    body: Any = None

    @property
    def head_only(self) -> bool:
        """Whether only headers are wanted."""
        return self.request.method == "HEAD"

    async def stored_run(self) -> RunSummary:
        """The run of the path, whose file can be read. Raises `RunError` (NOT_FOUND, DELETED)."""
        run = await self.parts.runs.get(self.path.run_id)
        if run.state == "deleted":
            raise RunError(RunReason.DELETED, f"run '{run.run_id}' was deleted on {run.deleted_utc}")
        return run

    async def read(self, name: str, media_type: str, **asked: Any) -> web.Response:
        """Answer with the read `name` of `daemon.api.reads.READS` of the run of the path, with plain values."""
        run = await self.stored_run()
        answer = await self.services.reads.run(
            name, {"path": str(run.path), "run_id": run.run_id, "media_type": media_type} | asked
        )
        return web.Response(body=answer.body, content_type=media_type, headers=answer.headers)

    async def work(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run short blocking work in a thread."""
        return await self.services.workers.run(function, *args, **kwargs)

    async def follow(self, response: web.StreamResponse, pieces: AsyncGenerator[bytes, None]) -> web.StreamResponse:
        """Answer with `pieces` for as long as whoever asks may have them. Raises `ApiError` (BUSY)."""
        return await self.services.followers.serve(self.request, self.endpoint.scope or "read", response, pieces)

    async def audit_first(self, action: str, detail: str = "") -> None:
        """Record what is about to be done. Raises when that cannot be: then it is not to be done."""
        await self.services.auditor.begins(self.actor.name, action, detail)

    async def audit(self, action: str, detail: str = "") -> None:
        """Record what was done and by whom. Never raises: what is done is not answered as failed."""
        await self.services.auditor.done(self.actor.name, action, detail)


Handler = Callable[[Call], Awaitable[Any]]
"""Returns a pydantic model or plain values (answered as JSON, 200) or a finished response; raises `InstrumentError`."""


@dataclass(frozen=True)
class Endpoint:
    """One method of one path."""

    method: str
    path: str
    """Under the prefix, with parameters in braces."""
    handler: Handler
    summary: str
    scope: Scope | None = "read"
    """None: open to whoever reaches the port."""
    query: type[Query] | None = None
    path_model: type[Query] | None = None
    body: type[BaseModel] | None = None
    body_optional: bool = False
    answer: type[BaseModel] | None = None
    """Model of the JSON answer."""
    media_types: tuple[str, ...] = ("application/json",)
    """What it can answer with, the default first."""
    answers_operation: bool = False
    """Answers 202 with an operation when it takes longer than a second."""
    always_operation: bool = False
    """Answers 202 even when it could be done sooner."""
    urgent: bool = False
    """Never refused for asking too often."""
    statuses: Mapping[int, str] = field(default_factory=dict)
    """Further statuses worth naming, with a sentence each."""
    refusal_models: Mapping[int, type[BaseModel]] = field(default_factory=dict)
    """Model of the JSON body where a status has one instead of a problem document."""

    @property
    def full_path(self) -> str:
        """The path with its prefix."""
        return PREFIX + self.path
