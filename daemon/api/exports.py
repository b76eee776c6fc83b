"""A run's tables as one archive, and its report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import Field, field_validator

from daemon.api import accept, longwork
from daemon.api.endpoint import Call, Endpoint, Query
from daemon.api.operations import Job
from daemon.api.query import Names, ParticleIds, Span
from daemon.api.runs import RunPath
from daemon.errors import ApiError, ApiReason
from daemon.parts import FINISHED
from daemon.report.child import report_in_child
from daemon.store.aside import run_id_of_aside
from daemon.store.export_child import export_in_child
from daemon.store.reading import damage_headers
from daemon.tables import EXPORT_TABLES


class ReportQuery(Query):
    """What to show one by one."""

    particles: Annotated[ParticleIds, Field(description="The gallery's, by id, comma-separated.")] = ()


class ExportQuery(Span):
    """What to export."""

    format: Literal["parquet", "csv", "arrow"] = "parquet"
    tables: Annotated[Names, Field(description="Tables, comma-separated; all when absent.")] = ()
    particles: Annotated[ParticleIds, Field(description="Particle ids, comma-separated; all when absent.")] = ()

    @property
    def whole(self) -> bool:
        """Every table of every particle from the first frame to the last."""
        return not self.tables and not self.particles and self.from_s is None and self.to_s is None

    @field_validator("tables")
    @classmethod
    def _known(cls, tables: tuple[str, ...]) -> tuple[str, ...]:
        for name in tables:
            if name not in EXPORT_TABLES:
                raise ValueError(f"'{name[:50]}' is no table, there are {', '.join(EXPORT_TABLES)}")
        return tables


@contextmanager
def _child() -> Iterator[None]:
    """A process that ends without a word is a fault of ours."""
    try:
        yield
    except ChildProcessError as error:
        raise ApiError(ApiReason.INTERNAL, str(error)) from None


async def export(call: Call) -> web.StreamResponse:
    """A zip of the tables; an operation when it takes longer than a second."""
    run = await call.stored_run()
    query: ExportQuery = call.query
    min_free_mb = call.parts.settings.store.min_free_mb

    async def fetched() -> None:
        now = await call.parts.runs.get(run.run_id)  # it may have turned out damaged since
        if run.state in FINISHED and run_id_of_aside(now.path) is None:
            await call.work(call.parts.keeping.mark_exported, [run.run_id], f"export for {call.actor.name}")

    def make(job: Job, path: Path) -> dict[str, Any]:
        options = {
            "format": query.format,
            "particles": list(query.particles) or None,
            "from_s": query.from_s,
            "to_s": query.to_s,
            "tables": list(query.tables) or None,
        }

        def progress(share: float) -> None:
            longwork.check_space(path.parent, min_free_mb)
            job.advance(share)

        with _child():
            left_out = export_in_child(run.path, path, options, progress)
        _tell(job, left_out)
        # what was left out may still be salvaged from the run's file, which must not seem to be elsewhere
        job.on_fetched = fetched if query.whole and not any(left_out.values()) else None
        return left_out

    key = sha256(f"{call.request.path}?{query.model_dump_json()}".encode()).hexdigest()
    name = f"{run.run_id}-{query.format}.zip"
    return await longwork.archive(call, "run.export", make, name=name, media_type=accept.ZIP, key=key)


def _tell(job: Job, left_out: dict[str, Any]) -> None:
    chunks, rows = left_out["corrupt_chunks"], left_out["damaged_rows"]
    job.file_headers = damage_headers(rows) | ({"X-Damaged-Chunks": str(chunks)} if chunks else {})
    if chunks or rows:
        job.say(f"left out, because they are damaged: {chunks} chunks of frames, {sum(rows.values())} rows")


async def report(call: Call) -> web.StreamResponse:
    """The report, one HTML file; an operation when it takes longer than a second."""
    run = await call.stored_run()
    query: ReportQuery = call.query

    def make(job: Job, path: Path) -> None:
        with _child():
            report_in_child(run.path, path, query.particles, job.advance)

    key = sha256(f"{call.request.path}?{query.model_dump_json()}".encode()).hexdigest()
    name = f"{run.run_id}.html"
    return await longwork.archive(call, "run.report", make, name=name, media_type=accept.HTML, key=key)


ENDPOINTS = (
    Endpoint(
        "GET",
        "/runs/{run_id}/export",
        export,
        "A run's tables as one zip.",
        path_model=RunPath,
        query=ExportQuery,
        media_types=(accept.ZIP,),
        answers_operation=True,
        statuses={507: "The instrument's disk has no room for the archive."},
    ),
    Endpoint(
        "GET",
        "/runs/{run_id}/report",
        report,
        "A run's report as one HTML file.",
        path_model=RunPath,
        query=ReportQuery,
        media_types=(accept.HTML,),
        answers_operation=True,
        statuses={507: "The instrument's disk has no room for the report."},
    ),
)
