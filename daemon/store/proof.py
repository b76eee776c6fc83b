"""What proves that rows are as they were written, and that none is missing.

Each row of an ordinary table has `row_crc32`: CRC-32 of the JSON array [table, name, value, name, value, ...] of its
columns that are not NULL, in the table's order, without BLOBs (these have CRCs of their own) and `row_crc32` itself, as
Python's `json.dumps` writes it. A column added later does not change the CRC of an earlier row.

The table `tallies` has for each table how many rows it has, the sum of their rowids and the sum of their CRCs. Triggers
change it in the transaction that changes the rows, so that a page which drops out of a b-tree is missed.
"""

from __future__ import annotations

import json
import math
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CRC = "row_crc32"
BLOBS: dict[str, tuple[str, ...]] = {"fronts": ("series",), "clips": ("pixels",), "masks": ("labels", "reference")}
"""Columns of run files that CRCs of their own prove."""
CATALOGUE_BLOBS: dict[str, tuple[str, ...]] = {"calibrations": ("blob",)}
RUN_TABLES = (
    "metadata", "particles", "calibrations", "events", "cycles", "health", "rates", "ensemble", "cell_samples", "drops",
    "faults", "masks", "fronts", "clips", "axes",
)  # fmt: skip
PACKED_TABLES = ("chunks", "chunk_columns", "axial")
"""Tables whose rows are proven by a `crc32` over all of the row."""
CATALOGUE_TABLES = ("meta", "runs", "events", "calibrations", "audit", "faults")
PAGE_ROWS = 10_000
_dumps = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def row_crc(table: str, names: Sequence[str], values: Iterable[Any]) -> int:
    """CRC-32 of a row: its columns without BLOBs and `row_crc32`, as SQLite returns them."""
    content: list[Any] = [table]
    for name, value in zip(names, values, strict=True):
        if value is not None:
            content += (name, value)
    return zlib.crc32(_dumps(content).encode())


def is_intact(table: str, row: Mapping[str, Any]) -> bool:
    """Whether a row as read, with every column in the table's order and BLOBs left out, matches its `row_crc32`."""
    content: list[Any] = [table]
    for name, value in row.items():
        if value is not None and name != CRC:
            content += (name, value)
    try:
        return zlib.crc32(_dumps(content).encode()) == row[CRC]
    except TypeError:  # bytes where there were none
        return False


def columns_of(conn: sqlite3.Connection, table: str) -> dict[str, str]:
    """Declared type of each column, in the table's order; empty when there is no such table."""
    return dict(conn.execute("select name, type from pragma_table_info(?)", (table,)).fetchall())


def as_stored(value: Any, declared: str) -> Any:
    """`value` (None, int, float, str, bytes) as SQLite will return it from a column of that type."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, (bool, int, float)):
        if declared == "REAL":
            return float(value) + 0.0  # SQLite has no negative zero
        if declared == "TEXT":
            return repr(float(value)) if isinstance(value, float) else str(int(value))
        return int(value) if not isinstance(value, float) or value.is_integer() else value
    if value is None or isinstance(value, (str, bytes)):
        return value
    raise sqlite3.InterfaceError(f"a value of type '{type(value).__name__}' has no place in a row")


def insert_proven(conn: sqlite3.Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Insert rows, replacing those of the same key; values as of `columns`, each row with its CRC.

    Rows are numbered here where the table's own key is not among `columns`; `rowid` may be among them.
    """
    declared = columns_of(conn, table)
    plain = [name for name, kind in declared.items() if name in columns and kind != "BLOB"]
    numbered = _own_number(conn, table) if not {*columns} >= {*declared} - {CRC} else None
    number = 0
    if numbered is not None and numbered not in columns:
        number = conn.execute(f'select coalesce(max("{numbered}"), 0) from "{table}"').fetchone()[0]
        columns, plain = (numbered, *columns), [name for name in declared if name in (numbered, *plain)]
        rows = ((number + i, *row) for i, row in enumerate(rows, 1))
    if CRC not in declared:  # a step of the schema from before there were CRCs
        columns_and_crc, crc_too = tuple(columns), False
    else:
        columns_and_crc, crc_too = (*columns, CRC), True
    names = ", ".join(f'"{name}"' for name in columns_and_crc)
    marks = ", ".join("?" * len(columns_and_crc))
    place = [columns.index(name) for name in plain]
    kinds = [declared.get(name, "INTEGER") for name in columns]  # `rowid` is no column of the table

    def proven() -> Iterable[list[Any]]:
        for row in rows:
            values = [as_stored(value, kind) for value, kind in zip(row, kinds, strict=True)]
            if crc_too:
                values.append(row_crc(table, plain, (values[i] for i in place)))
            yield values

    conn.executemany(f'insert or replace into "{table}" ({names}) values ({marks})', proven())


def _own_number(conn: sqlite3.Connection, table: str) -> str | None:
    """The column that is the rowid, if the table has one."""
    keys = conn.execute("select name, type from pragma_table_info(?) where pk > 0", (table,)).fetchall()
    return keys[0][0] if len(keys) == 1 and keys[0][1] == "INTEGER" else None


def prove_again(conn: sqlite3.Connection, table: str, where: str = "1", parameters: Sequence[Any] = ()) -> None:
    """Give rows that an update changed their CRC."""
    names = [name for name, kind in columns_of(conn, table).items() if name != CRC and kind != "BLOB"]
    chosen = ", ".join(f'"{name}"' for name in names)
    after = -(2**63)
    page = f'select rowid, {chosen} from "{table}" where ({where}) and rowid > ? order by rowid limit {PAGE_ROWS}'
    while found := conn.execute(page, (*parameters, after)).fetchall():
        after = found[-1][0]
        crcs = [(row_crc(table, names, values), rowid) for rowid, *values in found]
        conn.executemany(f'update "{table}" set {CRC} = ? where rowid = ?', crcs)


def add_proof(conn: sqlite3.Connection, tables: Sequence[str], packed: Sequence[str] = ()) -> None:
    """A step of the schema: CRCs for every row there is, tallies, and the triggers that keep these."""
    conn.execute(
        "create table if not exists tallies (table_name TEXT PRIMARY KEY, rows INTEGER, rowids INTEGER, crcs INTEGER)"
    )
    for table in tables:
        conn.execute(f'alter table "{table}" add column {CRC} INTEGER')
        prove_again(conn, table)
    for table in (*tables, *packed):
        crc = CRC if table in tables else "crc32"
        conn.execute(f"insert into tallies {tally_of(table, crc)}")
        for trigger in _triggers(table, crc):
            conn.execute(trigger)


def tally_of(table: str, crc: str) -> str:
    """SQL for the row of `tallies` that `table` should have; walks the table itself, never an index."""
    sums = f"count(*), ifnull(sum(rowid), 0), ifnull(sum({crc}), 0)"
    return f"select '{table}', {sums} from \"{table}\" not indexed"


def _triggers(table: str, crc: str) -> list[str]:
    def on(what: str, change: str) -> str:
        return (
            f'create trigger "tally_{what}_{table}" after {what} on "{table}" begin '
            f"update tallies set {change} where table_name = '{table}'; end"
        )

    new, old = f"ifnull(new.{crc}, 0)", f"ifnull(old.{crc}, 0)"
    return [
        on("insert", f"rows = rows + 1, rowids = rowids + new.rowid, crcs = crcs + {new}"),
        on("delete", f"rows = rows - 1, rowids = rowids - old.rowid, crcs = crcs - {old}"),
        on("update", f"rowids = rowids + new.rowid - old.rowid, crcs = crcs + {new} - {old}"),
    ]
