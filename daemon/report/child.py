"""The service's side of a report that is made by a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from daemon.service.in_child import run_in_child


def report_in_child(run: Path, out: Path, particles: Sequence[int], progress: Callable[[float], None]) -> None:
    """Write the report of `run` to `out`, as `daemon.service.in_child` does; raises `StoreError` as `report_run`."""
    run_in_child("daemon.report", [str(run), str(out), *map(str, particles)], progress)
