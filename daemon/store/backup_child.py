"""A backup in a process of its own, so that a share that hangs holds up neither the interpreter nor the way down.

``python -m daemon.store.backup_child STATE_DIR TARGET DEADLINE_S SPARE_MB`` prints lines of JSON: `share` as it gets
on, then `report`, or `code` and `detail`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from daemon.errors import InstrumentError, StoreError, StoreReason
from daemon.service.priority import LAST, give_way
from daemon.store.backup import BackupReport, back_up, report_as_dict

PATIENCE_S = 30.0  # beyond the child's own deadline: a write to a share that hangs does not look at clocks
TOLD_EVERY_S = 0.2


def back_up_in_child(
    state_dir: Path, target: Path, progress: Callable[[float], None], *, deadline_s: float, spare_mb: int
) -> BackupReport:
    """`back_up`, gently, in a process that is killed when `progress` raises or the deadline passes. Blocking.

    Raises `StoreError` as `back_up` does.
    """
    command = [sys.executable, "-m", "daemon.store.backup_child", str(state_dir), str(target)]
    until_s = time.monotonic() + deadline_s + PATIENCE_S
    with _Child([*command, str(deadline_s), str(spare_mb)]) as child:
        last: dict[str, Any] = {}
        while (line := child.line()) is not None:
            last = line or last
            progress(float(last.get("share", 0.0)))
            if time.monotonic() > until_s:
                raise StoreError(StoreReason.BACKUP_LATE, f"'{target}' hangs; the backup was given up")
    if "report" in last:
        return BackupReport(**last["report"])
    reason = next((each for each in StoreReason if each.code == last.get("code")), StoreReason.BACKUP_FAILED)
    raise StoreError(reason, last.get("detail", f"the process of the backup to '{target}' ended without a word"))


class _Child:
    """The process and what it says. Leaving never waits for one that cannot be killed: a dead share holds it."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._lines: Queue[dict[str, Any] | None] = Queue()
        self._reader = threading.Thread(target=self._read, name="backup-child", daemon=True)

    def __enter__(self) -> _Child:
        self._reader.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(subprocess.TimeoutExpired):
            if exception[0] is not None:
                self._process.kill()
            self._process.wait(5.0)
        self._reader.join(5.0)

    def line(self) -> dict[str, Any] | None:
        """The next line, {} when none came for a while, None at the end."""
        try:
            return self._lines.get(timeout=TOLD_EVERY_S)
        except Empty:
            return {}

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(json.loads(line))
        self._lines.put(None)


def main(arguments: list[str]) -> int:
    """The child."""
    state_dir, target, deadline_s, spare_mb = arguments
    give_way(LAST, idle_disk=True)
    told_s = 0.0

    def progress(share: float) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= TOLD_EVERY_S:
            told_s = time.monotonic()
            _say({"share": share})

    try:
        report = back_up(
            Path(state_dir), Path(target), progress, gentle=True, deadline_s=float(deadline_s), spare_mb=int(spare_mb)
        )
    except InstrumentError as error:
        _say({"code": error.code, "detail": error.detail})
        return 1
    _say({"report": report_as_dict(report)})
    return 0


def _say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
