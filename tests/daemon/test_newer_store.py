"""A whole daemon on a store that a newer version has written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from daemon.errors import StoreReason
from daemon.parts import RunSummary
from daemon.store.reader import CatalogueReader
from daemon.store.recovery import recover
from daemon.store.schema import CATALOGUE, RUN, open_writing, wal_path
from daemon.store.writer import StoreWriter

SETTINGS = """
[store]
state_dir = "@STATE@"
[api]
port = 0
[camera]
driver = "twin"
[camera.options]
world = "w"
[potentiostat]
driver = "twin"
[potentiostat.options]
world = "w"
[cell]
capacity_mah = 1.0
[cell.limits]
min_voltage_v = 2.8
max_voltage_v = 4.4
max_current_ma = 10
"""


def killed_newer_version(state: Path, step: str) -> None:
    """A store as a newer version leaves it that was killed: its steps and a run are in the write-ahead logs still."""
    state.mkdir()
    work = state.with_name("work")
    (work / "runs").mkdir(parents=True)
    for path, kind in ((work / "instrument.db", CATALOGUE), (work / "runs/r1.db", RUN)):
        db = open_writing(path, kind, create=True)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        row = (kind.steps.name, step, "2030-01-01")
        db.execute("insert into _sqlite_migrations (migration_set, name, applied_at) values (?, ?, ?)", row)
        if kind is CATALOGUE:
            db.execute("alter table runs add column wear float")
            columns = "run_id, name, state, started_utc, path, recipe, frames, particles, wear"
            run = ("r1", "new", "done", "2030-01-01T00:00:00+00:00", "runs/r1.db", "{}", 7, 1, 0.5)
            db.execute(f"insert into runs ({columns}) values (?, ?, ?, ?, ?, ?, ?, ?, ?)", run)
        db.conn.commit()
        (state / path.relative_to(work)).parent.mkdir(exist_ok=True)
        for file in (path, wal_path(path)):
            shutil.copy2(file, state / file.relative_to(work))
        db.close()
    assert wal_path(state / "instrument.db").stat().st_size > 0


def contents(state: Path) -> dict[str, tuple[bytes, int]]:
    """Databases and their logs. The index of a log (-shm) is no content: it is made anew by each first reader."""
    files = [path for path in sorted(state.rglob("*.db*")) if not path.name.endswith("-shm")]
    return {str(path.relative_to(state)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_it_refuses_politely_and_touches_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    killed_newer_version(state, "9999_later")
    before = contents(state)
    assert len(before) == 4
    config = tmp_path / "photometryd.toml"
    config.write_text(SETTINGS.replace("@STATE@", str(state)))
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "--config", str(config)],
        capture_output=True, text=True, timeout=50, check=False, env={**os.environ, "NOTIFY_SOCKET": ""},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr  # not 2: that is wrong usage
    assert StoreReason.NEWER.code in done.stderr
    assert StoreReason.NEWER.remedy in done.stderr
    assert "9999_later" in done.stderr and "instrument.db" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(state) == before


def test_it_goes_on_with_what_it_may_ignore(tmp_path: Path) -> None:
    """After an update was gone back from: the newer version's run is listed, and new ones are stored beside it."""
    state = tmp_path / "state"
    killed_newer_version(state, "9999+_wear")
    assert recover(state / "instrument.db") == []
    writer = StoreWriter(state / "instrument.db", commit_interval_s=0.01)
    writer.start()
    try:
        run = RunSummary("r2", "old", "done", "2031-01-01T00:00:00+00:00", None, state / "runs/r2.db", {})
        writer.record_run(run).result(10)
        writer.update_run("r1", detail="seen").result(10)
    finally:
        writer.stop()
    with CatalogueReader(state / "instrument.db") as catalogue:
        assert {run.run_id: run.frames for run in catalogue.runs(limit=-1)} == {"r1": 7, "r2": 0}
    with sqlite3.connect(state / "instrument.db") as conn:
        assert conn.execute("select wear, detail from runs order by run_id").fetchall() == [(0.5, "seen"), (None, "")]
    conn.close()
