"""A new run file of everything that check sums vouch for in a damaged one.

Rows are read by SQLite as far as it can, then looked for in every page of the file and of its log, live or not: a row's
CRC names its table, so that it is known wherever it is found. Of a row that is there in several versions the one that
SQLite still reads counts, else the one with the highest number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.errors import StoreError, StoreReason
from daemon.store.axial import is_sound
from daemon.store.check import blobs_intact, check_file
from daemon.store.codec import checksum, matches
from daemon.store.faults import translated
from daemon.store.pages import Value, rows_of_pages
from daemon.store.proof import BLOBS, CRC, PACKED_TABLES, RUN_TABLES, columns_of, insert_proven, is_intact
from daemon.store.rows import CHUNK_FIELDS, set_metadata
from daemon.store.schema import RUN, finish_file, open_writing, remove_files
from daemon.store.sqlite import Database

COMMIT_ROWS = 5000
MAX_ROWID = 1 << 40  # no check sum vouches for it, and the tallies add them up
PLACE = {"chunk_columns": ("chunk_id", "per", "column"), "metadata": ("key",), "ensemble": ("t_s",)}
for _table in ("cycles", "fronts"):
    PLACE[_table] = ("particle_id", "cycle", "half")
PLACE |= {"health": ("particle_id", "cycle"), "rates": ("particle_id", "cycle", "half", "step")}


@dataclass
class SalvageReport:
    """What came over and what is known to be lost."""

    recovered: dict[str, int] = field(default_factory=dict)
    """Rows by table."""
    unread: list[str] = field(default_factory=list)
    """What SQLite could not read, in sentences."""
    from_pages: int = 0
    """Of the rows those that SQLite no longer reads."""
    expected: dict[str, int] = field(default_factory=dict)
    """Rows by table that there were, where the file still tells."""
    unproven: int = 0
    """Of the rows those without a CRC of their own (a file of an earlier version), as SQLite read them."""

    @property
    def lost(self) -> dict[str, int]:
        """Rows by table that are known to be missing."""
        short = {table: count - self.recovered.get(table, 0) for table, count in self.expected.items()}
        return {table: count for table, count in short.items() if count > 0}


def salvage(path: Path, out: Path, progress: Callable[[str], None] = lambda text: None) -> SalvageReport:
    """Write the new run file `out`; `path` is only read. Blocks.

    Raises `StoreError`: EXISTS, CORRUPT when nothing at all could be recovered, what keeps either file from use.
    """
    if not path.exists():
        raise StoreError(StoreReason.NOT_A_RUN, f"there is no file {path}")
    report = SalvageReport()
    db = open_writing(out, RUN, create=True)
    try:
        with closing(db), translated(out, "cannot write"):
            _Salvage(path, db, report, progress).run()
            if not report.recovered:
                raise StoreError(StoreReason.CORRUPT, f"nothing in {path} is vouched for by a check sum")
            finish_file(db)
        check = check_file(out)
        if not check.is_sound:
            report.unread += [f"the new file: {finding}" for finding in check.findings]
    except BaseException:
        remove_files(out)
        raise
    return report


class _Salvage:
    def __init__(self, path: Path, db: Database, report: SalvageReport, progress: Callable[[str], None]) -> None:
        self._path = path
        self._db = db
        self._report = report
        self._progress = progress
        self._columns = {table: columns_of(db.conn, table) for table in (*RUN_TABLES, *PACKED_TABLES)}
        self._by_width: dict[int, list[str]] = {}
        for table, columns in self._columns.items():
            self._by_width.setdefault(len(columns), []).append(table)
        self._seen: dict[str, dict[Any, int]] = {table: {} for table in self._columns}
        self._key = {table: _own_number(db.conn, table) for table in self._columns}

    def run(self) -> None:
        self._progress("reading with SQLite")
        self._write(self._by_sqlite())
        before = sum(len(seen) for seen in self._seen.values())
        self._progress("looking through the pages")
        self._write(self._by_pages())
        self._report.recovered = {table: len(seen) for table, seen in self._seen.items() if seen}
        self._report.from_pages = sum(self._report.recovered.values()) - before
        if self._report.recovered:
            self._describe()

    def _write(self, found: Iterator[tuple[str, int, dict[str, Any]]]) -> None:
        self._db.conn.execute("BEGIN")
        for count, (table, rowid, row) in enumerate(found, 1):
            self._insert(table, rowid, row)
            if count % COMMIT_ROWS == 0:
                self._db.conn.execute("COMMIT")
                self._db.conn.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self._db.conn.execute("BEGIN")
        self._db.conn.execute("COMMIT")

    def _insert(self, table: str, rowid: int, row: dict[str, Any]) -> None:
        """Under its own number, so that the order stays; not over one that counts more."""
        place = tuple(row[name] for name in PLACE[table]) if table in PLACE else rowid
        known = self._seen[table].get(place)
        if known is not None and known >= rowid:
            return
        self._seen[table][place] = rowid
        conn, values = self._db.conn, {name: value for name, value in row.items() if name != CRC}
        if self._key[table] is None and 0 < rowid <= MAX_ROWID and not self._has(table, rowid):
            values["rowid"] = rowid
        if table in RUN_TABLES:
            insert_proven(conn, table, [*values], [[*values.values()]])
            return
        columns = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join("?" * len(values))
        conn.execute(f'insert or replace into "{table}" ({columns}) values ({marks})', [*values.values()])

    def _has(self, table: str, rowid: int) -> bool:
        """Of two rows with different keys that claim one number, as a damaged one does, the first keeps it."""
        found = self._db.conn.execute(f'select exists (select 1 from "{table}" where rowid = ?)', (rowid,))
        return bool(found.fetchone()[0])

    def _by_sqlite(self) -> Iterator[tuple[str, int, dict[str, Any]]]:
        try:
            source = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)
        except sqlite3.Error as error:
            self._report.unread.append(f"the file cannot be opened: {error}")
            return
        with closing(source):
            source.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
            try:
                self._report.expected = dict(source.execute("select table_name, rows from tallies"))
            except (sqlite3.Error, UnicodeDecodeError) as error:
                self._report.unread.append(f"how many rows there were: {error}")
            for table in self._columns:
                yield from self._table(source, table)

    def _table(self, source: sqlite3.Connection, table: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
        try:
            cursor = source.execute(f'select rowid, * from "{table}" not indexed')
            names = [column[0] for column in cursor.description][1:]
            for rowid, *values in cursor:
                row = {name: value for name, value in zip(names, values, strict=True) if name in self._columns[table]}
                if table in RUN_TABLES and CRC not in row:
                    self._report.unproven += 1
                    yield table, rowid, row
                elif vouched(table, row):
                    yield table, rowid, row
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if "no such table" not in str(error):
                self._report.unread.append(f"'{table}': {error}")

    def _by_pages(self) -> Iterator[tuple[str, int, dict[str, Any]]]:
        for rowid, values in rows_of_pages(self._path):
            for table in self._by_width.get(len(values), ()):
                row = self._as_row(table, rowid, values)
                if vouched(table, row):
                    yield table, rowid, row
                    break

    def _as_row(self, table: str, rowid: int, values: list[Value]) -> dict[str, Any]:
        """Values as SQLite would return them: the key that is the rowid is not stored, whole numbers are integers."""
        row: dict[str, Any] = {}
        for (name, kind), value in zip(self._columns[table].items(), values, strict=True):
            if name == self._key[table] and value is None:
                row[name] = rowid
            else:
                row[name] = float(value) if kind == "REAL" and isinstance(value, int) else value
        return row

    def _describe(self) -> None:
        """So that the new file says what it is, also when its own metadata are lost."""
        known = {key for (key,) in self._db.conn.execute("select key from metadata")}
        told: dict[str, Any] = {"salvaged_from": self._path.name}
        if "run_id" not in known:
            told |= {"run_id": self._path.name.split(".db")[0], "state": "interrupted"}
        with self._db.atomic():
            set_metadata(self._db.conn, told)


def vouched(table: str, row: dict[str, Any]) -> bool:
    """Whether CRCs say that `row`, with all its columns, is a row of `table` as it was written."""
    try:
        if table == "chunks":
            return checksum(b"", *(row[name] for name in CHUNK_FIELDS)) == row["crc32"]
        if table == "chunk_columns":
            return matches(row["blob"], row["crc32"], row["chunk_id"], row["per"], row["column"], row["codec"])
        if table == "axial":
            return is_sound(row)
        blobs = BLOBS.get(table, ())
        plain = {name: value for name, value in row.items() if name not in blobs}
        return is_intact(table, plain) and blobs_intact(table, row)
    except (StoreError, TypeError, KeyError, ValueError):
        return False


def _own_number(conn: sqlite3.Connection, table: str) -> str | None:
    keys = conn.execute("select name, type from pragma_table_info(?) where pk > 0", (table,)).fetchall()
    return keys[0][0] if len(keys) == 1 and keys[0][1] == "INTEGER" else None
