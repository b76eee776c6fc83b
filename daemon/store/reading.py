"""What both kinds of reader share: a read-only connection, and rows that are proven before they are handed out."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from daemon.errors import StoreError, StoreReason
from daemon.store.faults import translated
from daemon.store.log_check import unseen_log_bytes
from daemon.store.proof import CRC, columns_of, is_intact
from daemon.store.schema import FileKind, is_proven, lost_columns, open_reading, steps_of
from daemon.store.sqlite import Database

FOR_EVER = 2**62
TALLY_AGAIN_S = 60.0  # a table that was found whole is not counted again for so long ...
ROWS_AT_ONCE = 5000
TALLY_SHARE = 1e-3  # ... nor more often than this share of a processor

Row = dict[str, Any]
T = TypeVar("T")
_whole_until: dict[tuple[str, int, str], float] = {}


@contextmanager
def understood(path: Path, table: str) -> Iterator[None]:
    """What no value of `table` should do is damage."""
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(StoreReason.CORRUPT, f"a row of '{table}' in {path} makes no sense: {error}") from error


def damage_headers(damage: dict[str, int]) -> dict[str, str]:
    """For an answer over HTTP, of damaged rows by table: `X-Damaged-Rows` with `table=count, ...`, nothing without."""
    counts = ", ".join(f"{table}={count}" for table, count in damage.items() if count)
    return {"X-Damaged-Rows": counts} if counts else {}


class Reader:
    """A read-only connection, opened on first use, for one thread at a time.

    Rows that do not match their CRC are left out and counted, rows that a table lacks are counted, in `damaged_rows`.
    Files from before rows had CRCs are read as they are.
    """

    kind: FileKind
    blobs: dict[str, tuple[str, ...]]
    """Columns that row CRCs leave out, by table."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.damaged_rowids: dict[str, set[int]] = {}
        """Rows found damaged so far, by table."""
        self.missing_rows: dict[str, int] = {}
        """How many rows are missing (or there twice) of each table read so far."""
        self._counted: set[str] = set()
        self._columns: dict[str, dict[str, str]] = {}
        self._db: Database | None = None
        self._identity: tuple[str, int] = ("", 0)
        """Path and inode."""
        self._proven = False
        self._steps: frozenset[str] = frozenset()

    @property
    def damaged_rows(self) -> int:
        """Rows left out because they are damaged, or missing, as far as was read."""
        return sum(map(len, self.damaged_rowids.values())) + sum(self.missing_rows.values())

    @property
    def damage(self) -> dict[str, int]:
        """The same by table."""
        tables = (*self.damaged_rowids, *self.missing_rows)
        return {each: len(self.damaged_rowids.get(each, ())) + self.missing_rows.get(each, 0) for each in tables}

    @property
    def damage_headers(self) -> dict[str, str]:
        """`damage_headers` of what was read so far."""
        return damage_headers(self.damage)

    def open(self) -> Self:
        """Open now rather than on first use. Raises `StoreError`."""
        if self._db is None:
            self._db = open_reading(self.path, self.kind)
            try:
                self._identity = (str(self.path), self.path.stat().st_ino)
                with translated(self.path, "cannot read"):
                    self._steps = steps_of(self._db, self.kind, self.path)
                    self._proven = is_proven(self._db, self._steps, self.path)
                if unseen_log_bytes(self.path):
                    self.missing_rows["log"] = 1  # how many rows, nobody knows
            except BaseException:
                self.close()
                raise
        return self

    def close(self) -> None:
        """Safe to repeat; the reader opens again when used again."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return self._fetched(_dicts, sql, parameters)

    def _fetched(self, made: Callable[[sqlite3.Cursor], T], sql: str, parameters: Sequence[Any] = ()) -> T:
        """What is `made` of all rows at once, so that no read transaction stays open and holds up the writer's
        checkpoints.
        """
        self.open()
        assert self._db is not None
        conn = self._db.conn
        with translated(self.path, "cannot read"):
            try:
                return made(conn.execute(sql, parameters))
            except (sqlite3.OperationalError, UnicodeDecodeError) as error:
                if "decode" not in str(error):
                    raise
                conn.text_factory = lambda text: text.decode("utf-8", "surrogateescape")  # their CRC will not match
                return made(conn.execute(sql, parameters))

    def _stored(self, table: str) -> dict[str, str]:
        """Declared types by column; empty in a file from before the table was."""
        if table not in self._columns:
            self.open()
            assert self._db is not None
            with translated(self.path, "cannot read"):
                self._columns[table] = columns_of(self._db.conn, table)
                lost = lost_columns(self._db, self.kind, self._steps, table) if self._proven else []
            if lost:
                del self._columns[table]
                raise StoreError(StoreReason.CORRUPT, f"table '{table}' of {self.path} has lost {', '.join(lost)}")
        return self._columns[table]

    def _read(
        self, table: str, where: str = "1", parameters: Sequence[Any] = (), *, order: str = "rowid",
        limit: int = FOR_EVER, blobs: bool = False, indexed: bool = False,
    ) -> list[Row]:  # fmt: skip
        """Rows as they are, with `_rowid`; see `_intact`.

        Walks the table unless `indexed`: an index that is damaged hides rows. For the same reason a condition on the
        rowid is written `+rowid`, unless what the walk begins with is looked at.
        """
        stored = self._stored(table)
        if not stored:
            return []
        self._tally(table)
        left_out = () if blobs else self.blobs.get(table, ())
        names = ", ".join(("rowid as _rowid", *(f'"{name}"' for name in stored if name not in left_out)))
        walk = "" if indexed else "not indexed"
        return self._query(
            f'select {names} from "{table}" {walk} where {where} order by {order} limit ?', (*parameters, limit)
        )

    def _rows(self, table: str, where: str = "1", parameters: Sequence[Any] = (), **how: Any) -> list[Row]:
        """Rows that are whole, as of `_read`."""
        return self._intact(table, self._read(table, where, parameters, **how))

    def _intact(self, table: str, found: list[Row]) -> list[Row]:
        """Those that match their CRC, without it and `_rowid`; the others are counted."""
        blobs, sound = self.blobs.get(table, ()), []
        for row in found:
            rowid = row.pop("_rowid")
            proof = {name: value for name, value in row.items() if name not in blobs} if blobs else row
            if self._proven and not is_intact(table, proof):
                self.damaged_rowids.setdefault(table, set()).add(rowid)
                continue
            row.pop(CRC, None)
            sound.append(row)
        return sound

    def _after(self, table: str, after: int, limit: int, where: str = "1", parameters: Sequence[Any] = ()) -> list[Row]:
        """Like `_read`, of the first `limit` rows with a higher rowid; 0 begins at the first.

        A search in a damaged tree can end anywhere: it counts only when it finds the very row it was to begin after.
        """
        if after > 0:
            sql = f'select rowid as _rowid from "{table}" where rowid >= ? order by rowid limit 1'
            begin = self._query(sql, (after,)) if self._stored(table) else []
            where = f"({where}) and {'' if begin == [{'_rowid': after}] else '+'}rowid > ?"
            parameters = (*parameters, after)
        return self._read(table, where, parameters, limit=limit)

    def _between(self, table: str, column: str, low: float, high: float) -> list[Row]:
        """Whole rows by `column`, both ends included."""
        sound = self._intact(table, self._near(table, column, low, high))
        kept = [row for row in sound if row[column] is not None and low <= row[column] <= high]
        kept.sort(key=lambda row: row[column])
        return kept

    def _near(self, table: str, column: str, low: float, high: float, *, blobs: bool = False) -> list[Row]:
        """Like `_read`, of rows by `column` and those beside and between them, so that a damaged value hides nothing.

        The index on it counts where it gives consecutive rows whose neighbours lie outside; otherwise the table is
        walked.
        """
        if not self._stored(table) or (low, high) == (-math.inf, math.inf):
            return self._read(table, blobs=blobs)
        for walk in ("", "not indexed"):
            first, last = self._extent(table, column, low, high, walk)
            within = "rowid between ? and ?"
            found = self._read(table, within, (first, last), blobs=blobs, indexed=True)
            if len(found) < last - first + 1:  # rows were replaced, or a search went astray
                found = self._read(table, f"+{within}", (first, last), blobs=blobs)
            ends = [row[column] for row in found if row["_rowid"] in (first, last)]
            if not any(value is not None and low <= value <= high for value in ends):
                break
        return found

    def _extent(self, table: str, column: str, low: float, high: float, walk: str) -> tuple[int, int]:
        """Rowids just outside the rows of that range, or around the place where there are none."""
        of = f'from "{table}" {walk} where "{column}"'
        sql = f"select min(rowid) as first, max(rowid) as last, count(*) as count {of} between ? and ?"
        row = self._query(sql, (low, high))[0]
        if row["count"]:
            return row["first"] - 1, row["last"] + 1
        of = f'from "{table}" not indexed where "{column}"'
        sql = f"select (select max(rowid) {of} < ?) as first, (select min(rowid) {of} > ?) as last"
        row = self._query(sql, (low, high))[0]
        first = row["first"] if row["first"] is not None else (row["last"] or 1) - 1
        return first, row["last"] if row["last"] is not None else first + 1

    def _prove_all(self, table: str) -> None:
        """Before rows are chosen by what they hold: every row of the table against its CRC, unless done lately.

        A damaged row would otherwise be passed over in silence.
        """
        if not self._proven or not self._stored(table):
            return
        began_s, key = time.monotonic(), self._key(f"{table}, every row")
        if began_s < _whole_until.get(key, 0.0):
            return
        after, before = 0, self.damaged_rows
        while found := self._after(table, after, ROWS_AT_ONCE):
            after = max(after + 1, *(row["_rowid"] for row in found))
            self._intact(table, found)
        if self.damaged_rows == before and not self.missing_rows.get(table):
            _remember(key, began_s)

    def _key(self, what: str) -> tuple[str, int, str]:
        return *self._identity, what

    def _tally(self, table: str) -> None:
        """Count the rows of `table`, unless that was done a short time ago."""
        if not self._proven or table in self._counted:
            return
        self._counted.add(table)
        began_s, key = time.monotonic(), self._key(table)
        if began_s < _whole_until.get(key, 0.0):
            return
        walk = f'from "{table}" not indexed'
        sql = (
            f"select rows, rowids, (select count(*) {walk}) as counted, (select ifnull(sum(rowid), 0) {walk}) as summed"
        )
        sql += " from tallies where table_name = ?"
        found = self._query(sql, (table,))
        tally: Row = found[0] if found else {"rows": None, "rowids": None, "counted": 0, "summed": 0}
        if (tally["rows"], tally["rowids"]) == (tally["counted"], tally["summed"]):
            _remember(key, began_s)
            return
        known = tally["rows"] if isinstance(tally["rows"], int) else 0
        self.missing_rows[table] = max(1, abs(known - tally["counted"]))


def _remember(key: tuple[str, int, str], began_s: float) -> None:
    now_s = time.monotonic()
    if len(_whole_until) > 10_000:  # a few hundred runs; more are not looked at within minutes
        _whole_until.clear()
    _whole_until[key] = now_s + max(TALLY_AGAIN_S, (now_s - began_s) / TALLY_SHARE)


def forget_tallies() -> None:
    """Count tables again when they are read next."""
    _whole_until.clear()


def _dicts(cursor: sqlite3.Cursor) -> list[Row]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
