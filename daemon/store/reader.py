"""Read-only views of run files and the catalogue, safe beside the writer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daemon.errors import StoreError, StoreReason
from daemon.events import Event
from daemon.mask_edits import MaskVersion
from daemon.parts import RunSummary
from daemon.store.axial import AxialBlocks, axial_blocks, is_sound
from daemon.store.chunks import CHUNK_COLUMNS, CHUNK_ROW, Place, join, join_wide, picked, proven, sound_rows
from daemon.store.clips import StoredClip, clip_of
from daemon.store.codec import matches, unpack_array
from daemon.store.proof import BLOBS, CATALOGUE_BLOBS
from daemon.store.reading import FOR_EVER, Reader, understood
from daemon.store.recent import Recent
from daemon.store.rows import calibration_of, event_of, front_series, run_summary
from daemon.store.schema import CATALOGUE, RUN
from daemon.tables import AXIS, CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS, ROW_TABLES

RECENT = Recent()

Names = Sequence[str]
Indices = Sequence[int] | np.ndarray | None


@dataclass(frozen=True)
class RowPage:
    """Rows of a table, and after which to go on; None when there were no more."""

    rows: list[dict[str, Any]]
    next_after: int | None


@dataclass(frozen=True)
class ChunkData:
    """Consecutive frames: (N,) arrays a frame and (N, P) arrays a frame and particle, by column name."""

    chunk_id: int
    frame_columns: dict[str, np.ndarray]
    particle_columns: dict[str, np.ndarray]


class RunReader(Reader):
    """One run file. Values that are not known are None in rows, NaN in arrays and events.

    Times are run time in seconds; `from_s` and `to_s` are inclusive, None is open. Every method raises `StoreError`
    (CORRUPT) when SQLite finds damage; a damaged chunk is left out and counted in `corrupt_chunks` instead.
    """

    kind = RUN
    blobs = BLOBS

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.corrupt_chunk_ids: set[int] = set()
        """Chunks found damaged or missing so far."""

    @property
    def corrupt_chunks(self) -> int:
        """How many chunks were found damaged or missing so far."""
        return len(self.corrupt_chunk_ids)

    def metadata(self) -> dict[str, Any]:
        """What the run says of itself."""
        with understood(self.path, "metadata"):
            return {row["key"]: json.loads(row["value"]) for row in self._rows("metadata")}

    def particles(self, only: Iterable[int] | None = None) -> list[dict[str, Any]]:
        """What the `particles` export has, `particle_index`, `layer_sigma_ratio` (4), by index; of the ids `only`."""
        axes = {row["particle_id"]: row for row in self.axes(only)}
        found = self._of_particles("particles", only, "particle_index")
        found = [row | {name: axes.get(row["particle_id"], {}).get(name) for name in AXIS} for row in found]
        return [_parsed(self.path, row, ("layer_sigma_ratio",)) for row in found]

    def calibrations(self, only: Iterable[int] | None = None) -> list[dict[str, Any]]:
        """The latest of each particle, or of those with the ids `only`, as it was put."""
        return self._parsed_rows("calibrations", self._of_particles("calibrations", only, "particle_id"))

    def _of_particles(self, table: str, only: Iterable[int] | None, order: str) -> list[dict[str, Any]]:
        where = "1" if only is None else "particle_id in (select value from json_each(?))"
        values = () if only is None else (json.dumps([int(each) for each in only]),)
        return self._rows(table, where, values, order=order)

    def events(
        self, after_event_id: int = 0, limit: int = FOR_EVER, particle_id: int | None = None, kind: str | None = None
    ) -> list[Event]:
        """In order of `event_id`."""
        run_id = str(self.metadata().get("run_id", ""))
        asked = {"particle_id": particle_id, "kind": kind}
        asked = {name: value for name, value in asked.items() if value is not None}
        where = " and ".join(("1", *(f"{name} = ?" for name in asked)))
        if asked:
            self._prove_all("events")
        found = self._intact("events", self._after("events", after_event_id, limit, where, tuple(asked.values())))
        with understood(self.path, "events"):
            return [event_of(row, run_id) for row in found]

    def page(
        self,
        table: str,
        after: int = 0,
        limit: int = FOR_EVER,
        *,
        particle_id: int | None = None,
        cycle: int | None = None,
        half: str | None = None,
    ) -> RowPage:
        """At most `limit` rows of one of `daemon.tables.ROW_TABLES`, with its columns, of those written after `after`.

        Only of the particle, cycle and half where given (the table must have the column). In the order of the table
        within the page. None in columns that an older file does not have; no rows where it has no such table.
        """
        known = ROW_TABLES[table]
        only = {"particle_id": particle_id, "cycle": cycle, "half": half}
        asked = {name: value for name, value in only.items() if value is not None}
        where = " and ".join(("1", *(f"{name} = ?" for name in asked)))
        if asked:
            self._prove_all(table)
        found = self._after(table, after, limit, where, tuple(asked.values()))
        last, full = max((row["_rowid"] for row in found), default=after), len(found) == limit
        whole = self._parsed_rows(table, self._intact(table, found))
        rows = [{name: row.get(name) for name in known.columns} for row in whole]
        rows.sort(key=lambda row: tuple((row[name] is not None, row[name]) for name in known.order))
        return RowPage(rows, last if full else None)

    def cycles(self, particle_id: int | None = None) -> list[dict[str, Any]]:
        """Every half cycle, by cycle."""
        return self.page("cycles", particle_id=particle_id).rows

    def health(self, particle_id: int | None = None) -> list[dict[str, Any]]:
        """How particles age, cycle by cycle. None of an older file."""
        return self.page("health", particle_id=particle_id).rows

    def rates(self, particle_id: int | None = None) -> list[dict[str, Any]]:
        """Reaction rates after potential steps, by time. None of an older file."""
        return self.page("rates", particle_id=particle_id).rows

    def fronts(self, particle_id: int | None = None) -> list[dict[str, Any]]:
        """Each particle's halves: mode, reason, begin, speed, onset, end; without the series."""
        return self.page("fronts", particle_id=particle_id).rows

    def front_spans(self) -> list[dict[str, Any]]:
        """Where there are series: rowid, particle_id, cycle, half, mode, t0_s, t1_s, by time."""
        found = self._read("fronts", order="t0_s, rowid")
        rowids = [row["_rowid"] for row in found]
        names = ("particle_id", "cycle", "half", "mode", "t0_s", "t1_s")
        sound = self._intact("fronts", found)
        kept = [rowid for rowid in rowids if rowid not in self.damaged_rowids.get("fronts", ())]
        return [
            {"rowid": rowid} | {name: row[name] for name in names}
            for rowid, row in zip(kept, sound, strict=True)
            if row["points"]
        ]

    def front_series(self, rowids: Sequence[int]) -> dict[int, dict[str, np.ndarray]]:
        """Series of such rows: t_s, front_px, front_sigma_px, fraction; damaged ones are left out."""
        found: dict[int, dict[str, np.ndarray]] = {}
        for rowid in rowids:
            rows = self._rows("fronts", "rowid = ?", (rowid,), blobs=True)
            with understood(self.path, "fronts"):
                series = front_series(rows[0]) if rows else None
            if series is not None:
                found[rowid] = series
            else:
                self.damaged_rowids.setdefault("fronts", set()).add(rowid)
        return found

    def axes(self, only: Iterable[int] | None = None) -> list[dict[str, Any]]:
        """What is known of each particle's long axis, or of those with the ids `only`: `particle_id`, `axis_deg` (from
        the image's x axis, downwards), `length_px`, `axial_unknown_why`, `shift_unknown_why` (empty: known), `further`
        (what values are made of). None of an older file.
        """
        return [_parsed(self.path, row, ("further",)) for row in self._of_particles("axes", only, "particle_id")]

    def axial(self, from_s: float | None = None, to_s: float | None = None, indices: Indices = None) -> AxialBlocks:
        """Means over blocks (0.25 s) of the axial bins of the particles at `indices` (all by default), NaN but for
        rods, with a block beyond either end of the range. Damaged rows are left out. Empty of an older file.
        """
        low, high = _bounds(from_s, to_s)
        found = self._near("axial", "t0_s", low, high, blobs=True)
        rowids = [row.pop("_rowid") for row in found]
        with understood(self.path, "axial"):
            damaged = {rowid for rowid, row in zip(rowids, found, strict=True) if not is_sound(row)}
            self.damaged_rowids.setdefault("axial", set()).update(damaged)
            return axial_blocks(found, indices)

    def ensemble(self, from_s: float | None = None, to_s: float | None = None) -> list[dict[str, Any]]:
        """Rows with the columns of the `ensemble` export, by time."""
        return self._between("ensemble", "t_s", *_bounds(from_s, to_s))

    def echem(self, from_s: float | None = None, to_s: float | None = None) -> list[dict[str, Any]]:
        """Cell samples: t_s, voltage_v, current_ma (positive charges), cycle, step, step_kind, charge_mah, host_t_s."""
        return self._between("cell_samples", "t_s", *_bounds(from_s, to_s))

    def clips(self, particle_id: int | None = None) -> list[dict[str, Any]]:
        """What clips there are, by time: `clip_id`, `particle_id`, `onset_frame`, `t0_s`, `t1_s`, place and size."""
        return self.page("clips", particle_id=particle_id).rows

    def clip(self, clip_id: int) -> StoredClip | None:
        """One clip with its pixels; None when there is none. Raises `StoreError` (CORRUPT)."""
        found = self._read("clips", "+clip_id = ?", (clip_id,), blobs=True)
        if not found:
            self._prove_all("clips")
        sound = self._intact("clips", found)
        with understood(self.path, "clips"):
            clip = clip_of(sound[0]) if sound else None
        if (found or self.damaged_rows) and clip is None:
            raise StoreError(StoreReason.CORRUPT, f"clip {clip_id} of {self.path} does not match its check sum")
        return clip

    def drops(self) -> list[dict[str, Any]]:
        """Lost frames: stage, reason, count, t_s."""
        return self._rows("drops")

    def faults(self) -> list[dict[str, Any]]:
        """What failed: code, detail, t_s, host_t_s, utc."""
        return self._rows("faults")

    def mask_versions(self) -> list[MaskVersion]:
        """Oldest first; a frame belongs to the newest version whose `from_frame` it has reached."""
        found = self._rows("masks", order="version")
        with understood(self.path, "masks"):
            return [_mask_version(row) for row in found]

    def labels(self, version: int | None = None) -> np.ndarray | None:
        """(H, W) label image of a mask version, the newest by default; None when there is none."""
        row = self._mask_row(version)
        return None if row is None else self._image(row, "labels", "int32")

    def reference(self, version: int | None = None) -> np.ndarray | None:
        """(H, W) reference frame of a mask version, the newest by default; None when there is none.

        Versions share the reference of the one before unless they have their own.
        """
        row = self._mask_row(version)
        if row is not None and row["reference"] is None:
            row = self._mask_row(row["version"], "reference is not null and +version < ?")
        return None if row is None else self._image(row, "reference", row["reference_dtype"])

    def frames(self, from_s: float | None = None, to_s: float | None = None) -> dict[str, np.ndarray]:
        """(N,) arrays of every per-frame column."""
        return self.particle_columns((), None, from_s, to_s)[0]

    def particle_columns(
        self,
        columns: Sequence[str],
        indices: Sequence[int] | np.ndarray | None = None,
        from_s: float | None = None,
        to_s: float | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Per-frame columns (N,) and the named columns (N, P) of the particles at `indices` (all by default).

        Everything asked for is held in memory; `iter_chunks` is the way to walk through a long run. Where a later mask
        version added particles, earlier frames hold NaN, or 0 in integer columns, for these.
        """
        frames: dict[str, list[np.ndarray]] = {name: [] for name in CHUNK_FRAME_COLUMNS}
        values: dict[str, list[np.ndarray]] = {name: [] for name in columns}
        for chunk in self.iter_chunks(from_s, to_s, columns, indices=indices):
            for name, array in chunk.frame_columns.items():
                frames[name].append(array)
            for name, array in chunk.particle_columns.items():
                values[name].append(array)
        joined = {name: join(parts, CHUNK_FRAME_COLUMNS[name]) for name, parts in frames.items()}
        width = len(indices) if indices is not None else 0
        return joined, {name: join_wide(parts, CHUNK_PARTICLE_COLUMNS[name], width) for name, parts in values.items()}

    def iter_chunks(
        self,
        from_s: float | None = None,
        to_s: float | None = None,
        columns: Sequence[str] = tuple(CHUNK_PARTICLE_COLUMNS),
        indices: Sequence[int] | np.ndarray | None = None,
        frame_columns: Sequence[str] = tuple(CHUNK_FRAME_COLUMNS),
    ) -> Iterator[ChunkData]:
        """Chunk by chunk in time order, cut to the range: `frame_columns` (`t_s` among them) and the named per-particle
        `columns` of the particles at `indices`. A chunk with damage in any of these is skipped and counted.
        """
        for row in self._chunk_rows(from_s, to_s):
            chunk = self._load(dict(zip(CHUNK_COLUMNS, row.item(), strict=True)), columns, frame_columns, indices)
            cut = None if chunk is None else _cut(chunk, _bounds(from_s, to_s))
            if cut is not None:
                yield cut

    def iter_rows(
        self, table: str, page: int = 20_000, columns: Sequence[str] | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """Every row of an ordinary table in the order written, a page at a time; nothing stays locked in between.

        With `columns` only these, as far as the file has them; no rows of a table that an older file does not have.
        """
        after = 0
        while found := self._after(table, after, page):
            after = max(after + 1, *(row["_rowid"] for row in found))  # rises also where rowids are damaged
            rows = self._parsed_rows(table, self._intact(table, found))
            yield rows if columns is None else [{name: row.get(name) for name in columns} for row in rows]

    def last_chunk_id(self) -> int:
        """Number of the newest chunk; they count from 1."""
        return int(self._chunk_rows(None, None)["chunk_id"].max(initial=0))

    def frame_count(self) -> int:
        """Frames stored."""
        return int(self._chunk_rows(None, None)["frames"].sum())

    def time_range(self) -> tuple[float, float] | None:
        """First and last `t_s` of the stored frames; None without frames."""
        rows = self._chunk_rows(None, None)
        return (float(rows["t0_s"].min()), float(rows["t1_s"].max())) if len(rows) else None

    def _parsed_rows(self, table: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of `calibrations` with their JSON as values, those of other tables as they are."""
        if table != "calibrations":
            return found
        with understood(self.path, table):
            return [calibration_of(row) for row in found]

    def _chunk_rows(self, from_s: float | None, to_s: float | None) -> np.ndarray:
        """(N,) `CHUNK_ROW`, sound ones: of the range, and of a chunk either side, so that a damaged time cannot hide a
        chunk between two others.
        """
        orphans = (
            "select distinct chunk_id from chunk_columns where chunk_id > (select ifnull(max(chunk_id), 0) from chunks)"
        )
        self.corrupt_chunk_ids |= {row["chunk_id"] for row in self._query(orphans)}
        low_s, high_s = _bounds(from_s, to_s)
        if not self._stored("chunks"):
            return np.empty(0, CHUNK_ROW)
        wanted = "from chunks not indexed where t1_s >= ? and t0_s <= ?"
        ids = self._query(f"select min(chunk_id) as first, max(chunk_id) as last {wanted}", (low_s, high_s))[0]
        if ids["first"] is None:  # around the place where there are none
            ids = dict(
                zip(("last", "first"), self._extent("chunks", "t0_s", high_s, high_s, "not indexed"), strict=True)
            )
        first, last = sorted((ids["first"] - 1, ids["last"] + 1))
        self._tally("chunks")
        walk = f"select {', '.join(CHUNK_COLUMNS)} from chunks not indexed where +chunk_id between ? and ?"
        sound, damaged = self._fetched(sound_rows, f"{walk} order by rowid", (first, last))
        self.corrupt_chunk_ids |= damaged
        return sound

    def _load(self, row: dict[str, Any], columns: Names, frame_columns: Names, indices: Indices) -> ChunkData | None:
        """Those of a few particles are kept for whoever asks for others of them next."""
        places: list[Place] = [*(("frame", name) for name in frame_columns), *(("particle", name) for name in columns)]
        keys = {place: (*self._identity, row["chunk_id"], row["crc32"], *place) for place in places}
        found = {} if indices is None else {place: held for place in places if (held := RECENT.get(keys[place]))}
        missing = [place for place in places if place not in found]
        try:
            stored = self._columns_of(row["chunk_id"], missing) if missing else {}
            for place in missing:
                found[place] = proven(row, place, stored)
                if indices is not None:
                    RECENT.put(keys[place], found[place])
        except StoreError as error:
            if error.reason is not StoreReason.CORRUPT:
                raise
            self.corrupt_chunk_ids.add(row["chunk_id"])
            return None
        frame = {name: found["frame", name].values() for name in frame_columns}
        particle = {name: picked(found["particle", name], row["particles"], indices) for name in columns}
        return ChunkData(row["chunk_id"], frame, particle)

    def _columns_of(self, chunk_id: int, places: Sequence[Place]) -> dict[Place, dict[str, Any]]:
        names = sorted({name for _, name in places})
        sql = 'select per, "column", codec, crc32, blob from chunk_columns where chunk_id = ?'
        sql += f' and "column" in ({", ".join("?" * len(names))})'
        return {(each["per"], each["column"]): each for each in self._query(sql, (chunk_id, *names))}

    def _mask_row(self, version: int | None, where: str = "+version = ifnull(?, version)") -> dict[str, Any] | None:
        self._prove_all("masks")
        found = self._read("masks", where, (version,), order="version desc", limit=1, blobs=True)
        sound = self._intact("masks", found)
        if len(sound) < len(found):
            raise StoreError(StoreReason.CORRUPT, f"the masks of {self.path} are damaged")
        return sound[0] if sound else None

    def _image(self, row: dict[str, Any], what: str, dtype: str) -> np.ndarray:
        if not matches(row[what], row[f"{what}_crc32"]):
            raise StoreError(StoreReason.CORRUPT, f"the {what} image of {self.path} is damaged")
        return unpack_array(what, row[what], dtype, (row["height"], row["width"]))


class CatalogueReader(Reader):
    """The catalogue: which runs there are, and every event of the instrument."""

    kind = CATALOGUE
    blobs = CATALOGUE_BLOBS

    def runs(self, limit: int = 100) -> list[RunSummary]:
        """Newest first."""
        found = self._rows("runs", order="started_utc desc, rowid desc", limit=limit if limit >= 0 else FOR_EVER)
        with understood(self.path, "runs"):
            return [run_summary(row, self.path.parent) for row in found]

    def run(self, run_id: str) -> RunSummary | None:
        """None when there is no such run."""
        self._prove_all("runs")
        found = self._rows("runs", "run_id = ?", (run_id,))
        with understood(self.path, "runs"):
            return run_summary(found[0], self.path.parent) if found else None

    def events(self, after_seq: int = 0, limit: int = 1000) -> list[Event]:
        """Events with a higher sequence number, oldest first."""
        found = self._intact("events", self._after("events", after_seq, limit))
        with understood(self.path, "events"):
            return [event_of(row) for row in found]

    def events_of(self, run_id: str) -> list[Event]:
        """Every event of a run, oldest first."""
        self._prove_all("events")
        found = self._rows("events", "run_id = ?", (run_id,), order="seq")
        with understood(self.path, "events"):
            return [event_of(row) for row in found]

    def last_seq(self) -> int:
        """Sequence number of the newest event, 0 when there is none."""
        last = self._rows("events", order="seq desc", limit=100)  # one of them will be whole
        return int(last[0]["seq"]) if last else 0

    def faults(self, limit: int = 100) -> list[dict[str, Any]]:
        """Newest first: run_id, code, detail, t_s, host_t_s, utc."""
        return self._rows("faults", order="rowid desc", limit=limit)

    def audit(self, limit: int = 100) -> list[dict[str, Any]]:
        """Newest first: utc, actor, action, detail."""
        return self._rows("audit", order="rowid desc", limit=limit)

    def instrument_calibration(self, kind: str) -> tuple[np.ndarray, dict[str, Any]] | None:
        """The newest frame of its kind (`dark`, `flat`) and its summary with `made_utc`; None without one."""
        self._prove_all("calibrations")
        found = self._read("calibrations", "kind = ?", (kind,), order="calibration_id desc", limit=1, blobs=True)
        if not found:
            return None
        sound = self._intact("calibrations", found)
        row: dict[str, Any] = sound[0] if sound else {"blob": None, "crc32": None}
        if not matches(row["blob"], row["crc32"]):
            raise StoreError(StoreReason.CORRUPT, f"the {kind} frame in {self.path} is damaged; measure it again")
        with understood(self.path, "calibrations"):
            summary = json.loads(row["summary"]) | {"made_utc": row["made_utc"]}
        return unpack_array(kind, row["blob"], row["dtype"], (row["height"], row["width"])), summary


def _mask_version(row: dict[str, Any]) -> MaskVersion:
    """A row of `masks`; a file of an earlier version of the software has one, the first, and says less of it."""
    return MaskVersion(
        version=int(row["version"]),
        from_frame=int(row.get("from_frame") or 0),
        utc=row.get("utc") or "",
        actor=row.get("actor") or "",
        edits=json.loads(row.get("edits") or "[]"),
        particles=int(row.get("particles") or 0),
    )


def _bounds(from_s: float | None, to_s: float | None) -> tuple[float, float]:
    return (-np.inf if from_s is None else from_s, np.inf if to_s is None else to_s)


def _parsed(path: Path, row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """`row` with its JSON columns as values; a column that is NULL stays None."""
    with understood(path, "particles"):
        return row | {name: json.loads(row[name]) for name in names if row[name] is not None}


def _cut(chunk: ChunkData, bounds: tuple[float, float]) -> ChunkData | None:
    t_s = chunk.frame_columns["t_s"]
    keep = (t_s >= bounds[0]) & (t_s <= bounds[1])
    if not keep.any():
        return None
    frames = {name: values[keep] for name, values in chunk.frame_columns.items()}
    values = {name: array[keep] for name, array in chunk.particle_columns.items()}
    return ChunkData(chunk.chunk_id, frames, values)
