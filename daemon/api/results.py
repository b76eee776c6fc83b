"""What a run came to: particles, traces, events, cycles, ensemble, the cell's record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web
from pydantic import Field, field_validator

from daemon.api import accept, models
from daemon.api.encode import chosen, columns_of, long_table, table_bytes
from daemon.api.endpoint import Call, Endpoint, Query
from daemon.api.jsonio import dumps, joined
from daemon.api.problems import NamedFieldsError
from daemon.api.query import MAX_POINTS, Names, ParticleId, ParticleIds, Span
from daemon.api.reduce import bucket_starts, bucket_width_s, extreme_rows
from daemon.api.runs import RunPath
from daemon.api.traces import Traces, Wanted, read_traces
from daemon.events import EventKind
from daemon.store.reader import RunReader
from daemon.tables import AXIS, ECHEM, ENSEMBLE, EVENTS, PARTICLES, TRACES

TABLE_TYPES = (accept.JSON, accept.CSV, accept.ARROW)
MAX_TRACE_VALUES = 2_000_000  # about 20 MB of JSON
ALWAYS = ("particle_id", "frame", "t_s")

Rows = list[dict[str, Any]]


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
    return await _rows(call, "particles", (*PARTICLES, *AXIS), lambda reader: reader.particles())


async def events(call: Call) -> web.Response:
    """A page of the run's events."""
    query = call.query

    def read(reader: RunReader) -> Rows:
        found = reader.events(query.after, limit=query.limit, particle_id=query.particle_id, kind=query.kind)
        return [event.as_dict() for event in found]

    def further(rows: Rows) -> dict[str, Any]:
        return {"next_after": rows[-1]["event_id"] if len(rows) == query.limit else None}

    return await _rows(call, "events", EVENTS, read, further)


async def ensemble(call: Call) -> web.Response:
    """The ensemble over time."""
    return await _series(call, "ensemble", ENSEMBLE, "t_s", lambda reader, span: reader.ensemble(*span))


async def echem(call: Call) -> web.Response:
    """The cell's record."""
    return await _series(call, "echem", ECHEM, "Test Time / s", lambda reader, span: echem_rows(reader.echem(*span)))


async def traces(call: Call) -> web.Response:
    """Per-particle series."""
    path = await _run_file(call)
    media_type = accept.choose(call.request, TABLE_TYPES)
    query = call.query
    wanted = Wanted(query.particles, query.columns, query.from_s, query.to_s, query.points)
    body = await call.services.trace_workers.run(_traces_body, path, call.path.run_id, wanted, media_type)
    return web.Response(body=body, content_type=media_type)


def _traces_body(path: Path, run_id: str, wanted: Wanted, media_type: str) -> bytes:
    count = len(wanted.particle_ids) or _particle_count(path)
    values = count * wanted.points * (len(wanted.columns) + 2)
    if values > MAX_TRACE_VALUES:
        detail = f"{count} particles at {wanted.points} points are {values} values, at most {MAX_TRACE_VALUES} are sent"
        raise NamedFieldsError([{"field": "points", "detail": detail}])
    found = read_traces(path, wanted)
    if media_type != accept.JSON:
        return table_bytes(long_table(found.particle_ids, found.series), media_type)
    return _traces_json(run_id, wanted, found)


def _particle_count(path: Path) -> int:
    with RunReader(path) as reader:
        return len(reader.particles())


def _traces_json(run_id: str, wanted: Wanted, found: Traces) -> bytes:
    """A particle at a time: encoding holds the interpreter, and a whole answer may take long."""
    head = dumps({"run_id": run_id, "columns": list(wanted.columns), "reduced": found.reduced})
    pairs = zip(found.particle_ids, found.series, strict=True)
    traces = joined(dumps({"particle_id": particle_id, **series}) for particle_id, series in pairs)
    return head[:-1] + b',"traces":' + traces + b"}"


async def _run_file(call: Call) -> Path:
    """The run's file. Raises `RunError` (NOT_FOUND)."""
    return (await call.stored_run()).path


async def _rows(
    call: Call,
    noun: str,
    names: Sequence[str],
    read: Callable[[RunReader], Rows],
    further: Callable[[Rows], dict[str, Any]] | None = None,
) -> web.Response:
    """A table of rows in the media type asked for."""
    path = await _run_file(call)
    media_type = accept.choose(call.request, TABLE_TYPES)
    run_id = call.path.run_id

    def body() -> tuple[bytes, dict[str, str]]:
        with RunReader(path) as reader:
            rows = chosen(read(reader), names)
            damage = reader.damage_headers
        if media_type != accept.JSON:
            return table_bytes(columns_of(rows, names), media_type), damage
        return dumps({"run_id": run_id, noun: rows} | (further(rows) if further else {})), damage

    content, headers = await call.work(body)
    return web.Response(body=content, content_type=media_type, headers=headers)


async def _series(
    call: Call,
    noun: str,
    names: Sequence[str],
    time_name: str,
    read: Callable[[RunReader, tuple[float | None, float | None]], Rows],
) -> web.Response:
    """A table of rows over time, reduced to `points`."""
    path = await _run_file(call)
    media_type = accept.choose(call.request, TABLE_TYPES)
    query, run_id = call.query, call.path.run_id

    def body() -> tuple[bytes, dict[str, str]]:
        with RunReader(path) as reader:
            rows = read(reader, (query.from_s, query.to_s))
            damage = reader.damage_headers
        rows = reduced_rows(rows, time_name, [name for name in names if name != time_name], query.points)
        if media_type != accept.JSON:
            return table_bytes(columns_of(rows, names), media_type), damage
        return dumps({"run_id": run_id, noun: rows}), damage

    content, headers = await call.work(partial(body))
    return web.Response(body=content, content_type=media_type, headers=headers)


def echem_rows(rows: Rows) -> Rows:
    """Cell samples under the names and in the units of the Battery Data Format."""
    return [
        {
            "Test Time / s": row["t_s"],
            "Voltage / V": row["voltage_v"],
            "Current / A": None if row["current_ma"] is None else row["current_ma"] * 1e-3,
            "Cycle Count / 1": _in_experiment(row["cycle"]),
            "Step Index / 1": _in_experiment(row["step"]),
        }
        for row in rows
    ]


def _in_experiment(number: int | None) -> int | None:
    return None if number is None or number < 0 else number


def reduced_rows(rows: Rows, time_name: str, names: Sequence[str], points: int) -> Rows:
    """At most `points` of the rows, every extreme of every column in `names` among them."""
    if len(rows) <= points:
        return rows
    times = np.array([row[time_name] for row in rows], float)
    values = np.array([[row.get(name) for row in rows] for name in names], float)
    starts = bucket_starts(times, bucket_width_s(times[-1] - times[0], points, len(names)))
    return [rows[index] for index in extreme_rows(values, starts)]


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
