"""What must hold whatever happens, looked at after every step and, for the cell, all along."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from daemon.errors import all_reasons
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.recovery import recover
from tests.scenarios.client import Request
from tests.scenarios.disk import PLENTY_MB
from tests.scenarios.life import ENDS_S
from tests.scenarios.schedule import SCHEDULE
from tests.scenarios.standins import sleep
from tests.scenarios.world import LOOK_SHARE, World

ENDED = ("done", "failed", "interrupted", "deleted")
CODES = frozenset(reason.code for reason in all_reasons())
ANSWER_S = 1.0  # the status waits for no device
LONGEST_ANSWER_S = 90.0  # any other: the slowest waits for the store, a driver and its rescue
BLOCKED_S = 0.5
MOST_THREADS = 48
MOST_DESCRIPTORS = 80  # beyond those of before the daemon
MOST_GROWTH_BYTES = 250_000_000
MOST_WAL_BYTES = 64_000_000
RECONNECT_S = 45.0  # the longest pause between two attempts to open, and the attempt


@dataclass
class Watch:
    """What has to be remembered from one look to the next; `broken` collects what does not hold."""

    broken: list[str] = field(default_factory=list)
    owned_s: float = -1e18
    """When the cell last had an owner, or was off."""
    unable_s: float = -1e18
    """When the instrument was last truly not able to measure."""
    last_seq: int = 0
    base_bytes: int = 0
    base_descriptors: int = 0
    flow_s: float = -1e18
    """When frames last flowed into a run, or something kept the store from taking them."""
    run_s: float = -1e18
    """When a run was last in progress."""

    def breaks(self, sentence: str) -> None:
        """Something does not hold."""
        if len(self.broken) < 20:
            self.broken.append(f"{SCHEDULE.now_s:.2f} {sentence}")

    def begin(self) -> None:
        """Before the first daemon."""
        self.base_bytes = psutil.Process().memory_info().rss
        self.base_descriptors = len(os.listdir("/proc/self/fd"))


# all along


def look(world: World, watch: Watch) -> None:
    """Between two steps: the cell, and what the daemon could know."""
    _cell(world, watch)
    _truth(world, watch)
    world.remember()


def _cell(world: World, watch: Watch) -> None:
    """Never on without an owner for longer than the daemon's deadlines allow."""
    bench, life, now_s = world.bench, world.life, SCHEDULE.now_s
    on = bench.energised
    if life is None or not life.alive:
        watch.owned_s = now_s  # nobody is left: the device's own loss of host has the say
        return
    state = life.instrument.cell.state
    watched_s = max(bench.looked_s, bench.since_s)
    watched = state == "running" and now_s - watched_s <= world.deadline_s + 4.0 + 2.0 * world.pace
    told = any(bench.has(fault) for fault in ("refuses_off", "ignores_off", "unplugged", "hangs"))
    if not on or watched or told:
        watch.owned_s = now_s
    patience_s = RECONNECT_S + 4.0 * world.deadline_s + 8.0 * world.pace
    since_s = max(watch.owned_s, bench.since_s, bench.fault_end_s, life.began_s)
    if now_s - since_s > patience_s:
        watch.breaks(f"the cell is on, and nobody owns it since {since_s:.2f} (the daemon says '{state}')")


def _truth(world: World, watch: Watch) -> None:
    engine = world.optics.engine
    able = engine is not None and engine.well and not world.disk.failing
    if world.life is not None and world.life.state == "up" and world.life.instrument.runs.current() is not None:
        watch.run_s = SCHEDULE.now_s
    if not able:
        watch.unable_s = SCHEDULE.now_s


# after every step


def check(world: World, watch: Watch) -> None:
    """Everything."""
    life = world.life
    if life is None:
        return
    if life.state == "up":
        _answers(world, watch)
    for rule in (_process, _requests, _log, _accounts, _events, _bounds, _faults, _files):
        rule(world, watch)
    watch.broken += [line for line in world.trace if "BROKEN" in line and line not in watch.broken]


def _answers(world: World, watch: Watch) -> None:
    """Status and readiness come at once, and readiness is the truth."""
    ready, status = world.ask("GET", "/readyz"), world.ask("GET", "/status")
    world.ask("GET", "/runs?limit=50").on_answer = lambda answer: _in_progress(world, watch, answer)
    ready.on_answer = lambda answer: _is_ready(world, watch) if answer.status == 200 else None
    sleep(ANSWER_S)
    look(world, watch)
    if world.life is None or world.life.state != "up":
        return
    for request in (ready, status):
        if request.answered_s is None:
            watch.breaks(f"{request.path} has no answer after {ANSWER_S:g} s")
    if ready.status == 503:
        _may_be_unready(world, watch, ready.json())


