"""Every check of a store from outside, beside a service that uses it: by the installed Python, on a state directory.

Ends with 0 and a JSON line about every run, or with 1 and what is wrong.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from daemon.store.reader import CatalogueReader, RunReader
from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS, ROW_TABLES

STATE = Path(sys.argv[1])
ENDED = ("done", "interrupted", "failed")
problems: list[str] = []


def check_sqlite(path: Path) -> None:
    """SQLite's own opinion of every page, index and reference."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        said = [row[0] for row in db.execute("pragma integrity_check")]
        broken = db.execute("pragma foreign_key_check").fetchall()
    if said != ["ok"] or broken:
        problems.append(f"{path.name}: {said} {broken}")


def check_run(path: Path, state: str, frames: int) -> dict[str, Any]:
    """Every row and every chunk of a run, by check sums, counts and order."""
    check_sqlite(path)
    with RunReader(path) as run:
        told = run.metadata()
        columns, _ = run.particle_columns(list(CHUNK_PARTICLE_COLUMNS)) if told else ({}, {})
        for table in ROW_TABLES:
            run.page(table)
        events, damaged = len(run.events()), run.corrupt_chunks
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        extents = db.execute("select first_frame, frames, t0_s, t1_s from chunks order by chunk_id").fetchall()
        samples = db.execute("select count(*) from cell_samples").fetchone()[0]
        packed = db.execute("select count(*) from chunk_columns").fetchone()[0]
    stored = sum(extent[1] for extent in extents)
    if damaged:
        problems.append(f"{path.name}: {damaged} damaged chunks")
    if packed != len(extents) * (len(CHUNK_FRAME_COLUMNS) + len(CHUNK_PARTICLE_COLUMNS)):
        problems.append(f"{path.name}: {packed} columns of {len(extents)} chunks")
    for before, after in pairwise(extents):
        if after[0] < before[0] + before[1] or after[2] <= before[3]:
            problems.append(f"{path.name}: a chunk begins before the one before ended: {before} {after}")
    read = len(columns["t_s"]) if columns else 0
    if state in ENDED:
        if read != stored or frames != stored or told.get("state") != state:
            problems.append(f"{path.name}: {frames} frames told, {stored} stored, {read} read, {told.get('state')}")
        if Path(f"{path}-wal").exists():
            problems.append(f"{path.name}: an ended run that is not one file")
    return {"run_id": path.stem, "state": state, "frames": stored, "samples": samples, "events": events}


def check_all() -> list[dict[str, Any]]:
    """The catalogue, and every run that it or the directory knows."""
    check_sqlite(STATE / "instrument.db")
    with CatalogueReader(STATE / "instrument.db") as catalogue:
        runs = {run.path.resolve(): run for run in catalogue.runs(limit=-1)}
    problems.extend(f"set aside: {path.name}" for path in STATE.rglob("*corrupt*"))
    here = {path.resolve() for path in (STATE / "runs").glob("*.db")}
    problems.extend(f"not in the catalogue: {path.name}" for path in here - set(runs))
    # a run gets its file when it begins to measure
    problems.extend(f"without a file: {runs[path]}" for path in set(runs) - here if runs[path].frames)
    checked = [check_run(path, run.state, run.frames) for path, run in sorted(runs.items()) if path in here]
    going_on = [run.run_id for run in runs.values() if run.state not in ENDED]
    if len(going_on) > 1:
        problems.append(f"more than one run goes on: {going_on}")
    problems.extend(f"{runs[path]}" for path in here & set(runs) if runs[path].reason.startswith("store."))
    return checked


told = check_all()
print("\n".join(problems) if problems else json.dumps(told))
sys.exit(bool(problems))
