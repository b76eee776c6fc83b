"""Tables as CSV, Arrow or JSON rows. Blocking: called in threads."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from daemon.api.media import ARROW, CSV

Columns = Mapping[str, Any]
"""Equally long arrays or lists by name."""


def table_bytes(columns: Columns, media_type: str) -> bytes:
    """The table as CSV (empty where not known) or an Arrow IPC stream (NaN where not known)."""
    import pyarrow  # takes 50 MB: only once somebody asks

    as_csv = media_type == CSV
    table = pyarrow.table({name: pyarrow.array(values, from_pandas=as_csv) for name, values in columns.items()})
    return _csv(table) if as_csv else _arrow(table)


def columns_of(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, list[Any]]:
    """Rows turned into columns, those in `names` first."""
    known = list(names) + [name for name in (rows[0] if rows else ()) if name not in names]
    return {name: [row.get(name) for row in rows] for name in known}


def chosen(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows with exactly the columns of `names`."""
    return [{name: row.get(name) for name in names} for row in rows]


def long_table(particle_ids: Sequence[int], series: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One table of all particles' series: `particle_id` first, one particle after the other."""
    lengths = [len(next(iter(one.values()), ())) for one in series]
    table = {"particle_id": np.repeat(np.asarray(particle_ids, np.int64), lengths)}
    for name in series[0] if series else ():
        table[name] = np.concatenate([one[name] for one in series])
    return table


def _csv(table: Any) -> bytes:
    from pyarrow import csv

    sink = io.BytesIO()
    csv.write_csv(table, sink, csv.WriteOptions(quoting_style="needed"))
    return sink.getvalue()


def _arrow(table: Any) -> bytes:
    from pyarrow import ipc

    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


__all__ = ["ARROW", "CSV", "chosen", "columns_of", "long_table", "table_bytes"]
