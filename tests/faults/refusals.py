"""A disk that refuses: ENOSPC, EIO or a slow sync at the n-th write of a run, for every n."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from daemon.errors import StoreError
from tests.faults.forks import Forks
from tests.faults.promises import check

STALL_MS = 40
SOURCE = Path(__file__).with_name("refuse.c")


@dataclass(frozen=True)
class Fault:
    """How the disk fails: `times` calls from the n-th on, 0: for good."""

    name: str
    error: int
    times: int


FAULTS = (
    Fault("ENOSPC for good", errno.ENOSPC, 0),
    Fault("ENOSPC once", errno.ENOSPC, 1),
    Fault("EIO for good", errno.EIO, 0),
    Fault("EIO once", errno.EIO, 1),
    Fault("slow sync", 0, 0),
)


def build_shim(folder: Path) -> Path:
    """The library to preload."""
    shim = folder / "refuse.so"
    command = ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(shim), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return shim


def run(folder: Path, every: int = 1, faults: Iterable[Fault] = FAULTS, say: bool = False) -> Counter[str]:
    """Every `every`-th call, each fault; how many runs with each. Fails by `AssertionError`."""
    shim = build_shim(folder)
    with Forks(shim) as forks:
        calls = forks.run(folder / "whole").calls
        outcomes: Counter[str] = Counter({"calls in a run": calls})
        for fault in faults:
            for at in range(1, calls + 1, every):
                state = folder / "state"
                try:
                    said = forks.run(state, (at, fault.error, fault.times, STALL_MS))
                    assert said.done
                    check(state, said)
                except (AssertionError, StoreError) as error:
                    error.add_note(f"{fault.name} at call {at}")
                    raise
                shutil.rmtree(state)
                outcomes[fault.name] += 1
                outcomes["runs that were refused something"] += said.refused_frames > 0 or not said.ended
            if say:
                print(f"  {fault.name}: {outcomes[fault.name]} runs", flush=True)
    return outcomes