def _is_ready(world: World, watch: Watch) -> None:
    """Whoever is told `ready` can start a run: no vital part may be gone for longer than it takes to notice."""
    now_s, engine, pace = SCHEDULE.now_s, world.optics.engine, world.pace
    gone_s = 0.0 if world.optics.camera_there else now_s - world.optics.camera_lost_s
    if engine is None:
        ended_s = max((each.fault_s for each in world.optics.engines), default=now_s)
        if now_s - ended_s > 2.0 * pace + 2.0:
            watch.breaks(f"ready, and no engine lives since {ended_s:.2f}")
    elif engine.hung and now_s - engine.fault_s > 5.0 * pace + 2.0 * pace + 5.0:
        watch.breaks(f"ready, and the engine hangs since {engine.fault_s:.2f}")
    elif not engine.started and not engine.hung and not now_s - engine.fault_s <= 2.0 * pace + 2.0:
        watch.breaks("ready, and the engine has not started")
    elif engine.started and not engine.hung and gone_s > 3.0:  # another cannot tell of its camera
        watch.breaks(f"ready, and the camera is gone since {gone_s:.2f} s")
    failed_s = world.disk.last_failed_s
    if failed_s > world.disk.last_good_s and now_s - failed_s > 2.0 + pace:
        watch.breaks("the store is ready, and its last attempt to write failed")
    assert world.life is not None
    seen_s = max(world.disk.filled_s, world.life.changed_s)
    if world.disk.free_mb < world.settings().store.min_free_mb and now_s - seen_s > 15.0 + 5.0 * pace:
        watch.breaks(f"ready, and only {world.disk.free_mb} MB are free since {seen_s:.2f}")


def _in_progress(world: World, watch: Watch, answer: Request) -> None:
    """No run is told to be in progress but the one that is."""
    assert world.life is not None
    current = world.life.instrument.runs.current()
    if answer.status != 200:
        return
    for run in answer.json()["runs"]:
        if run["state"] not in ENDED and (current is None or current.run_id != run["run_id"]):
            watch.breaks(f"run {run['run_id']} is told to be '{run['state']}', and is not in progress")


def _may_be_unready(world: World, watch: Watch, body: dict[str, Any]) -> None:
    """An instrument that could measure says so before long, unless the engine was given up."""
    blocking = {part["name"]: part for part in body["blocking"]}
    for name, part in blocking.items():
        if part["state"] != "starting" and not (part["reason"] and part["remedy"]):
            watch.breaks(f"'{name}' is {part['state']} and does not say why and what to do: {part}")
    if blocking.get("engine", {}).get("reason") == "engine.gave_up":
        return
    calm_s = SCHEDULE.now_s - max(watch.unable_s, world.disk.fault_until_s, world.life.changed_s if world.life else 0)
    if blocking.keys() <= {"engine", "camera"} and calm_s > 20.0 * world.pace + 10.0:
        watch.breaks(f"not ready, and nothing is wrong since {calm_s:.0f} s: {sorted(blocking)}")


def _process(world: World, watch: Watch) -> None:
    """It stops in time, leaves nothing behind, and never waits in its event loop."""
    life = world.life
    assert life is not None
    if life.state == "stopping" and SCHEDULE.now_s - life.changed_s > ENDS_S + 4.0 * world.pace:
        watch.breaks(
            f"asked to stop {SCHEDULE.now_s - life.changed_s:.0f} s ago, and it has not: {SCHEDULE.alive(life.number)}"
        )
    if life.state == "ended" and life.error is not None:
        watch.breaks(f"the daemon ended with {life.error!r}")
    if life.state == "ended" and life.left:
        watch.breaks(f"tasks outlived the stop: {life.left}")
    if life.state in ("ended", "refused"):
        left = [name for name in SCHEDULE.alive(life.number) if not name.startswith("potentiostat")]
        if SCHEDULE.now_s <= world.disk.slow_until_s + world.disk.slow_s + 10.0:
            left = [name for name in left if name != "store-writer"]  # a write may take a minute: it goes on with them
        if left and SCHEDULE.now_s - life.changed_s > 10.0:
            watch.breaks(f"threads outlived the stop: {left}")
    if life.state == "starting" and SCHEDULE.now_s - life.began_s > 400.0 * world.pace:
        watch.breaks(f"still starting after {SCHEDULE.now_s - life.began_s:.0f} s")
    stalled = life.instrument.watchdog.stalled() if life.state == "up" else {}
    if stalled.keys() & {"cell", "loop"}:
        watch.breaks(f"systemd would end the daemon, and it is well: {stalled}")
    if life.loop.poll.worst_s > BLOCKED_S:
        watch.breaks(f"the event loop was held up for {life.loop.poll.worst_s:.2f} s")
        life.loop.poll.worst_s = 0.0


