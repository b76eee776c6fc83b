"""Many damaged inputs for one parser: taken, refused, or a finding."""

from __future__ import annotations

import faulthandler
import random
import sys
import time
import traceback
import warnings
from dataclasses import dataclass, field

from hw.errors import InstrumentError
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, Target

HANG_S = 30.0  # the slowest input of a healthy parser takes 0.1 s on a busy machine


@dataclass
class Tally:
    """What became of a campaign's inputs."""

    taken: int = 0
    refused: int = 0
    longest_s: float = 0.0
    findings: list[tuple[bytes, str]] = field(default_factory=list)
    """Inputs that raised something else, and where."""


def campaign(target: Target, inputs: int, seed: int, most_findings: int = 5) -> Tally:
    """Feed `inputs` inputs of that seed. One that hangs ends the process with a traceback; so may a crash."""
    rng = random.Random(f"{target.name} {seed}")
    seeds = target.seeds()
    tally = Tally()
    for _ in range(inputs):
        feed(target, mutated(seeds, rng), tally)
        if len(tally.findings) >= most_findings:
            break
    return tally


def feed(target: Target, data: bytes, tally: Tally) -> None:
    """One input."""
    faulthandler.dump_traceback_later(HANG_S, exit=True, file=sys.__stderr__)
    began_s = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            target.parse(data)
        tally.taken += 1
    except InstrumentError as error:
        assert error.detail and error.remedy, "a refusal says what and what to do"
        tally.refused += 1
    except Exception:
        tally.findings.append((data, traceback.format_exc(limit=-6)))
    finally:
        faulthandler.cancel_dump_traceback_later()
    tally.longest_s = max(tally.longest_s, time.monotonic() - began_s)


def told(name: str, inputs: int, seed: int) -> None:
    """The whole life of a process: a campaign, printed; exits with 1 when it found something."""
    target = next(each for each in TARGETS if each.name == name)
    tally = campaign(target, inputs, seed)
    outcome = f"{tally.taken} taken, {tally.refused} refused, longest {tally.longest_s:.3f} s"
    print(f"{name}: {inputs} inputs, {outcome}", flush=True)
    for data, trace in tally.findings:
        print(f"  {data[:200]!r} ({len(data)} bytes)\n{trace}", flush=True)
    sys.exit(bool(tally.findings))
