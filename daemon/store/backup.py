"""The catalogue and every run into a folder elsewhere, while the instrument measures or not.

What is there is never overwritten: each file is named by its content, the manifest is exchanged last, by one rename,
and only then go files that no manifest names. So at every moment the folder holds a whole backup, the earlier or this.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from daemon.errors import StoreError, StoreReason
from daemon.parts import FINISHED, RunSummary
from daemon.store.copying import Copied, copy_error, copy_store_file, sync_folder
from daemon.store.manifest import NAME, STORED, Entry, Manifest, read_manifest
from daemon.store.operations import utc_now
from daemon.store.paths import StateLayout
from daemon.store.reader import CatalogueReader
from daemon.store.schema import CATALOGUE, RUN, FileKind, wal_path

PARTIAL = ".copying.partial"
SPARE_BYTES = 16_000_000  # of the target beyond what is copied: the manifest, the file system's own needs

Progress = Callable[[float], None]
"""Called with 0 to 1; what it raises ends the backup."""


@dataclass
class BackupReport:
    """What a backup did."""

    directory: str
    made_utc: str = ""
    copied: int = 0
    copied_bytes: int = 0
    unchanged: int = 0
    """Finished runs that an earlier backup had already."""
    kept: int = 0
    """Runs of an earlier backup that the instrument does not hold any more."""
    whole_runs: list[str] = field(default_factory=list)
    """Finished runs that are in the backup now."""
    damaged: list[dict[str, str]] = field(default_factory=list)
    """Runs that could not be copied: run_id, code, detail."""
    took_s: float = 0.0


def back_up(
    state_dir: Path,
    target: Path,
    progress: Progress = lambda share: None,
    *,
    gentle: bool = False,
    deadline_s: float = 21600.0,
    spare_mb: int = 0,
) -> BackupReport:
    """Bring the backup in the folder `target` up to date. Blocking; reads the store only, in a process that has no
    connection to it (see `copy_store_file`).

    The folder must exist (where a share is not mounted there is none) and be empty or hold an earlier backup. `gentle`
    leaves half the time to others; `spare_mb` stay free when it is on the store's own disk. Raises `StoreError`:
    BACKUP_PLACE, BACKUP_FULL before or while copying, BACKUP_LATE, BACKUP_FAILED, BACKUP_DAMAGED; the earlier backup
    stays whole. A run that cannot be copied is named in the report, and the others are.
    """
    work = _Backup(StateLayout(state_dir), target, progress, gentle, time.monotonic() + deadline_s)
    return work.run(spare_mb)


class _Backup:
    def __init__(self, layout: StateLayout, target: Path, progress: Progress, gentle: bool, until_s: float) -> None:
        self._layout, self._target = layout, target
        self._progress, self._gentle, self._until_s = progress, gentle, until_s
        self._report = BackupReport(str(target))
        self._done_bytes = self._all_bytes = 0

    def run(self, spare_mb: int) -> BackupReport:
        began_s = time.monotonic()
        before = self._open_target()
        with CatalogueReader(self._layout.catalogue) as catalogue:
            runs = [run for run in catalogue.runs(limit=-1) if run.state != "deleted" and run.path.exists()]
        jobs = [(run, self._unchanged(run, before)) for run in reversed(runs)]
        self._check_room([run.path for run, entry in jobs if entry is None], spare_mb)
        entries = {entry.path: entry for entry in (before.files if before else ()) if entry.run_id}
        self._report.kept = len(entries.keys() - {_place(run) for run in runs})
        for run, entry in jobs:
            self._report.unchanged += entry is not None
            found = entry or self._run(run)
            if found is not None:
                entries[found.path] = found
                if found.state in FINISHED:
                    self._report.whole_runs.append(run.run_id)
        # last: it numbers what the runs hold, and a number must never be given twice after a restore
        catalogue_entry = self._copy(self._layout.catalogue, "instrument.db", CATALOGUE)
        self._report.made_utc = utc_now()
        files = (catalogue_entry, *(entries[path] for path in sorted(entries)))
        manifest = Manifest(self._report.made_utc, version("photometryd"), files, tuple(self._report.damaged))
        manifest.write(self._target)
        _remove_others(self._target, manifest)
        self._progress(1.0)
        self._report.took_s = round(time.monotonic() - began_s, 3)
        return self._report

    def _open_target(self) -> Manifest | None:
        """The earlier backup there, if any; leftovers of one that was cut short are removed."""
        target, state_dir = self._target, self._layout.state_dir
        if not target.is_absolute() or not target.is_dir():
            raise StoreError(StoreReason.BACKUP_PLACE, f"there is no folder '{target}'")
        if target.resolve().is_relative_to(state_dir.resolve()):
            raise StoreError(StoreReason.BACKUP_PLACE, f"'{target}' is inside the state directory")
        manifest = read_manifest(target)
        try:
            present = {each.name for each in target.iterdir()} - {"lost+found", "runs", PARTIAL, f".{NAME}.partial"}
            strange = [name for name in present if manifest is None and not STORED.fullmatch(name)]
            if strange:
                raise StoreError(StoreReason.BACKUP_PLACE, f"'{target}' holds '{strange[0]}' and is no backup")
            (target / "runs").mkdir(exist_ok=True)
            (target / PARTIAL).unlink(missing_ok=True)
        except OSError as error:
            raise copy_error(error, target) from error
        return manifest

    def _unchanged(self, run: RunSummary, before: Manifest | None) -> Entry | None:
        """What an earlier backup holds of a finished run, when the run's file is still the one that was copied."""
        entry = before.entry(_place(run)) if before else None
        if entry is None or run.state not in FINISHED or entry.state not in FINISHED or wal_path(run.path).exists():
            return None
        now = run.path.stat()
        same = (now.st_size, now.st_mtime_ns) == (entry.source_size_bytes, entry.source_mtime_ns)
        stored = self._target / entry.stored_as
        return entry if same and stored.exists() and stored.stat().st_size == entry.size_bytes else None

    def _check_room(self, sources: list[Path], spare_mb: int) -> None:
        sizes = [_size_bytes(source) for source in (*sources, self._layout.catalogue)]
        self._all_bytes = sum(sizes)
        try:
            disk = shutil.disk_usage(self._target)
            same = os.stat(self._target).st_dev == os.stat(self._layout.state_dir).st_dev
        except OSError as error:
            raise copy_error(error, self._target) from error
        need = self._all_bytes + SPARE_BYTES + (spare_mb * 1_000_000 if same else 0)
        if disk.total > 0 and disk.free < need:
            detail = f"'{self._target}' has {disk.free / 1e6:.0f} MB free, this backup needs {need / 1e6:.0f} MB"
            raise StoreError(StoreReason.BACKUP_FULL, detail)

    def _run(self, run: RunSummary) -> Entry | None:
        """A run's copy; None when the run itself is damaged or went away, which is reported."""
        try:
            return self._copy(run.path, _place(run), RUN, run)
        except StoreError as error:
            if error.reason not in (StoreReason.CORRUPT, StoreReason.NOT_A_RUN, StoreReason.NEWER):
                raise
            self._report.damaged.append({"run_id": run.run_id, "code": error.code, "detail": error.detail})
            return None

    def _copy(self, source: Path, place: str, kind: FileKind, run: RunSummary | None = None) -> Entry:
        partial = self._target / PARTIAL
        try:
            before = source.stat()
            copied = copy_store_file(source, partial, kind, self._advance, gentle=self._gentle)
            if run is None or run.state not in FINISHED:  # finished runs are copied as they are, damage and all
                _check_opens(partial, kind)
            stored_as = f"{place.removesuffix('.db')}.{copied.sha256[:12]}.db"
            partial.replace(self._target / stored_as)
            sync_folder((self._target / stored_as).parent)
        except FileNotFoundError as error:
            raise StoreError(StoreReason.NOT_A_RUN, f"'{source}' went away") from error
        except OSError as error:
            raise copy_error(error, partial) from error
        self._report.copied += 1
        self._report.copied_bytes += copied.size_bytes
        return _entry(place, stored_as, copied, before, run)

    def _advance(self, copied_bytes: int) -> None:
        self._done_bytes += copied_bytes
        if time.monotonic() > self._until_s:
            detail = f"{self._done_bytes / 1e6:.0f} of {self._all_bytes / 1e6:.0f} MB were copied in the time allowed"
            raise StoreError(StoreReason.BACKUP_LATE, detail)
        self._progress(min(0.99, self._done_bytes / max(1, self._all_bytes)))


