"""From a kill to an answering API, with a store of 2 GB; and what row check sums and tallies cost."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from daemon.store.check import check_file
from daemon.store.reader import RunReader
from tests.bench.figures import Figure, at_most
from tests.daemon.store.helpers import WAIT_S, frames, open_run, summary
from tests.service import LIVE, Service

GIGABYTES = 2.0
PARTICLES = 300
COPIES = 7  # of one finished run; another one was going on
FRAMES_AT_ONCE = 250


def run() -> list[Figure]:
    """A state directory of finished runs and one that was cut, then a start; the full check of a finished run."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        service = Service(Path(folder), LIVE)
        size = make_store(service.state_dir, GIGABYTES * 1e9)
        api_s, up_s = start(service)
        states = {each["run_id"]: each["state"] for each in service.get("/api/v1/runs")["runs"]}
        service.stop()
        finished = service.state_dir / "runs" / "c0.db"
        outcome = check_file(finished)
        rate = finished.stat().st_size / outcome.took_s / 1e6
    return [
        Figure("store after an unclean stop", f"{size / 1e9:.2f} GB", ">= 2 GB", size >= GIGABYTES * 1e9),
        at_most("start to an answering API", api_s, 5, "s", 1),
        at_most("start to READY=1", up_s, 30, "s", 1),
        Figure("  the run that was cut is then", states["cut"], "interrupted", states["cut"] == "interrupted"),
        Figure("  full check of a finished run", f"{rate:.0f} MB/s", "sound", outcome.is_sound),
    ]


def start(service: Service) -> tuple[float, float]:
    """Seconds until the API has answered, and until READY=1."""
    began_s = time.monotonic()
    starting = threading.Thread(target=service.start)
    starting.start()
    while not any("the API answers at" in line for line in list(service.lines)):
        time.sleep(0.005)
    said = next(line for line in list(service.lines) if "the API answers at" in line)
    url = said.split("the API answers at ")[1].split()[0].rstrip("/")
    urllib.request.urlopen(f"{url}/api/v1/status", timeout=30).close()
    api_s = time.monotonic() - began_s
    starting.join()
    return api_s, service.ready_s


def make_store(state: Path, size: float) -> int:
    """Run files of `size` bytes together, the last one cut while it was written; their bytes."""
    state.mkdir(parents=True)
    with open_run(state, commit_interval_s=0.05) as (writer, path):  # each chunk is waited for
        number = 0
        while path.stat().st_size < size / (COPIES + 1):
            columns = frames(number, FRAMES_AT_ONCE, PARTICLES, seed=number % 4)
            writer.put_chunk(*columns, wait_s=WAIT_S).result(60)
            number += FRAMES_AT_ONCE
        writer.close_run().result(60)
        writer.update_run("r1", state="done").result(WAIT_S)
        for copy in range(COPIES - 1):
            name = f"c{copy}"
            writer.record_run(summary(name, state / "runs" / f"{name}.db", state="done")).result(WAIT_S)
            shutil.copyfile(path, state / "runs" / f"{name}.db")
        cut = state / "runs" / "cut.db"
        shutil.copyfile(path, cut)
        writer.record_run(summary("cut", cut, state="running")).result(WAIT_S)
    with RunReader(cut) as reader:
        assert reader.frame_count() == number
    return sum(each.stat().st_size for each in state.rglob("*") if each.is_file())
