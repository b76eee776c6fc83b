"""A log cut at any byte: the store opens as it was after some whole transaction, and no earlier one is missing."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

from daemon.errors import StoreError
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.recovery import recover
from daemon.store.schema import wal_path
from tests.daemon.store.helpers import WAIT_S, copy_database, event, frames, open_run

TRANSACTIONS = 40


def make_logs(folder: Path) -> Path:
    """A state directory whose every transaction is in the logs: frames, rows, an event, and anew."""
    (folder / "live").mkdir()
    (folder / "state" / "runs").mkdir(parents=True)
    with open_run(folder / "live", commit_interval_s=0.001) as (writer, _):
        for number in range(TRANSACTIONS):
            writer.put_chunk(*frames(4 * number, 4)).result(WAIT_S)
            writer.put_ensemble([{"t_s": float(number)}]).result(WAIT_S)
            writer.put_events([event(float(number))]).result(WAIT_S)
        for name in ("instrument.db", "runs/r1.db"):
            copy_database(folder / "live" / name, folder / "state" / name)
    return folder / "state"


def run(folder: Path, trials: int, seed: int) -> Counter[str]:
    """`trials` cuts, half of them of the run's log. Fails by `AssertionError`."""
    rng = random.Random(seed)
    whole, state = make_logs(folder), folder / "cut"
    outcomes: Counter[str] = Counter()
    ends: set[tuple[int, int, int]] = set()
    for trial in range(trials):
        shutil.copytree(whole, state)
        log = wal_path(state / ("runs/r1.db" if trial % 2 else "instrument.db"))
        with log.open("r+b") as file:
            file.truncate(rng.randrange(log.stat().st_size))
        ends.add(_check(state, run_is_cut=trial % 2 == 1))
        shutil.rmtree(state)
        outcomes["cuts"] += 1
    outcomes["different ends"] = len(ends)
    return outcomes


def _check(state: Path, *, run_is_cut: bool) -> tuple[int, int, int]:
    recover(state / "instrument.db")
    with CatalogueReader(state / "instrument.db") as catalogue:
        events, found = catalogue.events(), catalogue.run("r1")
        assert not catalogue.damaged_rows
    assert [each.seq for each in events] == list(range(1, len(events) + 1))
    if not run_is_cut and found is None:
        return 0, 0, 0
    assert found is not None and found.state == "interrupted"
    if not (state / "runs" / "r1.db").exists():
        assert found.path.name == "r1.db.damaged-1"
        return -1, 0, 0
    try:
        with RunReader(state / "runs" / "r1.db") as reader:
            numbers = reader.frames()["frame"].tolist()
            times = [row["t_s"] for row in reader.ensemble()]
            told = [each.t_s for each in reader.events()]
            assert not reader.damaged_rows and not reader.corrupt_chunks
    except StoreError:
        assert found.reason != "run.interrupted"
        return -2, 0, 0
    assert numbers == list(range(len(numbers))) and len(numbers) % 4 == 0
    assert times == list(range(len(times))) and 0 <= len(numbers) // 4 - len(times) <= 1
    assert told == list(range(len(told)))
    return len(numbers), len(times), len(told)
