"""What a power cut or a kill left behind, put in order before the writer starts."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from daemon.errors import RunReason, StoreError, StoreReason
from daemon.events import Event
from daemon.parts import FINISHED, RunSummary
from daemon.store import rows
from daemon.store.aside import run_id_of_aside, set_aside
from daemon.store.faults import is_damage, translated
from daemon.store.log_check import lost_log_bytes
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.schema import CATALOGUE, RUN, finish_file, is_empty, open_writing, remove_files, undo_half

UNFINISHED = ("preparing", "running", "stopping")
SEQ_GAP = 1_000_000_000
"""Sequence numbers left out for each catalogue that was lost: more than any had given that no run file tells of."""

logger = logging.getLogger(__name__)


def recover(catalogue: Path, tell: Callable[[StoreError], None] = lambda error: None) -> list[RunSummary]:
    """Mark runs that never ended as `interrupted`, complete their files, and return them.

    One whose file is damaged has the reason `store.corrupt` and the path of the file set aside.

    Call it before `StoreWriter.start`, holding the state directory's lock; blocks. A damaged catalogue is set aside as
    `instrument.db.corrupt-<n>` and made again from the run files beside it, and so is one that is missing; `tell` is
    told. Raises `StoreError` when even that fails.
    """
    for journal in sorted((catalogue.parent / "runs").glob("*.db-journal")):
        _undo_half(journal.with_name(journal.name.removesuffix("-journal")))
    if not catalogue.exists():
        if not _had_a_catalogue(catalogue):
            return []
        tell(remake(catalogue, StoreError(StoreReason.CORRUPT, f"{catalogue} is not there, and its runs are")))
    try:
        if is_empty(catalogue, CATALOGUE):  # the very first start was cut short
            remove_files(catalogue)
            _rebuild(catalogue)
        return _mark_interrupted(catalogue)
    except StoreError as error:
        if not is_damage(error, catalogue):
            raise
        tell(remake(catalogue, error))
        return _mark_interrupted(catalogue)


def remake(catalogue: Path, why: StoreError) -> StoreError:
    """Set a damaged catalogue, which nobody has open, aside and make it again from the runs; what there is to tell.

    Raises `StoreError`.
    """
    aside = set_aside(catalogue, "corrupt")
    if not aside.exists():
        with translated(aside, "cannot make"):
            aside.touch()  # of one that is missing: it tells the next loss from this one
    logger.error("the catalogue is made again from the runs, what is left of it is kept as %s: %s", aside, why)
    _rebuild(catalogue, aside)
    detail = f"the catalogue was made again from the runs; what was left of it is {aside.name}: {why.detail}"
    return StoreError(StoreReason.CORRUPT, detail)


def _had_a_catalogue(catalogue: Path) -> bool:
    """Whether one that is missing was there before."""
    beside = catalogue.parent.glob(f"{catalogue.name}?*")
    return any(beside) or any((catalogue.parent / "runs").glob("*.db*"))


def _undo_half(path: Path) -> None:
    """Readers may not do it, and would be refused; a file that cannot be mended now is refused as before."""
    try:
        undo_half(path)
    except StoreError as error:
        logger.error("%s", error)


def _mark_interrupted(catalogue: Path) -> list[RunSummary]:
    _refuse_damage(catalogue)
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


def _refuse_damage(path: Path) -> None:
    """Raises `StoreError` (CORRUPT) when the log has lost what was promised: opening for writing would hide it."""
    if lost := lost_log_bytes(path):
        raise StoreError(StoreReason.CORRUPT, f"{lost} bytes of committed changes in the log of {path} are damaged")


def _look_over(path: Path) -> None:
    """What takes no time in any run, however long: its log, what it says of itself, its chunks' rows.

    Raises `StoreError` (CORRUPT) for damage. The rest is checked when idle (`daemon/store/check.py`).
    """
    _refuse_damage(path)
    with RunReader(path) as reader:
        reader.metadata()
        reader.particles()
        reader.frame_count()
        if reader.damaged_rows or reader.corrupt_chunks:
            damage = reader.damage | {"chunks": reader.corrupt_chunks}
            told = ", ".join(f"{count} of '{name}'" for name, count in damage.items() if count)
            raise StoreError(StoreReason.CORRUPT, f"rows of {path} are damaged or missing: {told}")


def _complete(run: RunSummary, events: list[Event]) -> RunSummary:
    """The interrupted run's summary; its file gets its end, and events that only reached the catalogue.

    A damaged file is set aside whole instead, and the summary says where it is.
    """
    run = replace(run, state="interrupted", reason=run.reason or RunReason.INTERRUPTED.code)
    try:
        if run.path.exists():
            _look_over(run.path)
        return _completed(run, events)
    except StoreError as error:
        logger.error("the file of run %s could not be completed: %s", run.run_id, error)
        if is_damage(error, run.path):
            return _kept_aside(replace(run, reason=StoreReason.CORRUPT.code, detail=error.detail))
        return replace(run, reason=error.code, detail=error.detail)


def _kept_aside(run: RunSummary) -> RunSummary:
    try:
        aside = set_aside(run.path)
    except StoreError as error:
        logger.error("the damaged file of run %s stays where it is: %s", run.run_id, error)
        return run
    return replace(run, path=aside, detail=f"{run.detail}; the file is kept as {aside.name}")


def _completed(run: RunSummary, events: list[Event]) -> RunSummary:
    with translated(run.path, "cannot complete"):
        db = open_writing(run.path, RUN)
        try:
            with db.atomic():
                run = _with_extent(run, db.conn)
                rows.insert_run_events(db.conn, events)
                changes = {"state": run.state, "reason": run.reason, "ended_utc": run.ended_utc, "frames": run.frames}
                rows.set_metadata(db.conn, changes)
            finish_file(db)
        finally:
            db.close()
    return run


def _with_extent(run: RunSummary, conn: sqlite3.Connection) -> RunSummary:
    frames, last_t_s = conn.execute("select coalesce(sum(frames), 0), max(t1_s) from chunks").fetchone()
    ended = None
    if last_t_s is not None:
        ended = (datetime.fromisoformat(run.started_utc) + timedelta(seconds=last_t_s)).isoformat()
    return replace(run, frames=frames, ended_utc=ended)


def _rebuild(catalogue: Path, aside: Path | None = None) -> None:
    """A new catalogue of what the run files tell; calibration frames and the audit stay in the file set aside."""
    found = _found(catalogue.parent / "runs")
    with translated(catalogue, "cannot make again"):
        db = open_writing(catalogue, CATALOGUE, create=True)
        try:
            with db.atomic():
                fields = [rows.run_fields(summary, catalogue.parent) for summary, _ in found]
                rows.replace_rows(db.conn, "runs", rows.RUN_FIELDS, fields)
                for _, events in found:
                    rows.insert_catalogue_events(db.conn, events)
                if aside is not None or found:
                    rows.number_after(db.conn, _seq_before(rows.last_seq_given(db.conn), aside))
        finally:
            db.close()


def _seq_before(in_runs: int, aside: Path | None) -> int:
    """What lies above every number that was given: many are of events that only the lost catalogue had.

    One that cannot be read may itself have begun above a gap: there is one for each that was set aside.
    """
    if aside is None:
        return in_runs + SEQ_GAP
    known = 0
    if aside.stat().st_size:  # an empty one would lose the log beside it
        with contextlib.suppress(StoreError), CatalogueReader(aside) as lost:
            known = lost.last_seq()
    lost_so_far = int(aside.name.rpartition("-")[2])
    return max(in_runs, known) + lost_so_far * SEQ_GAP


def _found(runs_dir: Path) -> list[tuple[RunSummary, list[Event]]]:
    """Each run of which there is a file, with its events; the newest of its files, a whole one rather than not."""
    asides = sorted((path for path in runs_dir.glob("*.db.damaged-*") if run_id_of_aside(path)), key=_changed_s)
    found: dict[str, tuple[RunSummary, list[Event]]] = {}
    for path in (*asides, *sorted(runs_dir.glob("*.db"))):
        if (told := _of_file(path)) is not None:
            found[told[0].run_id] = told
    return list(found.values())


def _of_file(path: Path) -> tuple[RunSummary, list[Event]] | None:
    """What a run's file tells; of a damaged one at least that it is there. None for what is no run for this version."""
    told: dict[str, Any] = {}
    events: list[Event] = []
    damage = "it was found damaged earlier" if run_id_of_aside(path) else ""
    try:
        with RunReader(path) as reader:
            told = reader.metadata()
            events = reader.events()
    except StoreError as error:
        if not is_damage(error, path):
            logger.error("%s is left out of the catalogue: %s", path, error)
            return None
        damage = error.detail
    summary = _summary(told, path)
    return (_damaged(summary, damage) if damage else summary), events


def _damaged(run: RunSummary, why: str) -> RunSummary:
    """A file that was set aside is not completed any more."""
    run = replace(run, reason=StoreReason.CORRUPT.code, detail=why)
    if run_id_of_aside(run.path) is None:
        return run
    state = run.state if run.state in FINISHED else "interrupted"
    return replace(run, state=state, detail=f"{why}; the file is kept as {run.path.name}")


def _summary(told: dict[str, Any], path: Path) -> RunSummary:
    fields = {name: told[name] for name in rows.RUN_FIELDS if told.get(name) is not None and name != "path"}
    changed_utc = datetime.fromtimestamp(_changed_s(path), UTC).isoformat(timespec="milliseconds")
    defaults = {
        "run_id": run_id_of_aside(path) or path.stem,
        "name": "",
        "state": "done" if told else "interrupted",
        "started_utc": told.get("created_utc", changed_utc),
        "ended_utc": None,
        "recipe": {},
    }
    return RunSummary(**{**defaults, **fields, "path": path})


def _changed_s(path: Path) -> float:
    """Unix time of the file's last change; 0 when it went away."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
