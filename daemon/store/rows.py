"""Rows of the tables: which columns each has, and the statements that write them.

A row comes as a dictionary; numpy scalars, enums and lists become what SQLite holds, NaN becomes NULL.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from daemon.cell.samples import CellRow
from daemon.events import Event, EventKind
from daemon.parts import RunSummary
from daemon.store.assemble import EncodedChunk
from daemon.store.codec import checksum, matches, pack_array, unpack_array
from daemon.store.proof import insert_proven, prove_again
from daemon.tables import CYCLES, ENSEMBLE, EVENTS, FRONTS, HEALTH, PARTICLES, RATES

PARTICLE_COLUMNS = (*PARTICLES, "particle_index", "layer_sigma_ratio")
EVENT_COLUMNS = (*EVENTS, "seq")
CALIBRATION_COLUMNS = ("particle_id", "kind", "contrast_knots", "soc_knots", "soc_sigma", "layer_sigma_ratio")
CALIBRATION_JSON = ("contrast_knots", "soc_knots", "soc_sigma", "layer_sigma_ratio")
CELL_COLUMNS = ("t_s", "voltage_v", "current_ma", "cycle", "step", "step_kind", "charge_mah", "host_t_s")
RUN_FIELDS = (
    "run_id", "name", "state", "started_utc", "ended_utc", "path", "recipe", "frames", "particles", "reason", "detail",
)  # fmt: skip
KEEPING_FIELDS = ("exported_utc", "deleting_utc", "deleted_utc")
FRONT_SERIES = ("t_s", "front_px", "front_sigma_px", "fraction")
"""Arrays of a front's row, kept as one of float64, (4, points)."""
SEQ_BEFORE = "seq_before"  # key of `meta`
CHUNK_FIELDS = ("chunk_id", "first_frame", "frames", "particles", "t0_s", "t1_s")


def plain(value: Any) -> Any:
    """`value` as SQLite can hold it: None, int, float, str or bytes; lists, arrays and mappings as JSON text."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple, dict, np.ndarray)):
        return to_json(value)
    return value


def to_json(value: Any) -> str:
    """Compact JSON; NaN and infinities become null, so that every JSON reader can read it."""
    return json.dumps(_json_ready(value), separators=(",", ":"), allow_nan=False)


def json_text(value: Any) -> str | None:
    """`value` as JSON text for a cell that holds one value; None stays None."""
    return None if value is None else to_json(value)


def _json_ready(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_ready(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _json_ready(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_json_ready(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def known_only(rows: Iterable[dict[str, Any]], columns: Sequence[str], table: str) -> list[dict[str, Any]]:
    """Copies of `rows`. Raises `ValueError` for a column that `table` does not have."""
    copies = [dict(row) for row in rows]
    for row in copies:
        if not row.keys() <= set(columns):
            raise ValueError(f"table '{table}' has no column {sorted(row.keys() - set(columns))}")
    return copies


def replace_rows(conn: sqlite3.Connection, table: str, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Insert rows, replacing those of the same key; a column that a row lacks becomes NULL."""
    insert_proven(conn, table, columns, ([plain(row.get(name)) for name in columns] for row in rows))


def insert_particles(conn: sqlite3.Connection, rows: list[dict[str, Any]]) -> None:
    """Rows without `particle_index` keep the one their particle has, or get the next one in the order given."""
    index_of = dict(conn.execute("select particle_id, particle_index from particles").fetchall())
    following = max(index_of.values(), default=-1) + 1
    for row in rows:
        own = index_of.get(plain(row["particle_id"]), following)
        row["particle_index"] = plain(row.get("particle_index", own))
        following = max(following, row["particle_index"] + 1)
    replace_rows(conn, "particles", PARTICLE_COLUMNS, rows)


def update_particles(conn: sqlite3.Connection, rows: list[dict[str, Any]]) -> None:
    """Change only the columns each row names."""
    for row in rows:
        changes = {name: plain(value) for name, value in row.items() if name != "particle_id"}
        if changes:
            assignments = ", ".join(f'"{name}" = ?' for name in changes)
            values = [*changes.values(), plain(row["particle_id"])]
            conn.execute(f"update particles set {assignments} where particle_id = ?", values)
            prove_again(conn, "particles", "particle_id = ?", values[-1:])


def insert_calibrations(conn: sqlite3.Connection, rows: list[dict[str, Any]]) -> None:
    """Keep the latest of each particle; what has no column of its own is kept in `further`."""
    stored = []
    for row in rows:
        own = {name: row.get(name) for name in CALIBRATION_COLUMNS}
        own |= {name: to_json(own[name]) for name in CALIBRATION_JSON if own[name] is not None}
        rest = {name: value for name, value in row.items() if name not in CALIBRATION_COLUMNS}
        stored.append({**own, "further": to_json(rest)})
    replace_rows(conn, "calibrations", (*CALIBRATION_COLUMNS, "further"), stored)


