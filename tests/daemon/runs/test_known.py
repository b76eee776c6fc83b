"""What the catalogue knows of runs, and what it could not be told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from daemon.runs import known as module
from daemon.runs.known import KnownRuns
from daemon.store.paths import StateLayout
from daemon.store.writer import StoreWriter
from tests.daemon.api.fakes import summary


@pytest.fixture
def paths(tmp_path: Path) -> StateLayout:
    """A catalogue with two runs in progress."""
    paths = StateLayout(tmp_path)
    paths.prepare()
    writer = StoreWriter(paths.catalogue)
    writer.start()
    for run_id in ("r1", "r2"):
        writer.record_run(summary(run_id, paths.run_path(run_id))).result(10)
    writer.stop()
    return paths


def test_an_end_that_the_catalogue_could_not_take_is_told(paths: StateLayout) -> None:
    known = KnownRuns(paths)
    assert known.find("r3") is None
    ended = replace(summary("r1", paths.run_path("r1")), state="failed", reason="store.disk_full")
    known.remember(ended)
    assert known.find("r1") == ended
    assert {run.run_id: run.state for run in known.newest(10)} == {"r1": "failed", "r2": "running"}


def test_only_so_many_are_remembered(paths: StateLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNRECORDED", 1)
    known = KnownRuns(paths)
    for run_id in ("r1", "r2"):
        known.remember(summary(run_id, paths.run_path(run_id), "failed"))
    assert [run.state for run_id in ("r1", "r2") if (run := known.find(run_id))] == ["running", "failed"]