def _entry(place: str, stored_as: str, copied: Copied, source: os.stat_result, run: RunSummary | None) -> Entry:
    about = {"run_id": run.run_id, "state": run.state} if run else {}
    return Entry(place, stored_as, copied.sha256, copied.size_bytes, source.st_size, source.st_mtime_ns, **about)


def _place(run: RunSummary) -> str:
    return f"runs/{run.path.name}"


def _size_bytes(path: Path) -> int:
    return sum(each.stat().st_size for each in (path, wal_path(path)) if each.exists())


def _check_opens(path: Path, kind: FileKind) -> None:
    """An online copy must be a database of its kind. Raises `StoreError` (BACKUP_DAMAGED)."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            application_id = connection.execute("PRAGMA application_id").fetchone()[0]
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise StoreError(StoreReason.BACKUP_DAMAGED, f"the copy '{path}' does not open: {error}") from error
    if application_id != kind.application_id or found != "ok":
        raise StoreError(StoreReason.BACKUP_DAMAGED, f"the copy '{path}' is no whole {kind.name}: {found}")


def _remove_others(target: Path, manifest: Manifest) -> None:
    """Files that an earlier manifest named, and this one does not: older catalogues, runs that went on."""
    named = {entry.stored_as for entry in manifest.files}
    for path in (*target.glob("*.db"), *(target / "runs").glob("*.db")):
        name = str(path.relative_to(target))
        if STORED.fullmatch(name) and name not in named:
            path.unlink(missing_ok=True)


def report_as_dict(report: BackupReport) -> dict[str, object]:
    """For answers and processes."""
    return asdict(report)
