"""The tables of catalogue and run files, how they come to be, and how a connection is opened.

Both kinds of file carry an application id, so that `file` and the readers tell them apart, and sqlite-utils'
`_sqlite_migrations` table. Steps are only ever added; all that are pending are applied in one transaction.

A version can be gone back from: a step that an older one may ignore, as it only adds tables, columns that may be NULL,
or plain indexes, is named with a plus sign (``0031+_wear``). Unknown steps without one are refused. All steps since the
first release have one.
"""

from __future__ import annotations

import functools
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.errors import StoreError, StoreReason
from daemon.store.faults import primary_code, translated
from daemon.store.held import held_bytes
from daemon.store.proof import CATALOGUE_TABLES, PACKED_TABLES, RUN_TABLES, add_proof, columns_of
from daemon.store.sqlite import Database, Migrations
from daemon.tables import HEALTH, RATES

ADDITIVE = "+_"  # behind a step's number
BUSY_TIMEOUT_MS = 2000  # another program's short write; the queue covers two seconds many times over

catalogue_steps = Migrations("photometry-catalogue")
run_steps = Migrations("photometry-run")


@dataclass(frozen=True, eq=False)
class FileKind:
    """One kind of database file."""

    name: str
    application_id: int
    steps: Migrations


CATALOGUE = FileKind("catalogue", 0x50684374, catalogue_steps)  # "PhCt"
RUN = FileKind("run file", 0x5068526E, run_steps)  # "PhRn"


@run_steps(name="0001_metadata")
def _run_metadata(db: Database) -> None:
    db.execute(f"PRAGMA application_id = {RUN.application_id}")
    db.table("metadata").create({"key": str, "value": str}, pk="key")


@run_steps(name="0002_particles")
def _run_particles(db: Database) -> None:
    columns = {
        "particle_id": int, "particle_index": int, "parent_id": int, "y_px": float, "x_px": float, "area_px": float,
        "equivalent_diameter_um": float, "major_um": float, "minor_um": float, "aspect_ratio": float,
        "solidity": float, "nearest_neighbour_um": float, "neighbours_within_10um": int, "brightness_e": float,
        "front_mode": str, "calibration": str, "state": str, "layer_sigma_ratio": str,
    }  # fmt: skip
    db.table("particles").create(columns, pk="particle_id", not_null={"particle_index"})
    db.table("particles").create_index(["particle_index"], unique=True)


@run_steps(name="0003_calibrations")
def _run_calibrations(db: Database) -> None:
    columns = {
        "particle_id": int, "kind": str, "contrast_knots": str, "soc_knots": str, "soc_sigma": str,
        "layer_sigma_ratio": str, "further": str,
    }  # fmt: skip
    db.table("calibrations").create(columns, pk="particle_id")


@run_steps(name="0004_events")
def _run_events(db: Database) -> None:
    columns = {
        "event_id": int, "seq": int, "particle_id": int, "kind": str, "t_s": float, "detected_t_s": float,
        "magnitude": float, "magnitude_sigma": float, "score": float, "detail": str,
    }  # fmt: skip
    db.table("events").create(columns, pk="event_id")
    db.table("events").create_index(["particle_id"])


@run_steps(name="0005_cycles")
def _run_cycles(db: Database) -> None:
    columns = {
        "particle_id": int, "cycle": int, "half": str, "swing": float, "soc_start": float, "soc_end": float,
        "onset_t_s": float, "duration_s": float, "rate_per_h": float, "lag_s": float, "hysteresis_v": float,
        "retention": float,
    }  # fmt: skip
    db.table("cycles").create(columns, pk=("particle_id", "cycle", "half"))


@run_steps(name="0006_ensemble")
def _run_ensemble(db: Database) -> None:
    columns = {"t_s": float, "soc_mean": float, "soc_std": float, "active_fraction": float, "rate_cv": float}
    db.table("ensemble").create(columns, pk="t_s")


@run_steps(name="0007_cell_samples")
def _run_cell_samples(db: Database) -> None:
    columns = {
        "t_s": float, "voltage_v": float, "current_ma": float, "cycle": int, "step": int, "step_kind": str,
        "charge_mah": float, "host_t_s": float,
    }  # fmt: skip
    db.table("cell_samples").create(columns)
    db.table("cell_samples").create_index(["t_s"])


@run_steps(name="0008_drops_and_faults")
def _run_drops_and_faults(db: Database) -> None:
    db.table("drops").create({"stage": str, "reason": str, "count": int, "t_s": float})
    db.table("faults").create({"code": str, "detail": str, "t_s": float, "host_t_s": float, "utc": str})


