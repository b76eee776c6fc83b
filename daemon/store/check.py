"""The full check of a file: its structure, the CRC of every row and blob, and whether a row is missing.

Reads everything once, so it belongs into idle time: `stop` is asked at least every few thousand rows, and every 10,000
steps inside SQLite's own `integrity_check`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.errors import StoreError, StoreReason
from daemon.store.axial import is_sound
from daemon.store.codec import checksum, matches
from daemon.store.faults import is_damage, translated
from daemon.store.held import held_bytes
from daemon.store.log_check import lost_log_bytes
from daemon.store.proof import (
    BLOBS,
    CATALOGUE_BLOBS,
    CATALOGUE_TABLES,
    CRC,
    RUN_TABLES,
    columns_of,
    is_intact,
    tally_of,
)
from daemon.store.reading import Row
from daemon.store.rows import CHUNK_FIELDS, front_series
from daemon.store.schema import CATALOGUE, RUN, FileKind, is_proven, lost_columns, open_reading, steps_of
from daemon.store.sqlite import Database

STEPS_BETWEEN_STOPS = 10_000  # of SQLite's machine: about a millisecond
ROWS_AT_ONCE = 500
MAX_FINDINGS = 20


@dataclass
class CheckOutcome:
    """What a full check found. `findings` are sentences for people; the counts are exact."""

    path: Path
    findings: list[str] = field(default_factory=list)
    """The first of them; empty: nothing is wrong with what was checked."""
    rows: int = 0
    """Checked."""
    damaged_rows: int = 0
    missing_rows: int = 0
    has_proof: bool = True
    """False for a file from before rows had CRCs: only its structure and its blobs were checked."""
    finished: bool = False
    """False when it was told to stop."""
    took_s: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether everything was checked and nothing was found."""
        return self.finished and not self.findings

    def found(self, finding: str) -> None:
        """Note what is wrong."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)


class _Stopped(Exception):
    """`stop` said so."""


def check_file(path: Path, stop: Callable[[], bool] = lambda: False) -> CheckOutcome:
    """Check a run file or the catalogue, without changing it. Blocks for as long as reading all of it takes.

    What keeps the file from being read at all (not found, empty, newer, not permitted) is raised as `StoreError`;
    damage is told in the outcome, also when nothing can be read for it or the file does not look like one of ours.
    """
    outcome, began_s = CheckOutcome(path), time.monotonic()
    try:
        _check(path, outcome, stop)
        outcome.finished = True
    except _Stopped:
        outcome.finished = False
    except StoreError as error:
        if not is_damage(error, path):
            raise
        outcome.found(error.detail)
        outcome.finished = True
    outcome.took_s = time.monotonic() - began_s
    return outcome


def _check(path: Path, outcome: CheckOutcome, stop: Callable[[], bool]) -> None:
    with translated(path, "cannot read"):
        if not path.is_file():
            raise StoreError(StoreReason.NOT_A_RUN, f"there is no file {path}")
    kind = kind_of(path)
    with closing(open_reading(path, kind)) as db, translated(path, "cannot read"):
        db.conn.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        db.conn.set_progress_handler(stop, STEPS_BETWEEN_STOPS)
        try:
            db.conn.execute("BEGIN")  # rows and their tallies as of one moment: somebody may be writing
            steps = steps_of(db, kind, path)
            outcome.has_proof = is_proven(db, steps, path)
            if lost := lost_log_bytes(path):
                outcome.found(f"{lost} bytes of committed changes in the log are damaged")
            _structure(db, outcome)
            if outcome.has_proof:
                for table in RUN_TABLES if kind is RUN else CATALOGUE_TABLES:
                    if columns := lost_columns(db, kind, steps, table):
                        outcome.found(f"table '{table}' has lost {', '.join(columns)}")
                    _table(db, table, outcome, stop, BLOBS if kind is RUN else CATALOGUE_BLOBS)
            if kind is RUN:
                _chunks(db, outcome, stop)
                _packed(db, outcome, stop)
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                raise _Stopped from None
            raise


def kind_of(path: Path) -> FileKind:
    """By the application id, in the header or in a log that was not moved yet; a run file where neither says."""
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with translated(path, "cannot read"), closing(sqlite3.connect(uri, uri=True)) as conn:
        application_id = int.from_bytes(held_bytes(path, 4, 68), "big")
        with suppress(sqlite3.Error):
            application_id = conn.execute("PRAGMA application_id").fetchone()[0] or application_id
    return CATALOGUE if application_id == CATALOGUE.application_id else RUN


def _structure(db: Database, outcome: CheckOutcome) -> None:
    for (line,) in db.conn.execute(f"PRAGMA integrity_check({MAX_FINDINGS})"):
        if line != "ok":
            outcome.found(line)


def _walk(db: Database, table: str, stop: Callable[[], bool]) -> Iterator[Row]:
    """Every row with its rowid, BLOBs included."""
    cursor = db.conn.execute(f'select rowid as _rowid, * from "{table}" not indexed')
    names = [column[0] for column in cursor.description]
    while found := cursor.fetchmany(ROWS_AT_ONCE):
        if stop():
            raise _Stopped
        yield from (dict(zip(names, row, strict=True)) for row in found)


def _table(
    db: Database, table: str, outcome: CheckOutcome, stop: Callable[[], bool], blobs: dict[str, tuple[str, ...]]
) -> None:
    left_out = ("_rowid", *blobs.get(table, ()))
    damaged = 0
    for row in _walk(db, table, stop):
        outcome.rows += 1
        plain = {name: value for name, value in row.items() if name not in left_out}
        damaged += not (is_intact(table, plain) and blobs_intact(table, row))
    if damaged:
        outcome.damaged_rows += damaged
        outcome.found(f"{damaged} rows of '{table}' do not match their check sums")
    _tally(db, table, CRC, outcome)


def _tally(db: Database, table: str, crc: str, outcome: CheckOutcome) -> None:
    found = db.conn.execute(tally_of(table, crc)).fetchone()
    expected = db.conn.execute("select * from tallies where table_name = ?", (table,)).fetchone()
    if found == expected:
        return
    missing = max(1, abs((expected[1] if expected and isinstance(expected[1], int) else 0) - found[1]))
    outcome.missing_rows += missing
    outcome.found(f"{missing} rows of '{table}' are missing, or there twice")


def blobs_intact(table: str, row: Row) -> bool:
    """Whether the BLOBs of a row of an ordinary table match their own CRCs."""
    if table == "fronts":
        return row["series"] is None or _reads(front_series, row)
    if table == "clips":
        return matches(row["pixels"], row["crc32"], row["particle_id"], row["t_s"])
    if table == "masks":
        images = [name for name in ("labels", "reference") if row[name] is not None or row[f"{name}_crc32"] is not None]
        return all(matches(row[name], row[f"{name}_crc32"]) for name in images)
    return "blob" not in row or matches(row["blob"], row["crc32"])


def _reads(read: Callable[[Row], Any], row: Row) -> bool:
    try:
        return read(row) is not None
    except (StoreError, TypeError, KeyError):
        return False


def _chunks(db: Database, outcome: CheckOutcome, stop: Callable[[], bool]) -> None:
    """Chunk rows and their columns. Of a file without tallies the numbers of chunks must follow each other."""
    sound, damaged = set(), 0
    for row in _walk(db, "chunks", stop):
        outcome.rows += 1
        if checksum(b"", *(row[name] for name in CHUNK_FIELDS)) == row["crc32"]:
            sound.add(row["chunk_id"])
        else:
            damaged += 1
    missing = max(sound, default=0) - len(sound) - damaged  # the number of a damaged row may be any
    if missing > 0:
        outcome.missing_rows += missing
        outcome.found(f"{missing} chunks are missing")
    columns: dict[int, int] = {}
    for row in _walk(db, "chunk_columns", stop):
        outcome.rows += 1
        if matches(row["blob"], row["crc32"], row["chunk_id"], row["per"], row["column"], row["codec"]):
            columns[row["chunk_id"]] = columns.get(row["chunk_id"], 0) + 1
        else:
            damaged += 1
    if damaged:
        outcome.damaged_rows += damaged
        outcome.found(f"{damaged} chunks or columns of chunks do not match their check sums")
    whole = max(columns.values(), default=0)
    if lacking := sum(columns.get(chunk_id, 0) < whole for chunk_id in sound):
        outcome.found(f"of {lacking} chunks columns are missing")
    if outcome.has_proof:
        _tally(db, "chunks", "crc32", outcome)
        _tally(db, "chunk_columns", "crc32", outcome)


def _packed(db: Database, outcome: CheckOutcome, stop: Callable[[], bool]) -> None:
    if not columns_of(db.conn, "axial"):
        return
    damaged = 0
    for row in _walk(db, "axial", stop):
        outcome.rows += 1
        damaged += not is_sound(row)
    if damaged:
        outcome.damaged_rows += damaged
        outcome.found(f"{damaged} rows of 'axial' do not match their check sums")
    if outcome.has_proof:
        _tally(db, "axial", "crc32", outcome)
