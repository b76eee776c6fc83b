"""The service's side of a report that is made by a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from daemon.errors import ApiError, ApiReason, StoreError, StoreReason


def report_in_child(run: Path, out: Path, particles: Sequence[int], progress: Callable[[float], None]) -> None:
    """Write the report of `run` to `out`; blocking. What `progress` raises ends the child at once.

    Raises `StoreError` as `report_run` does, and `ApiError` (INTERNAL) when the child ends otherwise.
    """
    command = [sys.executable, "-m", "daemon.report", str(run), str(out), *map(str, particles)]
    last: dict[str, str] = {}
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=one_thread) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                last = json.loads(line)
                if "share" in last:
                    progress(float(last["share"]))
        except BaseException:
            child.kill()
            raise
    if child.returncode == 0:
        return
    reason = next((each for each in StoreReason if each.code == last.get("code")), None)
    if reason is None:
        raise ApiError(ApiReason.INTERNAL, f"the report's process ended with {child.returncode}; see the log")
    raise StoreError(reason, last.get("detail", ""))