def _requests(world: World, watch: Watch) -> None:
    """Every request is answered, none with a fault of the software, each refusal with a code and a remedy."""
    open_ones = []
    for request in world.requests:
        if request.answered_s is None:
            if world.life is not None and world.life.state == "up" and world.life.changed_s <= request.asked_s:
                open_ones.append(request)
                if SCHEDULE.now_s - request.asked_s > LONGEST_ANSWER_S + 10.0 * world.pace:
                    watch.breaks(f"{request.method} {request.path} has no answer since {request.asked_s:.2f}")
            continue
        world.trace.append(f"{request.answered_s:.2f} {request.method} {request.path} {request.status}")
        _answer(request, watch)
    world.requests[:] = open_ones


def _answer(request: Request, watch: Watch) -> None:
    if request.status < 400 or request.path.endswith("/readyz"):
        return
    try:
        problem = request.json()
    except ValueError:
        problem = {}
    if request.status == 500 or problem.get("code") not in CODES or not problem.get("remedy"):
        watch.breaks(f"{request.method} {request.path} was answered {request.status}: {request.content[:300]!r}")


def _log(world: World, watch: Watch) -> None:
    """No traceback, ever: what can happen to an instrument is an error with a name."""
    for life in world.lives:
        for text in life.witness.tracebacks:
            watch.breaks(f"the log has a traceback: {text}")
        life.witness.tracebacks.clear()


def _accounts(world: World, watch: Watch) -> None:
    """captured = idle + stored + dropped + in flight, and what is in flight comes down."""
    life = world.life
    assert life is not None
    if life.state != "up":
        return
    instrument, pace, now_s = life.instrument, world.pace, SCHEDULE.now_s
    accounts, stats = instrument.pulse.accounts, instrument.writer.stats()
    total = accounts.idle + accounts.stored + accounts.dropped.total() + accounts.in_flight
    if total != accounts.captured:
        watch.breaks(f"captured {accounts.captured} is not idle + stored + dropped + in flight: {accounts}")
    held_up = world.disk.failing or now_s < world.disk.slow_until_s or stats.queue_ops > 20
    run = instrument.runs.current()
    if held_up or (run is not None and run.state != "running"):
        watch.flow_s = now_s
    # one that was asked for may have begun and failed between two looks
    rested = now_s - max(watch.run_s, world.run_asked_s, life.changed_s) > (LOOK_SHARE + 4.0) * pace + 10.0
    rate = world.optics.frame_rate_hz
    moving = rate * (2 * world.optics.tick_s + 6.0 * pace + 8.0) + 8
    calm = now_s - max(watch.flow_s, world.disk.fault_until_s, world.disk.slow_until_s) > 15.0 * pace + 10.0
    if calm and not -moving <= accounts.in_flight <= moving:
        watch.breaks(f"{accounts.in_flight} frames are in flight, and nothing holds them: {accounts}")
    engine = world.optics.engine
    if calm and rested and engine is not None and engine.well and accounts.in_flight > 0:
        watch.breaks(f"{accounts.in_flight} frames are in flight without a run: {accounts}")


def _events(world: World, watch: Watch) -> None:
    """Sequence numbers rise, over restarts too."""
    life = world.life
    assert life is not None
    if life.state != "up":
        return
    feed = life.instrument.feed
    numbers = [event.seq for event in feed._recent]
    if any(b <= a for a, b in pairwise(numbers)):
        watch.breaks(f"event numbers do not rise: {numbers[-20:]}")
    if feed.last_seq < max(watch.last_seq, world.durable.last_seq):
        watch.breaks(f"the newest event is {feed.last_seq}, after {max(watch.last_seq, world.durable.last_seq)}")
    watch.last_seq = max(watch.last_seq, feed.last_seq)


def _bounds(world: World, watch: Watch) -> None:
    """Queues, memory, threads, descriptors and files."""
    life = world.life
    assert life is not None
    instrument = life.instrument
    stats = instrument.writer.stats()
    threads = SCHEDULE.alive(life.number)
    descriptors = len(os.listdir("/proc/self/fd")) - watch.base_descriptors - 40 * (len(world.lives) - 1)
    grown = psutil.Process().memory_info().rss - watch.base_bytes - 40_000_000 * (len(world.lives) - 1)
    bounds: tuple[tuple[str, float, float], ...] = (
        ("operations wait for the store", stats.queue_ops, stats.queue_ops_bound),
        ("bytes wait for the store", stats.queue_bytes, stats.queue_bytes_bound),
        ("items wait for the science", instrument.runs.queue_depth, 512),
        ("bytes are in the write-ahead log", stats.wal_bytes, MOST_WAL_BYTES),
        ("faults are kept", len(instrument.faults.recent(10_000)), 200),
        ("threads run", len(threads), MOST_THREADS),
        ("descriptors are open", descriptors, MOST_DESCRIPTORS),
        ("bytes of memory were taken", grown, MOST_GROWTH_BYTES),
    )
    for what, value, bound in bounds:
        if value > bound:
            watch.breaks(f"{value:g} {what}, at most {bound:g}: {threads if 'threads' in what else ''}")


