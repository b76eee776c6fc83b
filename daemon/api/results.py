"""What a run came to: particles, traces, events, cycles, ensemble, the cell's record."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import Field, field_validator

from daemon.api import accept, models
from daemon.api.endpoint import Call, Endpoint, Query
from daemon.api.query import MAX_POINTS, Names, ParticleId, ParticleIds, Span
from daemon.api.runs import RunPath
from daemon.events import EventKind
from daemon.tables import TRACES

TABLE_TYPES = (accept.JSON, accept.CSV, accept.ARROW)
ALWAYS = ("particle_id", "frame", "t_s")


class ParticleQuery(Query):
    """Which particle."""

    particle_id: ParticleId | None = None


class EventQuery(ParticleQuery):
    """Which events of a run."""

    after: int = Field(default=0, ge=0, le=2**62, description="`event_id` after which to begin.")
    limit: int = Field(default=1000, ge=1, le=10_000, description="Most events answered.")
    kind: EventKind | None = Field(default=None, description="Only this kind.")


class SeriesQuery(Span):
    """A series and how far to reduce it."""

    points: int = Field(default=5000, ge=1, le=MAX_POINTS, description="Most rows; extremes are kept.")


class TraceQuery(Span):
    """Which traces."""

    particles: ParticleIds = Field(default=(), description="Particle ids, comma-separated; all when absent.")
    columns: Names = Field(default=("contrast",), description="Columns of the `traces` table, comma-separated.")
    points: int = Field(default=1000, ge=1, le=MAX_POINTS, description="Most rows a particle; extremes are kept.")

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        for name in columns:
            if name not in TRACES:
                raise ValueError(f"'{name[:50]}' is no column of traces, which has {', '.join(TRACES)}")
        return tuple(dict.fromkeys(name for name in columns if name not in ALWAYS))


async def particles(call: Call) -> web.Response:
    """Every particle of the run."""
    return await call.read("particles", _media_type(call))


async def events(call: Call) -> web.Response:
    """A page of the run's events."""
    return await call.read("events", _media_type(call), **call.query.model_dump(mode="json"))


async def ensemble(call: Call) -> web.Response:
    """The ensemble over time."""
    return await call.read("ensemble", _media_type(call), **call.query.model_dump())


async def echem(call: Call) -> web.Response:
    """The cell's record."""
    return await call.read("echem", _media_type(call), **call.query.model_dump())


async def traces(call: Call) -> web.Response:
    """Per-particle series."""
    asked = call.query.model_dump(mode="json")
    return await call.read("traces", _media_type(call), particle_ids=asked.pop("particles"), **asked)


def _media_type(call: Call) -> str:
    return accept.choose(call.request, TABLE_TYPES)


def _table(path: str, handler: Any, summary: str, answer: Any, query: type[Query] | None) -> Endpoint:
    return Endpoint(
        "GET",
        f"/runs/{{run_id}}/{path}",
        handler,
        summary,
        path_model=RunPath,
        query=query,
        answer=answer,
        media_types=TABLE_TYPES,
    )


ENDPOINTS = (
    _table("particles", particles, "The particles of a run.", models.ParticleList, None),
    _table("traces", traces, "Traces of particles, min-max reduced.", models.TraceList, TraceQuery),
    _table("events", events, "Events of a run, by pages.", models.EventList, EventQuery),
    _table("ensemble", ensemble, "The ensemble over time.", models.EnsembleList, SeriesQuery),
    _table("echem", echem, "The cell's record.", models.EchemList, SeriesQuery),
)