@run_steps(name="0009_chunks")
def _run_chunks(db: Database) -> None:
    columns = {
        "chunk_id": int, "first_frame": int, "frames": int, "particles": int, "t0_s": float, "t1_s": float,
        "crc32": int,
    }  # fmt: skip
    db.table("chunks").create(columns, pk="chunk_id")
    db.table("chunks").create_index(["t1_s"])
    columns_of_chunk = {"chunk_id": int, "per": str, "column": str, "codec": str, "crc32": int, "blob": bytes}
    db.table("chunk_columns").create(columns_of_chunk)
    db.table("chunk_columns").create_index(["chunk_id", "per", "column"], unique=True)


@run_steps(name="0010_masks")
def _run_masks(db: Database) -> None:
    columns = {
        "version": int, "height": int, "width": int, "labels": bytes, "labels_crc32": int, "reference_dtype": str,
        "reference": bytes, "reference_crc32": int,
    }  # fmt: skip
    db.table("masks").create(columns, pk="version")


@run_steps(name="0011_mask_versions")
def _run_mask_versions(db: Database) -> None:
    columns = {"from_frame": int, "utc": str, "actor": str, "edits": str, "particles": int}
    for name, kind in columns.items():
        db.table("masks").add_column(name, kind)


@run_steps(name="0014_health")
def _run_health(db: Database) -> None:
    cycles: dict[str, Any] = {
        "swing_sigma": float, "rate_sigma_per_h": float, "lag_sigma_s": float, "retention_sigma": float,
        "asymmetry": float, "asymmetry_sigma": float, "unknown_why": str,
    }  # fmt: skip
    for name, kind in cycles.items():
        db.table("cycles").add_column(name, kind)
    whole = {"particle_id", "cycle", "step", "warned", "failed"}
    for table, columns, key in (
        ("health", HEALTH, ("particle_id", "cycle")),
        ("rates", RATES, ("particle_id", "cycle", "half", "step")),
    ):
        kinds = {name: int if name in whole else str if name == "half" else float for name in columns}
        db.table(table).create(kinds, pk=key)


@run_steps(name="0012_fronts")
def _run_fronts(db: Database) -> None:
    columns = {
        "particle_id": int, "cycle": int, "half": str, "mode": str, "reason": str, "begin": str, "explained": float,
        "speed_px_per_s": float, "speed_sigma_px_per_s": float, "speed_nm_per_s": float, "speed_sigma_nm_per_s": float,
        "onset_t_s": float, "end_t_s": float, "t0_s": float, "t1_s": float, "points": int, "series": bytes,
        "crc32": int,
    }  # fmt: skip
    db.table("fronts").create(columns, pk=("particle_id", "cycle", "half"))
    db.table("fronts").create_index(["t1_s"])


@run_steps(name="0015_clips")
def _run_clips(db: Database) -> None:
    columns = {
        "clip_id": int, "particle_id": int, "onset_frame": int, "t0_s": float, "t1_s": float, "y0_px": int,
        "x0_px": int, "looks": int, "height": int, "width": int, "t_s": str, "pixels": bytes, "crc32": int,
    }  # fmt: skip
    db.table("clips").create(columns, pk="clip_id")
    db.table("clips").create_index(["particle_id"])


@run_steps(name="0024_axial")
def _run_axial(db: Database) -> None:
    columns = {
        "particle_id": int, "axis_deg": float, "length_px": float, "axial_unknown_why": str, "shift_unknown_why": str,
        "further": str,
    }  # fmt: skip
    db.table("axes").create(columns, pk="particle_id")
    columns = {
        "block_id": int, "t0_s": float, "t1_s": float, "blocks": int, "particles": int, "t_s": bytes, "drift": bytes,
        "sigma": bytes, "bins": bytes, "crc32": int,
    }  # fmt: skip
    db.table("axial").create(columns, pk="block_id")
    db.table("axial").create_index(["t0_s"])


@run_steps(name="0025_proof")
def _run_proof(db: Database) -> None:
    add_proof(db.conn, RUN_TABLES, PACKED_TABLES)


@catalogue_steps(name="0001_meta")
def _catalogue_meta(db: Database) -> None:
    db.execute(f"PRAGMA application_id = {CATALOGUE.application_id}")
    db.table("meta").create({"key": str, "value": str}, pk="key")


@catalogue_steps(name="0002_runs")
def _catalogue_runs(db: Database) -> None:
    columns = {
        "run_id": str, "name": str, "state": str, "started_utc": str, "ended_utc": str, "path": str, "recipe": str,
        "frames": int, "particles": int, "reason": str, "detail": str,
    }  # fmt: skip
    db.table("runs").create(columns, pk="run_id")
    db.table("runs").create_index(["started_utc"])


@catalogue_steps(name="0003_events")
def _catalogue_events(db: Database) -> None:
    columns = {
        "seq": int, "run_id": str, "event_id": int, "particle_id": int, "kind": str, "t_s": float,
        "detected_t_s": float, "magnitude": float, "magnitude_sigma": float, "score": float, "detail": str,
    }  # fmt: skip
    db.table("events").create(columns, pk="seq")
    db.table("events").create_index(["run_id", "event_id"])