def calibration_of(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `calibrations` as it was put. Raises `ValueError` for damaged JSON."""
    own = dict(row)
    for name in (*CALIBRATION_JSON, "further"):
        if own.get(name) is not None:
            own[name] = json.loads(own[name])
    return own | (own.pop("further", None) or {})


def insert_cycles(conn: sqlite3.Connection, rows: list[dict[str, Any]]) -> None:
    """A later row of the same particle, cycle and half replaces the earlier."""
    replace_rows(conn, "cycles", CYCLES, rows)


def insert_health(conn: sqlite3.Connection, rows: list[dict[str, Any]]) -> None:
    """A later row of the same particle and cycle replaces the earlier."""
    replace_rows(conn, "health", HEALTH, rows)


def insert_rates(conn: sqlite3.Connection, rows: list[dict[str, Any]]) -> None:
    """A later row of the same particle and potential step replaces the earlier."""
    replace_rows(conn, "rates", RATES, rows)


def insert_fronts(conn: sqlite3.Connection, rows: list[dict[str, Any]]) -> None:
    """A later row of the same particle, cycle and half replaces the earlier; its series is bound to it by its CRC."""
    stored = []
    for row in rows:
        own = {name: row.get(name) for name in FRONTS}
        if "t_s" in row:
            series = np.array([row[name] for name in FRONT_SERIES], float)
            blob, t_s = pack_array(series), series[0]
            own |= {"t0_s": float(t_s[0]), "t1_s": float(t_s[-1]), "points": len(t_s), "series": blob}
            own["crc32"] = checksum(blob, *_front_key(own))
        stored.append(own)
    columns = (*FRONTS, "t0_s", "t1_s", "points", "series", "crc32")
    replace_rows(conn, "fronts", columns, stored)


def front_series(row: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays of a stored row of `fronts` by name; None where they are damaged. Raises `StoreError` (CORRUPT)."""
    if not matches(row["series"], row["crc32"], *_front_key(row)):
        return None
    series = unpack_array("fronts", row["series"], "float64", (len(FRONT_SERIES), row["points"]))
    return dict(zip(FRONT_SERIES, series, strict=True))


def _front_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("particle_id", "cycle", "half", "points"))


def insert_ensemble(conn: sqlite3.Connection, rows: list[dict[str, Any]]) -> None:
    """A later row of the same time replaces the earlier."""
    replace_rows(conn, "ensemble", ENSEMBLE, rows)


def insert_cell_samples(conn: sqlite3.Connection, samples: list[CellRow]) -> None:
    """Samples whose `t_s` is run time already."""
    rows = ({name: getattr(sample, name) for name in CELL_COLUMNS} for sample in samples)
    replace_rows(conn, "cell_samples", CELL_COLUMNS, rows)


def insert_run_events(conn: sqlite3.Connection, events: list[Event]) -> None:
    """Events of this run, numbered already."""
    replace_rows(conn, "events", EVENT_COLUMNS, (event.as_dict() for event in events))


def insert_catalogue_events(conn: sqlite3.Connection, events: list[Event]) -> None:
    """Events of any run or none, numbered already."""
    replace_rows(conn, "events", (*EVENT_COLUMNS, "run_id"), (event.as_dict() for event in events))


def last_seq_given(conn: sqlite3.Connection) -> int:
    """The highest sequence number that may have been given, also by a catalogue before this one; 0 when none was."""
    events = "select max(seq) from events"
    earlier = "select max(cast(value as integer)) from meta where key = ?"
    return int(conn.execute(f"select max(ifnull(({events}), 0), ifnull(({earlier}), 0))", (SEQ_BEFORE,)).fetchone()[0])


def number_after(conn: sqlite3.Connection, seq: int) -> None:
    """Let the catalogue give sequence numbers above `seq` only."""
    insert_proven(conn, "meta", ("key", "value"), [(SEQ_BEFORE, str(seq))])


def event_of(row: dict[str, Any], run_id: str = "") -> Event:
    """The event of a row of either events table; what SQLite keeps as NULL is NaN again."""
    floats = {name: _or_nan(row[name]) for name in ("t_s", "detected_t_s", "magnitude", "magnitude_sigma", "score")}
    return Event(
        kind=EventKind(row["kind"]),
        particle_id=row["particle_id"],
        detail=row["detail"] or "",
        run_id=row.get("run_id") or run_id,
        event_id=row["event_id"],
        seq=row["seq"] or 0,
        **floats,
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def insert_chunk(conn: sqlite3.Connection, chunk: EncodedChunk) -> int:
    """Store the chunk under the next id, each row bound to its place by its CRC; returns the bytes of its blobs."""
    chunk_id = conn.execute("select coalesce(max(chunk_id), 0) + 1 from chunks").fetchone()[0]
    fields = (chunk_id, chunk.first_frame, chunk.frames, chunk.particles, chunk.t0_s, chunk.t1_s)
    conn.execute("insert into chunks values (?, ?, ?, ?, ?, ?, ?)", (*fields, checksum(b"", *fields)))
    conn.executemany(
        'insert into chunk_columns (chunk_id, per, "column", codec, crc32, blob) values (?, ?, ?, ?, ?, ?)',
        ((*key, checksum(blob, *key), blob) for *place, blob in chunk.columns if (key := (chunk_id, *place))),
    )
    return sum(len(blob) for *_, blob in chunk.columns)


def set_metadata(conn: sqlite3.Connection, values: dict[str, Any]) -> None:
    """Add or replace metadata, each value as JSON."""
    insert_proven(conn, "metadata", ("key", "value"), [(key, to_json(value)) for key, value in values.items()])


def run_fields(summary: RunSummary, base: Path) -> dict[str, Any]:
    """A summary as a row of `runs`; a path inside `base` is kept relative, so that the state directory can move."""
    fields = {name: getattr(summary, name) for name in RUN_FIELDS}
    return fields | {"path": relative_path(summary.path, base), "recipe": to_json(summary.recipe)}


def relative_path(path: Path, base: Path) -> str:
    """`path` relative to `base` when inside it."""
    path, base = path.absolute(), base.absolute()
    return str(path.relative_to(base) if path.is_relative_to(base) else path)


def run_summary(row: dict[str, Any], base: Path) -> RunSummary:
    """The summary of a row of `runs`."""
    fields = {name: row[name] for name in RUN_FIELDS}
    kept = {name: row.get(name) for name in KEEPING_FIELDS}  # a catalogue of before the next start of the writer
    return RunSummary(**fields | kept | {"path": base / row["path"], "recipe": json.loads(row["recipe"])})
