"""kill -9 at a random moment of a run: what was promised is there, in whole transactions."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

from daemon.errors import StoreError
from tests.faults.forks import Forks
from tests.faults.promises import check

LATEST_S = 0.15  # some ten transactions
FROM_START = 0.1  # of the trials: while files are made


def run(folder: Path, trials: int, seed: int, say: bool = False) -> Counter[str]:
    """`trials` kills; how many found a run begun, and how much was promised. Fails by `AssertionError`."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    with Forks() as forks:
        for trial in range(trials):
            state, after_s = folder / "state", rng.uniform(0, LATEST_S)
            said = forks.kill(state, after_s, from_start=rng.random() < FROM_START)
            try:
                check(state, said)
            except (AssertionError, StoreError) as error:
                error.add_note(f"trial {trial}: killed after {after_s:.4f} s")
                raise
            shutil.rmtree(state)
            outcomes["kills"] += 1
            outcomes["kills while a run was going on"] += said.run
            outcomes["frames promised and found"] += len(said.frames)
            outcomes["events promised and found"] += len(said.events)
            if say and trial % 100 == 99:
                print(f"  {dict(outcomes)}", flush=True)
    return outcomes
