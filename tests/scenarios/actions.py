"""What can happen: each action by name, chosen and timed by the seed before the scenario begins."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.scenarios.client import Request
from tests.scenarios.disk import PLENTY_MB
from tests.scenarios.schedule import SCHEDULE
from tests.scenarios.world import World

Act = Callable[[World, float], None]
DO: dict[str, Act] = {}
"""Every action by name."""
WEIGHTS: dict[str, float] = {}

EXPERIMENTS = (
    ["Charge at 1C for 10 minutes"],
    ["Discharge at 2C until 3.1 V", "Rest for 5 minutes"],
    ["Charge at 1C until 4.1 V", "Hold at 4.1 V until C/20", "Rest for 1 hour"],
    ["Charge at 3C for 2 hours"],  # meets its limits
    ["Hold at 3.7 V for 20 minutes", "Rest for 10 minutes", "Discharge at C/2 for 1 hour"],
)
YEAR_S = 365.25 * 86_400


@dataclass(frozen=True)
class Action:
    """One thing that happens, and the time after it."""

    name: str
    value: float
    """In [0, 1): what of its kind."""
    then_s: float

    def __str__(self) -> str:
        return f"{self.name}({self.value:.3f}) then {self.then_s:.1f} s"


def action(weight: float) -> Callable[[Act], Act]:
    """Make a function an action that comes up in proportion to `weight`."""

    def named(act: Act) -> Act:
        DO[act.__name__], WEIGHTS[act.__name__] = act, weight
        return act

    return named


def generate(seed: int, pace: float, count: int) -> list[Action]:
    """The seed's actions; the first starts the daemon."""
    rng = random.Random(f"actions {seed}")
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    chosen = [Action("start", 0.0, 12.0 * pace)]
    if rng.random() < 0.7:
        chosen.append(Action("begin_run", rng.random(), 20.0 * pace))
    for name in rng.choices(names, weights, k=count):
        then_s = pace * rng.choice((0.3, 2.0, 5.0, 10.0, 20.0)) * rng.uniform(0.5, 1.5)
        chosen.append(Action(name, rng.random(), then_s))
    return chosen


def _of(options: Any, value: float) -> Any:
    return options[int(value * len(options))]


# the daemon itself


@action(1.5)
def start(world: World, value: float) -> None:
    world.start()


@action(0.7)
def kill(world: World, value: float) -> None:
    world.kill()


@action(0.7)
def quit_daemon(world: World, value: float) -> None:
    if world.life is not None:
        world.life.quit()
        world.note("quit")


@action(0.5)
def kill_and_start(world: World, value: float) -> None:
    world.kill()
    world.run(value * 10.0 * world.pace)
    world.start()


# operators


@action(2.0)
def begin_run(world: World, value: float) -> None:
    recipe: dict[str, Any] = {"reference_frames": 3, "baseline_s": 4.0 * world.pace, "name": f"run {value:.3f}"}
    if value < 0.7:
        recipe["experiment"] = {"steps": _of(EXPERIMENTS, value / 0.7), "cycles": 1 + int(10 * value) % 3}
    world.run_asked_s = SCHEDULE.now_s
    world.ask("POST", "/runs", recipe)


@action(0.8)
def end_run(world: World, value: float) -> None:
    world.ask("POST", f"/runs/{world.run_id}/stop", {})


@action(1.0)
def experiment(world: World, value: float) -> None:
    world.ask("POST", "/cell/experiment", {"steps": _of(EXPERIMENTS, value)})


@action(0.3)
def bad_experiment(world: World, value: float) -> None:
    steps = _of((["Charge at 99C for 1 hour"], ["Charge at 1C"], ["Make tea"], ["Hold at 9 V for 1 hour"]), value)
    world.ask("POST", "/cell/experiment", {"steps": steps})


@action(0.7)
def pause(world: World, value: float) -> None:
    world.ask("POST", "/cell/pause", {})


@action(0.7)
def resume(world: World, value: float) -> None:
    world.ask("POST", "/cell/resume", {})


@action(0.8)
def off(world: World, value: float) -> None:
    request = world.ask("POST", "/cell/off", {})
    request.on_answer = lambda answer: _is_off(world, answer)


def _is_off(world: World, answer: Request) -> None:
    """Who is told that the cell is off must be able to touch it; `lost` does not say so."""
    lying = world.bench.has("ignores_off")
    begun_again = world.life is not None and world.life.instrument.cell.state == "running"
    told = answer.status == 200 and answer.json()["state"] != "lost"
    if told and world.bench.energised and not lying and not begun_again:
        world.note("BROKEN: the answer says that the cell is off, and it is on")


@action(1.0)
def edit_masks(world: World, value: float) -> None:
    square = [[20.0, 60.0], [20.0, 72.0], [32.0, 72.0], [32.0, 60.0]]
    edits = _of(
        (
            [{"action": "remove", "particle_id": 1}],
            [{"action": "remove", "particle_id": 2}],
            [{"action": "add", "outline_px": square}],
            [{"action": "remove", "particle_id": 99}],
            [{"action": "add", "outline_px": [[0.0, 0.0], [1.0, 1.0]]}],
        ),
        value,
    )
    world.ask("PATCH", f"/runs/{world.run_id}/masks", {"edits": edits})


