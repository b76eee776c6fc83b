"""What answers are read from runs' files: by name, from plain values. Blocking; run in a process of its own.

A read is added by writing its function and its line in `READS`; `Call.read` asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from daemon.api.encode import chosen, columns_of, long_table, table_bytes
from daemon.api.jsonio import dumps, joined
from daemon.api.media import JSON
from daemon.api.reduce import bucket_starts, bucket_width_s, extreme_rows
from daemon.api.traces import Traces, Wanted, read_traces
from daemon.errors import NamedFieldsError, RunError, RunReason
from daemon.store.reader import RunReader
from daemon.store.rows import json_text
from daemon.tables import AXIS, ECHEM, ENSEMBLE, EVENTS, JSON_COLUMNS, PARTICLES, ROW_TABLES

MAX_TRACE_VALUES = 2_000_000  # about 20 MB of JSON
HEADER_TIMES = 32  # a clip has eight looks

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """The body of an answer and the headers that go with it."""

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Reads(Protocol):
    """Where reads are done."""

    @property
    def open_calls(self) -> int:
        """Calls running or waiting."""

    @property
    def refused(self) -> int:
        """Calls turned away since the start."""

    async def run(self, name: str, asked: Mapping[str, Any]) -> Answer:
        """The read `name` of `READS` with plain values. Raises `InstrumentError`; `ApiError` (BUSY) at its bound."""

    async def stop(self) -> None:
        """Idempotent."""


def particles(path: str, run_id: str, media_type: str) -> Answer:
    """Every particle of the run."""
    with RunReader(Path(path)) as reader:
        return _table(reader, run_id, media_type, "particles", (*PARTICLES, *AXIS), reader.particles())


def events(
    path: str, run_id: str, media_type: str, after: int, limit: int, particle_id: int | None, kind: str | None
) -> Answer:
    """A page of the run's events."""
    with RunReader(Path(path)) as reader:
        found = reader.events(after, limit=limit, particle_id=particle_id, kind=kind)
        rows = [event.as_dict() for event in found]
        further = {"next_after": rows[-1]["event_id"] if len(rows) == limit else None}
        return _table(reader, run_id, media_type, "events", EVENTS, rows, further)


def ensemble(path: str, run_id: str, media_type: str, from_s: float | None, to_s: float | None, points: int) -> Answer:
    """The ensemble over time."""
    with RunReader(Path(path)) as reader:
        rows = _reduced(reader.ensemble(from_s, to_s), ENSEMBLE, points)
        return _table(reader, run_id, media_type, "ensemble", ENSEMBLE, rows)


def echem(path: str, run_id: str, media_type: str, from_s: float | None, to_s: float | None, points: int) -> Answer:
    """The cell's record."""
    with RunReader(Path(path)) as reader:
        rows = _reduced(echem_rows(reader.echem(from_s, to_s)), ECHEM, points)
        return _table(reader, run_id, media_type, "echem", ECHEM, rows)


def page(path: str, run_id: str, media_type: str, table: str, asked: dict[str, Any]) -> Answer:
    """A page of one of `ROW_TABLES`; the header `X-Next-After` has what a table without room for it cannot say."""
    with RunReader(Path(path)) as reader:
        found = reader.page(table, **asked)
        headers = reader.damage_headers
    if found.next_after is not None:
        headers |= {"X-Next-After": str(found.next_after)}
    if media_type == JSON:
        return Answer(dumps({"run_id": run_id, table: found.rows, "next_after": found.next_after}), headers)
    columns = columns_of(found.rows, ROW_TABLES[table].columns)
    columns |= {each: [json_text(value) for value in columns[each]] for each in columns if each in JSON_COLUMNS}
    return Answer(table_bytes(columns, media_type), headers)


