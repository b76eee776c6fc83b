"""Boot, and power cuts in a run: the machine is killed, its disk is kept, and it is switched on again."""

from __future__ import annotations

import json
import os
import random
import time
from typing import Any

from tests.hil.boot.machine import READY_S, UNIT, InstalledMachine, is_measuring

CUTS = int(os.environ.get("PHOTOMETRYD_POWER_CUTS") or 20)
SEED = int(os.environ.get("PHOTOMETRYD_POWER_CUTS_SEED") or 20261126)
LONGEST_IN_RUN_S = 40.0
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


def cut(machine: InstalledMachine, after_s: float) -> dict[str, Any]:
    """Pull the plug `after_s` from now; returns what could be read of the run just before."""
    time.sleep(after_s)
    committed: dict[str, Any] = json.loads(machine.python(COMMITTED))
    machine.power_cut()
    return committed


def start_and_check(machine: InstalledMachine, before: list[dict[str, Any]]) -> None:
    """Switch it on with the disk it has, up to READY, and look at everything in the store."""
    began = time.monotonic()
    machine.power_on()
    machine.await_ready()
    ready_s = time.monotonic() - began
    runs = machine.check_store()
    check_kept(before, runs)
    frames = {run["run_id"]: run["frames"] for run in runs}
    told = ", ".join(f"{one['frames']} frames were committed, {frames[one['run_id']]} are there" for one in before)
    print(f"  {ready_s:.0f} s from power to READY, {len(runs)} runs in the store and all good; {told}", flush=True)


def test_what_was_committed_outlives_power_cuts(saved: InstalledMachine) -> None:
    moments = random.Random(SEED)
    print(f"\n{CUTS} power cuts, seed {SEED}")
    for number in range(1, CUTS + 1):
        after_s = moments.uniform(0, LONGEST_IN_RUN_S)
        with saved.resume():
            committed = cut(saved, after_s)
        print(f"cut {number} of {CUTS}, {after_s:.1f} s into a saved run", flush=True)
        try:
            start_and_check(saved, [committed])
        finally:
            saved.stop()


def test_power_cuts_in_a_row_and_within_a_start_add_up_to_nothing(saved: InstalledMachine) -> None:
    """On one disk: a cut in a run, one while the service puts in order what it left, one in the next run."""
    moments = random.Random(SEED)
    with saved.resume():
        first = cut(saved, moments.uniform(0, LONGEST_IN_RUN_S))
    try:
        saved.power_on()
        saved.eventually(f"systemctl show --property=SubState {UNIT} | grep -qx SubState=start", READY_S)
        time.sleep(moments.uniform(0, LONGEST_IN_RUN_S))
        saved.power_cut()
        start_and_check(saved, [first])
        saved.await_status(is_measuring)
        second = cut(saved, moments.uniform(0, LONGEST_IN_RUN_S))
        start_and_check(saved, [first, second])
    finally:
        saved.stop()


def check_kept(before: list[dict[str, Any]], runs: list[dict[str, Any]]) -> None:
    """Each run that a cut ended is there, marked, with all that could be read before the cut."""
    now = {run["run_id"]: run for run in runs}
    for committed in before:
        run = now[committed["run_id"]]
        assert run["state"] == "interrupted", run
        for count in ("frames", "samples", "events"):
            assert run[count] >= committed[count], (count, committed, run)
    # one goes on or begins; one may have begun in a start that was cut
    assert len(runs) <= len(before) + 2, "a run that nobody started"
