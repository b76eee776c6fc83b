"""One seed: its world, its actions, its verdict. Each in a process of its own, forked from one that is warm."""

from __future__ import annotations

import faulthandler
import gc
import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import daemon.photometry.edits  # noqa: F401  what preparing imports lazily, in a process of its own
from tests.scenarios import invariants
from tests.scenarios.actions import DO, Action, generate
from tests.scenarios.engine import Picture
from tests.scenarios.schedule import BOOTED_S, SCHEDULE, Stuck
from tests.scenarios.world import World, world

REAL_LIMIT_S = 300  # of the real clock: a seed that takes longer has met a wait that nobody knows of
Plant = Callable[[World], None]


@dataclass
class Verdict:
    """What became of a seed."""

    seed: int
    broken: list[str]
    actions: list[str]
    digest: str
    """Of everything that happened, in order."""
    passed_s: float
    """Of the scenario's clock."""
    lives: int
    turns: int
    deadlines: list[str] = field(default_factory=list)
    """When the cell went on and off, engines came and went, daemons started and stopped."""
    log: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)


def play(
    seed: int,
    actions: list[Action] | None,
    count: int,
    picture: Picture,
    plant: Plant | None = None,
    still: bool = False,
) -> Verdict:
    """The whole scenario, in this process, which is spoilt by it: its killed daemons stay where they were.

    `still`: nobody sets the wall clock, everything else is as it would be.
    """
    SCHEDULE.rng = random.Random(f"threads {seed}")
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="scenario-", dir=base))
    watch, done = invariants.Watch(), []
    try:
        with world(seed, folder, picture) as one:
            if plant is not None:
                plant(one)
            one.on_look = lambda each: invariants.look(each, watch)
            watch.begin()
            try:
                for action in generate(seed, one.pace, count) if actions is None else actions:
                    one.still = still
                    done.append(action)
                    step(one, action, watch)
                    if watch.broken:
                        break
                else:
                    invariants.settle(one, watch)
            except Stuck as error:
                watch.breaks(f"stuck: {error}")
            return _verdict(one, watch, done)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def step(one: World, action: Action, watch: invariants.Watch) -> None:
    """Do it, let time pass, look at everything."""
    if action.name != "start" and one.life is None:
        return
    DO[action.name](one, action.value)
    one.run(action.then_s)
    invariants.check(one, watch)


def _verdict(one: World, watch: invariants.Watch, done: list[Action]) -> Verdict:
    told = [f"{at_s:.2f} {what}" for at_s, what in one.bench.history] + one.trace
    told += [f"engine {engine.pid} {engine.returncode} {engine.captured}" for engine in one.optics.engines]
    digest = hashlib.sha256("\n".join([*told, *watch.broken]).encode()).hexdigest()[:16]
    deadlines = [f"{at_s:.1f} {what}" for at_s, what in one.bench.history]
    deadlines += [f"{engine.began_s:.1f} {engine.fault_s:.1f} {engine.returncode}" for engine in one.optics.engines]
    deadlines += [f"{life.began_s:.1f} {life.state} {life.changed_s:.1f}" for life in one.lives]
    log = one.lives[-1].witness.lines[-60:] if one.lives and watch.broken else []
    return Verdict(
        one.seed, watch.broken, [str(action) for action in done], digest, SCHEDULE.now_s - BOOTED_S, len(one.lives),
        SCHEDULE.turns, deadlines, log, told if watch.broken or os.environ.get("SCENARIO_TRACE") else [],
    )  # fmt: skip


class Child:
    """A forked process that plays one seed; `descriptor` becomes readable when it is done."""

    def __init__(self, seed: int, work: Callable[[], Verdict]) -> None:
        self.seed = seed
        self.descriptor, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.descriptor)
            _child(theirs, work)
        os.close(theirs)
        self._answer = bytearray()

    def read(self) -> Verdict | None:
        """Take what came; the verdict once it is whole."""
        piece = os.read(self.descriptor, 1 << 20)
        self._answer += piece
        if piece:
            return None
        os.close(self.descriptor)
        _, status = os.waitpid(self.pid, 0)
        if status or not self._answer:
            why = f"the process of the scenario ended with status {status}: killed, crashed or over {REAL_LIMIT_S} s"
            return Verdict(self.seed, [why], [], "", 0.0, 0, 0)
        return Verdict(**json.loads(self._answer))


def _child(descriptor: int, work: Callable[[], Verdict]) -> None:
    faulthandler.enable()
    faulthandler.dump_traceback_later(REAL_LIMIT_S, exit=True)
    status = 1
    try:
        answer = json.dumps(asdict(work())).encode()
        while answer:
            answer = answer[os.write(descriptor, answer) :]
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)  # whatever threads the scenario left


def outcome(
    seed: int, picture: Picture, *, actions: list[Action] | None = None, count: int = 12, plant: Plant | None = None
) -> Verdict:
    """Play one seed in a child and wait for its verdict."""
    child = Child(seed, lambda: play(seed, actions, count, picture, plant))
    while (verdict := child.read()) is None:
        pass
    return verdict


def shrink(seed: int, picture: Picture, count: int, pace: float, tries: int = 40) -> list[Action]:
    """Fewer actions with which it still fails: halves, quarters, then single ones are left out."""
    actions = generate(seed, pace, count)
    size = max(1, len(actions) // 2)
    while size and tries > 0:
        at = 1
        while at < len(actions) and tries > 0:
            fewer = actions[:at] + actions[at + size :]
            tries -= 1
            if outcome(seed, picture, actions=fewer).broken:
                actions = fewer
            else:
                at += size
        size //= 2
    return actions


def rehearse(picture: Picture) -> None:
    """Play a short scenario here, so that kernels are loaded and masks found before the first child is forked."""
    play(0, [Action("start", 0.0, 20.0), Action("begin_run", 0.9, 120.0), Action("edit_masks", 0.0, 60.0)], 0, picture)
    SCHEDULE.__init__()  # type: ignore[misc]
    gc.collect()
    gc.freeze()