def traces(
    path: str,
    run_id: str,
    media_type: str,
    particle_ids: list[int],
    columns: list[str],
    from_s: float | None,
    to_s: float | None,
    points: int,
) -> Answer:
    """Per-particle series, reduced to `points` each."""
    wanted = Wanted(particle_ids, columns, from_s, to_s, points)
    count = len(particle_ids) or _particle_count(path)
    values = count * points * (len(columns) + 2)
    if values > MAX_TRACE_VALUES:
        detail = f"{count} particles at {points} points are {values} values, at most {MAX_TRACE_VALUES} are sent"
        raise NamedFieldsError([{"field": "points", "detail": detail}])
    found = read_traces(Path(path), wanted)
    if media_type != JSON:
        return Answer(table_bytes(long_table(found.particle_ids, found.series), media_type))
    return Answer(_traces_json(run_id, wanted, found))


def masks(path: str, run_id: str, media_type: str, version: int | None) -> Answer:
    """The versions of the masks, or one as outlines or as a picture."""
    from daemon.api.mask_views import shown  # its libraries only when they are wanted

    return Answer(shown(Path(path), run_id, version, media_type))


def clip(path: str, run_id: str, media_type: str, clip_id: int) -> Answer:
    """One clip as a picture, its looks side by side; their times are in the header `X-Times-S`."""
    from daemon.api.picture import strip_png

    with RunReader(Path(path)) as reader:
        found = reader.clip(clip_id)
    if found is None:
        raise RunError(RunReason.NOT_FOUND, f"run '{run_id}' has no clip {clip_id}")
    times = ",".join(f"{each:.3f}" for each in found.t_s[:HEADER_TIMES])
    return Answer(strip_png(found.pixels), {"X-Times-S": times})


@dataclass(frozen=True)
class Read:
    """One read and whether it may take seconds, so that quick ones do not wait behind it."""

    function: Callable[..., Answer]
    slow: bool = False


READS: dict[str, Read] = {
    "particles": Read(particles),
    "events": Read(events),
    "ensemble": Read(ensemble),
    "echem": Read(echem),
    "page": Read(page),
    "traces": Read(traces, slow=True),
    "masks": Read(masks),
    "clip": Read(clip),
}


def _table(
    reader: RunReader,
    run_id: str,
    media_type: str,
    noun: str,
    names: Sequence[str],
    rows: Rows,
    further: Mapping[str, Any] | None = None,
) -> Answer:
    """Rows with exactly the columns `names`, in the media type asked for."""
    rows, damage = chosen(rows, names), reader.damage_headers
    if media_type != JSON:
        return Answer(table_bytes(columns_of(rows, names), media_type), damage)
    return Answer(dumps({"run_id": run_id, noun: rows} | dict(further or {})), damage)


def _particle_count(path: str) -> int:
    with RunReader(Path(path)) as reader:
        return len(reader.particles())


def _traces_json(run_id: str, wanted: Wanted, found: Traces) -> bytes:
    """A particle at a time: encoding holds the interpreter, and a whole answer may take long."""
    head = dumps({"run_id": run_id, "columns": list(wanted.columns), "reduced": found.reduced})
    pairs = zip(found.particle_ids, found.series, strict=True)
    series = joined(dumps({"particle_id": particle_id, **one}) for particle_id, one in pairs)
    return head[:-1] + b',"traces":' + series + b"}"


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


def _reduced(rows: Rows, columns: Sequence[str], points: int) -> Rows:
    """Reduced over time, which is the first of the columns."""
    time_name, *names = columns
    return reduced_rows(rows, time_name, names, points)


def reduced_rows(rows: Rows, time_name: str, names: Sequence[str], points: int) -> Rows:
    """At most `points` of the rows, every extreme of every column in `names` among them."""
    if len(rows) <= points:
        return rows
    times = np.array([row[time_name] for row in rows], float)
    values = np.array([[row.get(name) for row in rows] for name in names], float)
    starts = bucket_starts(times, bucket_width_s(times[-1] - times[0], points, len(names)))
    return [rows[index] for index in extreme_rows(values, starts)]
