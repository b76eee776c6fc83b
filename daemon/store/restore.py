"""A state directory made again from a backup: everything checked first, the catalogue moved into place last."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from daemon.config import TOKEN_FILE
from daemon.errors import StoreError, StoreReason
from daemon.store.backup import SPARE_BYTES, Progress
from daemon.store.copying import copy_error, copy_plain, sync_folder
from daemon.store.faults import translated
from daemon.store.lock import StateLock
from daemon.store.manifest import Entry, Manifest, read_manifest
from daemon.store.paths import StateLayout
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.retention import change_row
from daemon.store.schema import CATALOGUE, open_writing

FOLDER = ".restoring"
CHECKED = "checked"
"""A file in it once everything else there is whole: what remains are renames."""
OF_NO_RUN = {"photometryd.lock", "raw", "tmp", "logs", "snapshots", "faults.jsonl", TOKEN_FILE, FOLDER}
"""What a state directory without runs may hold."""


@dataclass(frozen=True)
class Restored:
    """What a restore brought back."""

    state_dir: str
    made_utc: str
    """When the backup was made."""
    runs: int
    bytes: int
    took_s: float


def restore(backup: Path, state_dir: Path, progress: Progress = lambda share: None) -> Restored:
    """Make `state_dir` what the backup in `backup` holds. Blocking; nobody may use the directory meanwhile.

    Raises `StoreError`: BACKUP_PLACE without a backup there, BACKUP_DAMAGED when a file does not match its check sum,
    EXISTS when `state_dir` holds runs or a catalogue, LOCKED when it is in use, BACKUP_FULL, BACKUP_FAILED. A restore
    that was cut short leaves no catalogue; the next one begins again, or completes it. Files get the directory's owner.
    """
    began_s = time.monotonic()
    manifest = read_manifest(backup)
    if manifest is None or manifest.entry("instrument.db") is None:
        raise StoreError(StoreReason.BACKUP_PLACE, f"'{backup}' holds no whole backup")
    layout, staged = StateLayout(state_dir), state_dir / FOLDER
    layout.prepare()
    with StateLock(layout.lock):
        try:
            if not (staged / CHECKED).exists():
                _check_empty(layout)
                shutil.rmtree(staged, ignore_errors=True)
                _stage(backup, manifest, staged, progress)
            _move_in(layout, staged)
            _give_to_owner(state_dir)
        except OSError as error:
            raise copy_error(error, state_dir) from error
    total = sum(entry.size_bytes for entry in manifest.files)
    took_s = round(time.monotonic() - began_s, 3)
    return Restored(str(state_dir), manifest.made_utc, len(manifest.files) - 1, total, took_s)


def _check_empty(layout: StateLayout) -> None:
    for found in layout.state_dir.iterdir():
        empty_runs = found == layout.runs_dir and not any(found.iterdir())
        if found.name not in OF_NO_RUN and not empty_runs:
            raise StoreError(StoreReason.EXISTS, f"'{layout.state_dir}' is not empty: it holds '{found.name}'")


def _stage(backup: Path, manifest: Manifest, staged: Path, progress: Progress) -> None:
    """Copy and check everything into one folder; it is marked once it is whole."""
    total = sum(entry.size_bytes for entry in manifest.files)
    free = shutil.disk_usage(staged.parent).free
    if free < total + SPARE_BYTES:
        detail = f"'{staged.parent}' has {free / 1e6:.0f} MB free, the backup needs {total / 1e6:.0f} MB"
        raise StoreError(StoreReason.BACKUP_FULL, detail)
    (staged / "runs").mkdir(parents=True)
    done = 0

    def advance(copied: int) -> None:
        nonlocal done
        done += copied
        progress(min(0.99, done / max(1, total)))

    for entry in manifest.files:
        _copy_checked(backup / entry.stored_as, staged / entry.path, entry, advance)
    _revive(staged, manifest)
    for folder in (staged / "runs", staged):
        sync_folder(folder)
    (staged / CHECKED).touch()
    sync_folder(staged)


def _copy_checked(source: Path, target: Path, entry: Entry, advance: Callable[[int], None]) -> None:
    if not source.exists():
        raise StoreError(StoreReason.BACKUP_DAMAGED, f"'{source}' is missing")
    copied = copy_plain(source, target, advance)
    if (copied.sha256, copied.size_bytes) != (entry.sha256, entry.size_bytes):
        raise StoreError(StoreReason.BACKUP_DAMAGED, f"'{source}' does not match its check sum")


def _revive(staged: Path, manifest: Manifest) -> None:
    """Runs that the instrument had deleted since they were backed up have their file again."""
    with CatalogueReader(staged / "instrument.db") as catalogue:
        deleted = [run for run in catalogue.runs(limit=-1) if run.state == "deleted"]
    back = [run for run in deleted if manifest.entry(f"runs/{run.path.name}")]
    states = {run.run_id: _own_state(staged / "runs" / run.path.name) for run in back}
    if not states:
        return
    path = staged / "instrument.db"
    with translated(path, "cannot write to"):
        db = open_writing(path, CATALOGUE)
        try:
            with db.atomic():
                for run_id, state in states.items():
                    change_row(db.conn, run_id, state=state, deleting_utc=None, deleted_utc=None)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            db.close()


def _own_state(path: Path) -> str:
    """What the run's own file says of it."""
    try:
        with RunReader(path) as reader:
            return str(reader.metadata().get("state") or "done")
    except StoreError:  # damaged on the instrument already: it is listed, and reading it says so
        return "interrupted"


def _move_in(layout: StateLayout, staged: Path) -> None:
    """The runs by one rename, then the catalogue; safe to repeat."""
    if (staged / "runs").exists():
        os.rename(staged / "runs", layout.runs_dir)
    if (staged / "instrument.db").exists():
        os.rename(staged / "instrument.db", layout.catalogue)
    sync_folder(layout.state_dir)
    shutil.rmtree(staged)


def _give_to_owner(state_dir: Path) -> None:
    """What root restored belongs to the service, as the directory does."""
    owner = state_dir.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    for found in (state_dir / "runs", *state_dir.rglob("*")):
        os.chown(found, owner.st_uid, owner.st_gid)