@catalogue_steps(name="0004_calibrations")
def _catalogue_calibrations(db: Database) -> None:
    columns = {
        "calibration_id": int, "kind": str, "made_utc": str, "dtype": str, "height": int, "width": int, "blob": bytes,
        "crc32": int, "summary": str,
    }  # fmt: skip
    db.table("calibrations").create(columns, pk="calibration_id")


@catalogue_steps(name="0005_audit_and_faults")
def _catalogue_audit(db: Database) -> None:
    db.table("audit").create({"utc": str, "actor": str, "action": str, "detail": str})
    columns = {"run_id": str, "code": str, "detail": str, "t_s": float, "host_t_s": float, "utc": str}
    db.table("faults").create(columns)


@catalogue_steps(name="0006_proof")
def _catalogue_proof(db: Database) -> None:
    add_proof(db.conn, CATALOGUE_TABLES)


@catalogue_steps(name="0033+_keeping")
def _catalogue_keeping(db: Database) -> None:
    for name in ("exported_utc", "exported_to", "deleting_utc", "deleted_utc"):
        db.table("runs").add_column(name, str)


def open_writing(path: Path, kind: FileKind, *, create: bool = False) -> Database:
    """The one writing connection to `path`, with every pending step applied.

    Usable from any one thread. `create` makes the file and refuses an existing one (EXISTS). Raises `StoreError`:
    NEWER before anything is touched, NOT_A_RUN, CORRUPT, NOT_WRITABLE, DISK_FULL, LOCKED.
    """
    if create:
        _create_empty(path)
    db: Database | None = None
    try:
        with translated(path, f"cannot open {kind.name}"):
            db = _connect(path, "rw")
            fresh = _check_kind(db, path, kind)
            _set_for_writing(db)
            if fresh:
                db.enable_wal()
            _apply(db, kind)
        return db
    except BaseException:
        if db is not None:
            db.close()
        if create:
            remove_files(path)
        raise


def open_reading(path: Path, kind: FileKind) -> Database:
    """A read-only connection that can neither write nor checkpoint. Raises `StoreError`."""
    if not path.exists():
        raise StoreError(StoreReason.NOT_A_RUN, f"there is no {kind.name} at {path}")
    with translated(path, f"cannot read {kind.name}"):
        db = _connect(path, "ro")
        try:
            _check_log_is_read(path)
            try:
                fresh = _check_kind(db, path, kind)
            except sqlite3.OperationalError as error:
                if not _on_read_only_medium(path, error):
                    raise
                db.close()
                db = _connect(path, "ro", immutable=True)
                fresh = _check_kind(db, path, kind)
            if fresh:
                raise StoreError(StoreReason.NOT_A_RUN, f"{path} is an empty database, not a {kind.name}")
            db.execute("PRAGMA query_only = 1")
        except BaseException:
            db.close()
            raise
    return db


def is_empty(path: Path, kind: FileKind) -> bool:
    """Whether it is a database without any table: its making was cut short. Raises `StoreError`."""
    with translated(path, f"cannot read {kind.name}"), closing(_connect(path, "ro")) as db:
        return _check_kind(db, path, kind)


def steps_of(db: Database, kind: FileKind, path: Path) -> frozenset[str]:
    """Names of the steps that the file has had. Raises `StoreError` (CORRUPT)."""
    return frozenset(_applied(db, kind, path))


def is_proven(db: Database, steps: frozenset[str], path: Path) -> bool:
    """False for a file of `steps` from before rows had CRCs. Raises `StoreError` (CORRUPT) when it cannot be told."""
    applied = any(name.endswith("_proof") for name in steps)
    tallied = db.execute("select count(*) from sqlite_master where name like 'tall%'").fetchone()[0] > 0
    if applied is not tallied:
        raise StoreError(StoreReason.CORRUPT, f"{path} has lost its check sums")
    return applied


def lost_columns(db: Database, kind: FileKind, steps: frozenset[str], table: str) -> list[str]:
    """Columns that the file's `steps` gave `table` and that it does not have, or has as another type.

    A damaged schema says other names; a row's CRC does not tell where the values are NULL.
    """
    given = _columns_given(kind, steps).get(table, {})
    return sorted(name for name, _ in given.items() - columns_of(db.conn, table).items())


def wal_path(path: Path) -> Path:
    """Where SQLite keeps the write-ahead log of the database at `path`."""
    return Path(f"{path}-wal")


def journal_path(path: Path) -> Path:
    """Where SQLite keeps what undoes half a transaction on a file without a write-ahead log."""
    return Path(f"{path}-journal")