READS = (
    "/status", "/events?follow=false", "/runs", "/config", "/logs?since=600", "/operations", "/version",
    "/runs/@/particles", "/runs/@/events", "/runs/@/cycles", "/runs/@/ensemble", "/runs/@/echem", "/runs/@/masks",
    "/runs/@/traces?particles=1,2&points=50", "/runs/none-at-all", "/nothing", "/runs?limit=-1",
)  # fmt: skip


@action(2.0)
def read(world: World, value: float) -> None:
    world.ask("GET", _of(READS, value).replace("@", world.run_id) if world.life is not None else "/status")


@action(0.4)
def follow(world: World, value: float) -> None:
    """A follower that stays for a while and never says goodbye."""
    if world.life is None or not world.life.alive:
        return
    request = Request("GET", f"/api/v1/events?after={int(100 * value)}", accept="application/x-ndjson")
    request.hung_up = True  # its answer is never asked for
    world.life.ask(request)


@action(0.4)
def picture(world: World, value: float) -> None:
    world.ask("GET", "/frame.png", accept="image/png")


@action(0.4)
def metrics(world: World, value: float) -> None:
    world.ask("GET", "/metrics", accept="*/*")


@action(0.4)
def selftest(world: World, value: float) -> None:
    world.ask("POST", "/selftest", {})


@action(0.15)
def bundle(world: World, value: float) -> None:
    world.ask("GET", "/diagnostics/bundle", accept="application/gzip")


@action(0.3)
def calibrate(world: World, value: float) -> None:
    world.ask("POST", f"/calibrations/{_of(('dark', 'flat'), value)}", {"frames": 2 + int(4 * value)})


@action(0.3)
def configure(world: World, value: float) -> None:
    world.ask("PATCH", "/camera", {"exposure_us": 100.0 + 1000.0 * value})


# the camera and its engine


@action(0.8)
def engine_dies(world: World, value: float) -> None:
    if world.optics.engine is not None:
        world.optics.engine.exit(-11 if value < 0.5 else 1)
        world.note("engine dies")


@action(0.5)
def engine_hangs(world: World, value: float) -> None:
    if world.optics.engine is not None:
        world.optics.engine.hang()
        world.note("engine hangs")


@action(0.3)
def engine_garbles(world: World, value: float) -> None:
    if world.optics.engine is not None:
        world.optics.engine.garble()


@action(0.3)
def engine_will_not_start(world: World, value: float) -> None:
    world.optics.start_fault = _of(("exit", "hang"), value)


@action(0.4)
def engine_refuses(world: World, value: float) -> None:
    world.optics.refusals = 1 + int(3 * value)


@action(0.3)
def preparing_fails(world: World, value: float) -> None:
    world.optics.prepare_fault = _of(("die", "slow"), value)


@action(0.8)
def camera_out(world: World, value: float) -> None:
    world.optics.set_camera(False)


@action(1.5)
def camera_in(world: World, value: float) -> None:
    world.optics.set_camera(True)


@action(0.5)
def camera_loses_frames(world: World, value: float) -> None:
    engine = world.optics.engine
    if engine is not None and engine.well:
        engine.lose(1 + int(50 * value))


# the potentiostat and the cell


@action(3.0)
def cell_fault(world: World, value: float) -> None:
    """Silence, a cable, a hang, a device that refuses to switch off, on, or lies."""
    faults = ("silent", "unplugged", "hangs", "refuses_off", "ignores_off", "garbled", "stuck_clock", "refuses_on")
    fault = _of(faults, value)
    lasts_s = world.pace * (1.0, 6.0, 40.0)[int(997 * value) % 3]
    world.bench.begin(fault, lasts_s)
    world.note(f"{fault} for {lasts_s:g} s")


@action(0.6)
def touch(world: World, value: float) -> None:
    """The cell is switched on behind the daemon's back."""
    world.bench.touch()


@action(0.6)
def cell_leaves_limits(world: World, value: float) -> None:
    world.bench.work_out()
    world.bench.spoil_v = _of((1.2, -1.2, 0.0, 0.0), value)


# the disk


@action(0.8)
def disk_fails(world: World, value: float) -> None:
    disk = world.disk
    disk.fault = _of(("full", "io"), value)
    disk.fault_until_s = SCHEDULE.now_s + world.pace * (0.5, 5.0, 30.0)[int(997 * value) % 3]


@action(0.8)
def disk_slow(world: World, value: float) -> None:
    disk = world.disk
    disk.slow_s = world.pace * _of((0.05, 0.5, 3.0), value)
    disk.slow_until_s = SCHEDULE.now_s + world.pace * 20.0


@action(0.4)
def disk_fills(world: World, value: float) -> None:
    world.disk.free_mb, world.disk.filled_s = int(400 * value), SCHEDULE.now_s


@action(0.8)
def disk_emptied(world: World, value: float) -> None:
    world.disk.free_mb = PLENTY_MB


# the clock


@action(1.5)
def wall_clock(world: World, value: float) -> None:
    """Somebody sets the wall clock: by an hour, or by ten years, either way."""
    step_s = _of((3600.0, -3600.0, 10 * YEAR_S, -10 * YEAR_S), value)
    if not world.still and abs(SCHEDULE.wall_step_s + step_s) < 15 * YEAR_S:
        SCHEDULE.wall_step_s += step_s
