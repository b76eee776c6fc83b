"""A backup while no daemon runs: this process holds the state directory meanwhile."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from daemon.errors import StoreError, StoreReason
from daemon.store.backup import BackupReport, Progress, back_up
from daemon.store.faults import translated
from daemon.store.lock import StateLock
from daemon.store.paths import StateLayout
from daemon.store.retention import mark_exported
from daemon.store.schema import CATALOGUE, open_writing


def back_up_offline(state_dir: Path, target: Path, progress: Progress = lambda share: None) -> BackupReport:
    """`back_up` with the state directory locked, what it holds marked as exported. Blocking.

    Raises `StoreError`: LOCKED while a daemon uses it, NOT_A_RUN without a catalogue, and as `back_up` does.
    """
    layout = StateLayout(state_dir)
    if not layout.catalogue.exists():
        raise StoreError(StoreReason.NOT_A_RUN, f"there is no catalogue in '{state_dir}'")
    with StateLock(layout.lock):
        _give_to_owner(layout)
        report = back_up(state_dir, target, progress)
        with translated(layout.catalogue, "cannot write to"), closing(open_writing(layout.catalogue, CATALOGUE)) as db:
            with db.atomic():
                mark_exported(db.conn, report.whole_runs, str(target))
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return report


def _give_to_owner(layout: StateLayout) -> None:
    """A lock that root made must not keep the service out."""
    owner = layout.state_dir.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(layout.lock, owner.st_uid, owner.st_gid)
