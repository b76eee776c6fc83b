"""One flipped bit anywhere in a database or its log: what comes back is true, and what does not come back is told."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from daemon.store.reader import CatalogueReader, RunReader
from tests.faults.state import CATALOGUE_CALLS, FILES, RUN_CALLS, Told, ask

SPANS = ("frame count", "last")
"""Questions about all rows at once: their answer may differ when damage is told, so rows are not compared."""


def ask_about(state: Path, name: str) -> Told:
    """Everything there is to ask about the database that the file `name` belongs to."""
    path = state / name.removesuffix("-wal")
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    return ask(path, RunReader, RUN_CALLS) if "runs/" in name else ask(path, CatalogueReader, CATALOGUE_CALLS)


def verdict(told: Told, truth: Told, cut: Told, early: Told) -> str:
    """`true`, `told`, `cut` (as a power cut leaves it: without the last transaction), or what came back falsely."""
    if told == truth:
        return "true"
    if told == cut:
        return "cut"
    for name, (rows, damage) in told.items():
        if not damage and rows != truth[name][0]:
            return f"unnoticed: {name}"
        known = {row for each in (truth, cut, early) for row in each[name][0]}
        if name not in SPANS and not known.issuperset(rows):
            return f"false rows: {name}"
    return "told"


def run(states: tuple[Path, Path, Path], trials: int, seed: int, say: bool = False) -> Counter[str]:
    """Flip `trials` bits, spread evenly over all bytes of the state directory; how often came what of it."""
    rng = random.Random(seed)
    state, *earlier = states
    names = [name for name in FILES if (state / name).exists()]
    sizes = [(state / name).stat().st_size for name in names]
    truth = {name: ask_about(state, name) for name in names}
    older = {name: [ask_about(each, name) for each in earlier] for name in names}
    outcomes: Counter[str] = Counter()
    for trial in range(trials):
        name = rng.choices(names, sizes)[0]
        place, bit = rng.randrange((state / name).stat().st_size), rng.randrange(8)
        with _flipped(state / name, place, bit):
            found = verdict(ask_about(state, name), truth[name], *older[name])
        outcomes[found] += 1
        if say and trial % 1000 == 999:
            print(f"  {dict(outcomes)}", flush=True)
        if say and found not in ("true", "told", "cut"):
            print(f"  trial {trial}: {name} byte {place} bit {bit}: {found}", flush=True)
    return outcomes


class _flipped:
    def __init__(self, path: Path, place: int, bit: int) -> None:
        self._path, self._place, self._bit = path, place, bit

    def _flip(self) -> None:
        with self._path.open("r+b") as file:
            file.seek(self._place)
            byte = file.read(1)[0]
            file.seek(self._place)
            file.write(bytes([byte ^ 1 << self._bit]))

    def __enter__(self) -> None:
        self._flip()

    def __exit__(self, *_: object) -> None:
        self._flip()
