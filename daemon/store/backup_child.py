"""A backup in a process of its own, so that a share that hangs holds up neither the interpreter nor the way down.

``python -m daemon.store.backup_child STATE_DIR TARGET DEADLINE_S SPARE_MB``, see `daemon.service.in_child`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from daemon.errors import StoreError, StoreReason
from daemon.service.in_child import run_in_child, serve
from daemon.service.priority import LAST
from daemon.store.backup import BackupReport, back_up, report_as_dict

PATIENCE_S = 30.0  # beyond the child's own deadline: a write to a share that hangs does not look at clocks


def back_up_in_child(
    state_dir: Path, target: Path, progress: Callable[[float], None], *, deadline_s: float, spare_mb: int
) -> BackupReport:
    """`back_up`, gently, in a process that is killed when `progress` raises or the deadline passes. Blocking.

    Raises `StoreError` as `back_up` does.
    """
    arguments = [str(state_dir), str(target), str(deadline_s), str(spare_mb)]
    try:
        done = run_in_child("daemon.store.backup_child", arguments, progress, within_s=deadline_s + PATIENCE_S)
    except TimeoutError:
        raise StoreError(StoreReason.BACKUP_LATE, f"'{target}' hangs; the backup was given up") from None
    except ChildProcessError as error:
        raise StoreError(StoreReason.BACKUP_FAILED, f"of the backup to '{target}': {error}") from None
    return BackupReport(**done)


def main(arguments: list[str]) -> int:
    """The child."""
    state_dir, target, deadline_s, spare_mb = arguments
    return serve(
        lambda tell: report_as_dict(
            back_up(
                Path(state_dir), Path(target), tell, gentle=True, deadline_s=float(deadline_s), spare_mb=int(spare_mb)
            )
        ),
        LAST,
        idle_disk=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
