"""A disk that refuses: ENOSPC, EIO or a slow sync at the n-th write of a run, for every n."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.promises import Said, check

HANG_S = 60.0  # a run takes a second; on a loaded machine ten
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


def record(shim: Path, folder: Path, at: int, fault: Fault) -> tuple[Said, int]:
    """One run with the fault at the `at`-th call (0: none): what was said, and how many calls there were."""
    folder.mkdir()
    counted = folder.with_name("count")
    environ = os.environ | {
        "LD_PRELOAD": str(shim), "REFUSE_FOLDER": str(folder), "REFUSE_AT": str(at), "REFUSE_WITH": str(fault.error),
        "REFUSE_TIMES": str(fault.times), "REFUSE_STALL_MS": str(STALL_MS), "REFUSE_COUNT": str(counted),
    }  # fmt: skip
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.faults.subject", str(folder)]
    child = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert child.returncode == 0 and "Traceback" not in child.stderr, child.stderr[-2000:]
    return Said.of(child.stdout.splitlines()), int(counted.read_text())


def run(folder: Path, every: int = 1, faults: Iterable[Fault] = FAULTS, say: bool = False) -> Counter[str]:
    """Every `every`-th call, each fault; how many runs with each. Fails by `AssertionError`."""
    shim = build_shim(folder)
    _, calls = record(shim, folder / "whole", 0, FAULTS[0])
    outcomes: Counter[str] = Counter({"calls in a run": calls})
    for fault in faults:
        began_s = time.monotonic()
        for at in range(1, calls + 1, every):
            state = folder / "state"
            try:
                said, _ = record(shim, state, at, fault)
                assert said.done
                check(state, said)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                error.add_note(f"{fault.name} at call {at}")
                raise
            shutil.rmtree(state)
            outcomes[fault.name] += 1
            outcomes["runs that were refused something"] += said.refused_frames > 0 or not said.ended
        if say:
            print(f"  {fault.name}: {outcomes[fault.name]} runs, {time.monotonic() - began_s:.0f} s", flush=True)
    return outcomes
