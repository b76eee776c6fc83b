"""What the writer can be asked to do that takes more than one statement; each function runs in its thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from daemon.errors import RunError, RunReason, StoreError
from daemon.events import Event
from daemon.mask_edits import MaskVersion
from daemon.parts import RunSummary
from daemon.store import rows
from daemon.store.codec import checksum, pack_array
from daemon.store.proof import prove_again
from daemon.store.schema import RUN, remove_files
from daemon.store.session import OpenFile, Session

MASK_FIELDS = ("version", "from_frame", "utc", "actor", "edits", "particles")

logger = logging.getLogger(__name__)


def utc_now() -> str:
    """Wall-clock time for labels, ISO 8601 with offset."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def create_run(path: Path, metadata: dict[str, Any], summary: RunSummary | None, session: Session) -> None:
    """Make the run file, then its row in the catalogue. Raises `RunError` (BUSY), `StoreError` (EXISTS, ...)."""
    if session.run is not None:
        raise RunError(RunReason.BUSY, f"run '{session.run_id}' is still open")
    described = {**_described(summary), "created_utc": utc_now(), **metadata}
    run_id = str(described.setdefault("run_id", path.stem))
    run = OpenFile.open(path, RUN, create=True)
    try:
        _execute_alone(run, lambda: rows.set_metadata(run.conn, described))
        if session.catalogue is not None and summary is not None:
            catalogue, fields = session.catalogue, rows.run_fields(summary, session.state_dir)
            _execute_alone(catalogue, lambda: rows.replace_rows(catalogue.conn, "runs", rows.RUN_FIELDS, [fields]))
    except BaseException:
        run.db.close()
        remove_files(path)
        raise
    session.run, session.run_id = run, run_id


def set_aside(run_id: str, path: Path, why: StoreError, session: Session) -> Path | None:
    """A closed run's damaged file under another name; an open one only learns that it is damaged."""
    if session.run_id == run_id:
        session.damage = why
        return None
    return session.set_aside(run_id, path, why)


def record_run(summary: RunSummary, session: Session) -> None:
    """The run's row in the catalogue, new or replaced."""
    assert session.catalogue is not None
    fields = rows.run_fields(summary, session.state_dir)
    rows.replace_rows(session.catalogue.conn, "runs", rows.RUN_FIELDS, [fields])


def _described(summary: RunSummary | None) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in rows.RUN_FIELDS if name != "path"} if summary else {}


@dataclass
class _Lone:
    result: Any = None
    error: BaseException | None = None


def _execute_alone(file: OpenFile, step: Callable[[], Any]) -> None:
    outcome = _Lone()
    file.execute([(outcome, step)])
    if outcome.error is not None:
        raise outcome.error


def change_run(run_id: str, changes: dict[str, Any], session: Session) -> None:
    """Change fields of a run's row in the catalogue. Raises `RunError` (NOT_FOUND)."""
    assert session.catalogue is not None
    fields = dict(changes)
    if "path" in fields:
        fields["path"] = rows.relative_path(Path(fields["path"]), session.state_dir)
    assignments = ", ".join(f'"{name}" = ?' for name in fields)
    values = [*map(rows.plain, fields.values()), run_id]
    cursor = session.catalogue.conn.execute(f"update runs set {assignments} where run_id = ?", values)
    if cursor.rowcount == 0:
        raise RunError(RunReason.NOT_FOUND, f"the catalogue has no run '{run_id}'")
    prove_again(session.catalogue.conn, "runs", "run_id = ?", (run_id,))
    if session.run_id != run_id:
        query = "select path from runs where run_id = ?"
        path = session.state_dir / session.catalogue.conn.execute(query, (run_id,)).fetchone()[0]
        _describe_closed(path, changes)


def _describe_closed(path: Path, changes: dict[str, Any]) -> None:
    """A finished run's own file should tell the same; the catalogue counts when it cannot, or may not."""
    if ".damaged-" in path.name:
        return
    try:
        run = OpenFile.open(path, RUN, create=False)
        try:
            _execute_alone(run, lambda: rows.set_metadata(run.conn, _without_path(changes)))
        finally:
            run.finish()
    except StoreError as error:
        logger.warning("the end of a run is only in the catalogue: %s", error)


def _without_path(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "path"}


def describe_run(run_id: str, changes: dict[str, Any], session: Session) -> None:
    """The same changes in the run file's own metadata, when that run is open."""
    if session.run is not None and session.run_id == run_id:
        rows.set_metadata(session.run.conn, _without_path(changes))


@dataclass
class EventNumbering:
    """Numbers events and stores them in the catalogue and, those of the open run, in its file."""

    given: list[Event]
    numbered: list[Event] = field(default_factory=list)

    def catalogue(self, session: Session) -> list[Event]:
        """Number by the catalogue; an event without a run belongs to the open one."""
        assert session.catalogue is not None
        conn = session.catalogue.conn
        seq = rows.last_seq_given(conn)
        self.numbered = []
        last_id: dict[str, int] = {}
        for i, event in enumerate(self.given, start=1):
            run_id = event.run_id or session.run_id
            if run_id not in last_id:
                query = "select coalesce(max(event_id), 0) from events where run_id = ?"
                last_id[run_id] = conn.execute(query, (run_id,)).fetchone()[0]
            last_id[run_id] += 1
            self.numbered.append(replace(event, run_id=run_id, event_id=last_id[run_id], seq=seq + i))
        rows.insert_catalogue_events(conn, self.numbered)
        return self.numbered

    def run(self, session: Session) -> list[Event]:
        """Store those of the open run, numbered by the run itself when there is no catalogue."""
        assert session.run is not None
        if session.catalogue is None:
            self._number_by_run(session)
        rows.insert_run_events(session.run.conn, [e for e in self.numbered if e.run_id == session.run_id])
        return self.numbered

    def _number_by_run(self, session: Session) -> None:
        assert session.run is not None
        query = "select coalesce(max(event_id), 0), coalesce(max(seq), 0) from events"
        event_id, seq = session.run.conn.execute(query).fetchone()
        self.numbered = [
            replace(event, run_id=session.run_id, event_id=event_id + i, seq=seq + i)
            for i, event in enumerate(self.given, start=1)
        ]


def store_masks(about: MaskVersion, labels: np.ndarray, reference: np.ndarray | None, session: Session) -> None:
    """A version of the masks: label image and reference frame, compressed, with their CRCs."""
    assert session.run is not None
    packed = pack_array(labels)
    row = {
        **{name: getattr(about, name) for name in MASK_FIELDS}, "height": labels.shape[0], "width": labels.shape[1],
        "labels": packed, "labels_crc32": checksum(packed),
    }  # fmt: skip
    if reference is not None:
        image = pack_array(reference)
        row |= {"reference_dtype": reference.dtype.name, "reference": image, "reference_crc32": checksum(image)}
    rows.replace_rows(session.run.conn, "masks", tuple(row), [row])
    rows.set_metadata(session.run.conn, {"mask_version": about.version})


def store_instrument_calibration(kind: str, array: np.ndarray, summary: dict[str, Any], session: Session) -> None:
    """A dark or flat frame in the catalogue, dated now."""
    assert session.catalogue is not None
    blob = pack_array(array)
    row = {
        "kind": kind, "made_utc": utc_now(), "dtype": array.dtype.name, "height": array.shape[0],
        "width": array.shape[1], "blob": blob, "crc32": checksum(blob), "summary": rows.to_json(summary),
    }  # fmt: skip
    rows.replace_rows(session.catalogue.conn, "calibrations", tuple(row), [row])