def _faults(world: World, watch: Watch) -> None:
    """Every fault has a code that is documented and says what to do."""
    assert world.life is not None
    for fault in world.life.instrument.faults.recent(200):
        if fault["code"] not in CODES or not fault["remedy"]:
            watch.breaks(f"a fault without a code or a remedy: {fault}")


def _files(world: World, watch: Watch) -> None:
    """Nothing but what belongs there, and only so much of it."""
    runs = list((world.state_dir / "runs").glob("*.db"))
    files = sum(1 for path in world.state_dir.rglob("*") if path.is_file())
    if files > 4 * len(runs) + 30:
        watch.breaks(f"{files} files below the state directory for {len(runs)} runs")


# at the end


def settle(world: World, watch: Watch) -> None:
    """Everything is well again: the instrument must be, too. Then it stops, and its record is read back."""
    world.bench.until_s.clear()
    world.bench.work_out()
    world.bench.spoil_v = 0.0
    world.disk.fault_until_s = world.disk.slow_until_s = 0.0
    world.disk.free_mb = PLENTY_MB
    world.optics.start_fault = world.optics.prepare_fault = ""
    world.optics.refusals = 0
    world.optics.set_camera(True)
    if world.life is not None and world.life.state in ("starting", "stopping"):
        world.run(ENDS_S)  # on the disk as it was: a start that fails for it is begun again, as by systemd
    world.run(world.disk.slow_s)  # a write that was begun while the disk was slow keeps the file locked
    world.start()
    world.run(40.0 + 8.0 * world.pace)
    check(world, watch)
    assert world.life is not None
    if world.life.state == "up":
        _recovers(world, watch)
    world.life.quit()
    world.run(ENDS_S)
    check(world, watch)
    if world.life.state != "ended":
        watch.breaks(f"the daemon should have ended, and is '{world.life.state}': {world.life.error!r}")
    if world.bench.energised:
        watch.breaks("the daemon has stopped, and the cell is on")
    _record(world, watch)


def _recovers(world: World, watch: Watch) -> None:
    cell = world.ask("POST", "/cell/off", {})
    world.run(30.0)
    if cell.status != 200:
        watch.breaks(f"nothing is wrong any more, and the cell cannot be switched off: {cell.content[:300]!r}")


def _record(world: World, watch: Watch) -> None:
    """What is on disk: numbers that rise, nothing damaged, every run ended, and what was said to be stored."""
    with CatalogueReader(world.state_dir / "instrument.db") as catalogue:
        events = catalogue.events(0, 100_000)
    numbers = [event.seq for event in events]
    if numbers != sorted(set(numbers)):
        watch.breaks("event numbers in the catalogue do not rise")
    if numbers and max(numbers) < world.durable.last_seq:
        watch.breaks(f"events up to {world.durable.last_seq} were published, the catalogue ends with {max(numbers)}")
    recover(world.state_dir / "instrument.db")  # as the next start does
    with CatalogueReader(world.state_dir / "instrument.db") as catalogue:
        runs = catalogue.runs(-1)
    for run in runs:
        if run.state not in ENDED:
            watch.breaks(f"run {run.run_id} is '{run.state}' for ever")
        if run.path.exists():
            _run_file(run.path, world.durable.frames.get(run.run_id, 0), watch)


def _run_file(path: Path, least_frames: int, watch: Watch) -> None:
    with RunReader(path) as reader:
        frames = [int(number) for number in reader.frames()["frame"]] if reader.frame_count() else []
        damaged = reader.corrupt_chunks
    if len(frames) < least_frames:
        watch.breaks(f"{path.name}: {least_frames} frames were stored, {len(frames)} are there")
    if damaged:
        watch.breaks(f"{path.name}: {damaged} damaged chunks")
    if any(b <= a for a, b in pairwise(frames)):
        watch.breaks(f"{path.name}: frame numbers go backwards")
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    verdict = connection.execute("pragma quick_check").fetchone()[0]
    connection.close()
    if verdict != "ok":
        watch.breaks(f"{path.name}: {verdict}")
