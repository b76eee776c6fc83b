"""Boot, and power cuts in a run: the machine is killed, its disk is kept, and it is switched on again."""

from __future__ import annotations

import json
import os
import random
import time
from typing import Any

from tests.hil.boot.machine import InstalledMachine, is_measuring

CUTS = int(os.environ.get("PHOTOMETRYD_POWER_CUTS") or 20)
SEED = int(os.environ.get("PHOTOMETRYD_POWER_CUTS_SEED") or 20261126)
LONGEST_IN_RUN_S = 20.0
COMMITTED = """
import json, pathlib, sqlite3
newest = max(pathlib.Path("/var/lib/photometryd/runs").glob("*.db"), key=lambda path: path.stat().st_ctime)
db = sqlite3.connect(f"file:{newest}?mode=ro", uri=True)
frames = db.execute("select coalesce(sum(frames), 0) from chunks").fetchone()[0]
samples, events = (db.execute(f"select count(*) from {table}").fetchone()[0] for table in ("cell_samples", "events"))
print(json.dumps({"run_id": newest.stem, "frames": frames, "samples": samples, "events": events}))
"""
"""What anybody could read of the newest run, so what a power cut may not take."""


def test_it_boots_to_ready_and_is_sandboxed(cold: InstalledMachine) -> None:
    cold.power_on()
    cold.await_ready()
    assert cold.show("Type") == "notify" and cold.show("NRestarts") == "0"
    cold.await_status(is_measuring)
    facts = cold.sh(f"grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd):' /proc/{cold.show('MainPID')}/status").split()
    assert facts == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2"]
    assert [run["state"] for run in cold.check_store()] == ["running"]


def test_what_was_committed_outlives_power_cuts(cold: InstalledMachine) -> None:
    moments = random.Random(SEED)
    before: list[dict[str, Any]] = []
    print(f"\n{CUTS} power cuts, seed {SEED}")
    for cut in range(CUTS + 1):
        began = time.monotonic()
        cold.power_on()
        cold.await_ready()
        ready_s = time.monotonic() - began
        runs = cold.check_store()
        check_kept(before, runs)
        kept = {run["run_id"]: run for run in runs}
        if cut == CUTS:
            break
        cold.await_status(is_measuring)
        in_run_s = moments.uniform(0, LONGEST_IN_RUN_S)
        committed = json.loads(cold.python(COMMITTED))
        time.sleep(in_run_s)
        cold.power_cut()
        before.append(committed)
        print(
            f"cut {cut + 1}: {ready_s:.0f} s from power to READY, {len(kept)} runs in the store and good; "
            f"cut {in_run_s:.1f} s after {committed['frames']} frames were committed",
            flush=True,
        )


def check_kept(before: list[dict[str, Any]], runs: list[dict[str, Any]]) -> None:
    """Each run that a cut ended is there, marked, with all that could be read before the cut."""
    now = {run["run_id"]: run for run in runs}
    for committed in before:
        run = now[committed["run_id"]]
        assert run["state"] == "interrupted", run
        for count in ("frames", "samples", "events"):
            assert run[count] >= committed[count], (count, committed, run)
    assert len(runs) <= len(before) + 1, "a run that nobody started"
