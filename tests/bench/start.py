"""From exec to READY=1, with kernels compiled and without."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench.figures import Figure, at_most
from tests.service import LIVE, Service


def run() -> list[Figure]:
    """First with an empty kernel cache, then again."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {"NUMBA_CACHE_DIR": str(Path(folder) / "cache")}
        with Service(Path(folder) / "first", LIVE, environ=environ) as service:
            first_s, statuses = service.ready_s, service.statuses
        with Service(Path(folder) / "second", LIVE, environ=environ) as service:
            second_s = service.ready_s
    progress = sum("compiling" in status for status in statuses)
    return [
        at_most("start to READY=1, kernels compiled", second_s, 5, "s", 1),
        at_most("start to READY=1, first ever", first_s, 60, "s", 1),
        Figure("  progress lines in the status text meanwhile", str(progress), "> 0", progress > 0),
    ]