def undo_half(path: Path) -> None:
    """Let SQLite take back what a write to a finished file left half done. Raises `StoreError`."""
    with translated(path, "cannot take back half a transaction in"), closing(_connect(path, "rw")) as db:
        db.execute("select count(*) from sqlite_master").fetchone()


def remove_files(path: Path) -> None:
    """Remove a database and the files SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def finish_file(db: Database) -> None:
    """Move everything into the main file and, when nobody reads it just now, make it one plain file without WAL."""
    db.execute("PRAGMA busy_timeout = 100")  # readers only keep it from being tidy: not worth a longer wait
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    try:
        db.disable_wal()
    except sqlite3.OperationalError as error:
        if primary_code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise


def _create_empty(path: Path) -> None:
    """Make the file and its directory entry durable, so that a power cut cannot take the name."""
    with translated(path, "cannot create"):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640))
        except FileExistsError:
            raise StoreError(StoreReason.EXISTS, f"{path} exists already") from None
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _on_read_only_medium(path: Path, error: sqlite3.OperationalError) -> bool:
    """True when SQLite only fails because it may not make its `-shm` file beside a file that has no WAL anyway.

    A journal beside it tells that the file holds half a transaction.
    """
    beside = wal_path(path).exists() or journal_path(path).exists()
    return primary_code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) and not beside


def _connect(path: Path, mode: str, immutable: bool = False) -> Database:
    uri = f"{path.absolute().as_uri()}?mode={mode}{'&immutable=1' if immutable else ''}"
    conn = sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000)
    conn.execute("PRAGMA mmap_size = 0")
    conn.execute("PRAGMA cell_size_check = 1")
    return Database(conn, recursive_triggers=False, execute_plugins=False)


def _set_for_writing(db: Database) -> None:
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("PRAGMA recursive_triggers = 1")  # a replaced row is a deleted one to the tallies
    db.execute("PRAGMA journal_size_limit = 16777216")


def _check_log_is_read(path: Path) -> None:
    """A damaged header must not make SQLite pass over the log of a file that is open. Raises `StoreError` (CORRUPT)."""
    modes, log = held_bytes(path, 2, 18), wal_path(path)
    if len(modes) == 2 and modes != b"\2\2" and log.exists() and log.stat().st_size > 0:
        raise StoreError(StoreReason.CORRUPT, f"{path} has a log that its header does not know of")


def _check_kind(db: Database, path: Path, kind: FileKind) -> bool:
    """True for an empty database. Raises NOT_A_RUN or NEWER; reads only."""
    try:
        application_id = db.execute("PRAGMA application_id").fetchone()[0]
        tables = db.execute("select count(*) from sqlite_master").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
            reason = StoreReason.NOT_A_RUN if kind is RUN else StoreReason.CORRUPT
            raise StoreError(reason, f"{path} is not an SQLite database") from error
        raise
    if tables == 0:
        return True
    if application_id != kind.application_id:
        raise StoreError(StoreReason.NOT_A_RUN, f"{path} is an SQLite database, but no {kind.name}")
    known = _known_steps(kind)
    unknown = [name for name in _applied(db, kind, path) if name not in known and not may_be_ignored(name)]
    if unknown:
        raise StoreError(StoreReason.NEWER, f"{path} has had the step '{unknown[0]}', which this version does not know")
    return False


def may_be_ignored(step: str) -> bool:
    """Whether a version that does not know the step can read and write the file all the same."""
    number, plus, _ = step.partition(ADDITIVE)
    return bool(plus) and number.isdigit()


def _applied(db: Database, kind: FileKind, path: Path) -> list[str]:
    """Names of the steps that the file has had. Raises `StoreError` (CORRUPT)."""
    try:
        return [step.name for step in kind.steps.applied(db)]
    except (LookupError, TypeError, ValueError) as error:  # columns of that table have other names
        raise StoreError(StoreReason.CORRUPT, f"the history of {path} makes no sense: {error}") from error


@functools.cache
def _known_steps(kind: FileKind) -> frozenset[str]:
    """Names of all steps: those that an empty database would need."""
    empty = Database(memory=True, execute_plugins=False)
    try:
        return frozenset(step.name for step in kind.steps.pending(empty))
    finally:
        empty.close()


@functools.cache
def _columns_given(kind: FileKind, applied: frozenset[str]) -> dict[str, dict[str, str]]:
    """Declared types by column, by table, after those of `applied` that this version knows."""
    empty = Database(memory=True, execute_plugins=False)
    try:
        for step in kind.steps.pending(empty):
            if step.name in applied:
                step.fn(empty)
        tables = [name for (name,) in empty.execute("select name from sqlite_master where type = 'table'")]
        return {name: columns_of(empty.conn, name) for name in tables}
    finally:
        empty.close()


def _apply(db: Database, kind: FileKind) -> None:
    if kind.steps.pending(db):
        with db.atomic():
            kind.steps.apply(db)
