"""Every check of a store, beside a service that uses it: by the installed Python, on a state directory.

Takes reasons of the store's that runs ended for on purpose, after the directory. Ends with 0 and a JSON line about
every run, or with 1 and what is wrong.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from daemon.parts import RunSummary
from daemon.store.check import check_file
from daemon.store.reader import CatalogueReader

STATE = Path(sys.argv[1])
EXPECTED = sys.argv[2:]
ENDED = ("done", "interrupted", "failed")
problems: list[str] = []


def check_rows(path: Path) -> None:
    """The product's own check: SQLite's structure, check sums of every row and blob, and that none is missing."""
    found = check_file(path)
    if not (found.is_sound and found.has_proof and found.rows):
        problems.append(f"{path.name}: {found}")


def check_run(run: RunSummary) -> dict[str, Any]:
    """A run's file against itself and against the catalogue."""
    path = run.path
    check_rows(path)
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        extents = db.execute("select first_frame, frames, t0_s, t1_s from chunks order by chunk_id").fetchall()
        counts = {name: db.execute(f"select count(*) from {name}").fetchone()[0] for name in ("cell_samples", "events")}
        state = json.loads(db.execute("select value from metadata where key = 'state'").fetchone()[0])
    frames = sum(extent[1] for extent in extents)
    for before, after in pairwise(extents):
        if after[0] < before[0] + before[1] or after[2] <= before[3]:
            problems.append(f"{path.name}: a chunk begins before the one before ended: {before} {after}")
    if run.state in ENDED:
        if (run.frames, run.state) != (frames, state):
            problems.append(f"{path.name}: {frames} frames and '{state}', the catalogue says {run}")
        if Path(f"{path}-wal").exists():
            problems.append(f"{path.name}: an ended run that is not one file")
        if run.reason.startswith("store.") and run.reason not in EXPECTED:
            problems.append(f"{path.name}: {run}")
    samples, events = counts["cell_samples"], counts["events"]
    about = {"run_id": run.run_id, "state": run.state, "reason": run.reason}
    return about | {"frames": frames, "samples": samples, "events": events}


def check_all() -> list[dict[str, Any]]:
    """The catalogue, and every run that it or the directory knows."""
    check_rows(STATE / "instrument.db")
    with CatalogueReader(STATE / "instrument.db") as catalogue:
        runs = {run.path.resolve(): run for run in catalogue.runs(limit=-1)}
    problems.extend(f"set aside: {path.name}" for path in STATE.rglob("*corrupt*"))
    here = {path.resolve() for path in (STATE / "runs").glob("*.db")}
    problems.extend(f"not in the catalogue: {path.name}" for path in here - set(runs))
    # a run gets its file when it begins to measure
    problems.extend(f"without a file: {runs[path]}" for path in set(runs) - here if runs[path].frames)
    going_on = [run.run_id for run in runs.values() if run.state not in ENDED]
    if len(going_on) > 1:
        problems.append(f"more than one run goes on: {going_on}")
    return [check_run(runs[path]) for path in sorted(here & set(runs))]


told = check_all()
print("\n".join(problems) if problems else json.dumps(told))
sys.exit(bool(problems))
