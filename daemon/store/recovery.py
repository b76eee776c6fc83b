"""What a power cut or a kill left behind, put in order before the writer starts."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from daemon.errors import RunReason, StoreError, StoreReason
from daemon.events import Event
from daemon.parts import RunSummary
from daemon.store import rows
from daemon.store.faults import translated
from daemon.store.operations import utc_now
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.schema import CATALOGUE, RUN, finish_file, open_writing, wal_path

UNFINISHED = ("preparing", "running", "stopping")

logger = logging.getLogger(__name__)


def recover(catalogue: Path) -> list[RunSummary]:
    """Mark runs that never ended as `interrupted`, complete their files, and return them.

    Call it before `StoreWriter.start`, holding the state directory's lock; blocks. A damaged catalogue is set aside as
    `instrument.db.corrupt-<n>` and made again from the run files beside it. Raises `StoreError` when even that fails.
    """
    if not catalogue.exists():
        return []
    try:
        return _mark_interrupted(catalogue)
    except StoreError as error:
        if error.reason is not StoreReason.CORRUPT:
            raise
        aside = _set_aside(catalogue)
        logger.error("the catalogue was damaged and is kept as %s; it is made again from the runs: %s", aside, error)
        _rebuild(catalogue)
        return _mark_interrupted(catalogue)


def _mark_interrupted(catalogue: Path) -> list[RunSummary]:
    with CatalogueReader(catalogue) as reader:
        left = [run for run in reader.runs(limit=-1) if run.state in UNFINISHED]
        events = {run.run_id: reader.events_of(run.run_id) for run in left}
    ended = [_complete(run, events[run.run_id]) for run in left]
    with translated(catalogue, "cannot write to"):
        db = open_writing(catalogue, CATALOGUE)
        try:
            with db.atomic():
                fields = [rows.run_fields(run, catalogue.parent) for run in ended]
                rows.replace_rows(db.conn, "runs", rows.RUN_FIELDS, fields)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            db.close()
    return ended


def _complete(run: RunSummary, events: list[Event]) -> RunSummary:
    """The interrupted run's summary; its file gets its end, and events that only reached the catalogue."""
    run = replace(run, state="interrupted", reason=run.reason or RunReason.INTERRUPTED.code)
    try:
        with translated(run.path, "cannot complete"):
            db = open_writing(run.path, RUN)
            try:
                with db.atomic():
                    run = _with_extent(run, db.conn)
                    rows.insert_run_events(db.conn, events)
                    changes = {
                        "state": run.state,
                        "reason": run.reason,
                        "ended_utc": run.ended_utc,
                        "frames": run.frames,
                    }
                    rows.set_metadata(db.conn, changes)
                finish_file(db)
            finally:
                db.close()
    except StoreError as error:
        logger.error("the file of run %s could not be completed: %s", run.run_id, error)
        return replace(run, reason=error.code, detail=error.detail)
    return run


def _with_extent(run: RunSummary, conn: sqlite3.Connection) -> RunSummary:
    frames, last_t_s = conn.execute("select coalesce(sum(frames), 0), max(t1_s) from chunks").fetchone()
    ended = None
    if last_t_s is not None:
        ended = (datetime.fromisoformat(run.started_utc) + timedelta(seconds=last_t_s)).isoformat()
    return replace(run, frames=frames, ended_utc=ended)


def _set_aside(catalogue: Path) -> Path:
    number = 1
    while (aside := catalogue.with_name(f"{catalogue.name}.corrupt-{number}")).exists():
        number += 1
    if wal_path(catalogue).exists():
        wal_path(catalogue).rename(wal_path(aside))
    Path(f"{catalogue}-shm").unlink(missing_ok=True)
    catalogue.rename(aside)
    return aside


def _rebuild(catalogue: Path) -> None:
    """A new catalogue of what the run files tell; calibration frames and the audit stay in the file set aside."""
    found = [run for path in sorted((catalogue.parent / "runs").glob("*.db")) if (run := _of_file(path))]
    with translated(catalogue, "cannot make again"):
        db = open_writing(catalogue, CATALOGUE, create=True)
        try:
            with db.atomic():
                fields = [rows.run_fields(summary, catalogue.parent) for summary, _ in found]
                rows.replace_rows(db.conn, "runs", rows.RUN_FIELDS, fields)
                for _, events in found:
                    rows.insert_catalogue_events(db.conn, events)
        finally:
            db.close()


def _of_file(path: Path) -> tuple[RunSummary, list[Event]] | None:
    try:
        with RunReader(path) as reader:
            told = reader.metadata()
            return _summary(told, path), reader.events()
    except StoreError as error:
        logger.error("%s is left out of the catalogue: %s", path, error)
        return None


def _summary(told: dict[str, Any], path: Path) -> RunSummary:
    fields = {name: told[name] for name in rows.RUN_FIELDS if told.get(name) is not None and name != "path"}
    defaults = {
        "name": "",
        "state": "done",
        "started_utc": told.get("created_utc", utc_now()),
        "ended_utc": None,
        "recipe": {},
    }
    return RunSummary(**{**defaults, **fields, "path": path})
