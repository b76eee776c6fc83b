"""The scenario's whole world: a camera, a cell, a disk, a wall clock, and one daemon after another among them."""

from __future__ import annotations

import random
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import daemon.bootstrap
import daemon.cell.cell
import daemon.cell.link
import daemon.diagnostics.evidence
import daemon.diagnostics.vitals
import daemon.engine.host
import daemon.pulse
import daemon.runs.setup
import daemon.service.watchdog
import daemon.store.loop
from daemon.config import (
    ApiSettings,
    CameraSettings,
    CellSettings,
    EngineSettings,
    PotentiostatSettings,
    ServiceSettings,
    Settings,
    StoreSettings,
)
from tests.reads_here import ReadsHere
from tests.scenarios import disk as disks
from tests.scenarios.bench import Bench, Driver, kinds
from tests.scenarios.client import Request
from tests.scenarios.disk import Disk
from tests.scenarios.engine import Optics, Picture
from tests.scenarios.life import Life
from tests.scenarios.schedule import SCHEDULE
from tests.scenarios.standins import sleep

PACES = (1.0, 5.0, 20.0, 60.0)
"""How many times longer than shipped the daemon's periods and deadlines are: the same life with fewer turns a day."""
PACE_WEIGHTS = (2, 4, 4, 4)
LOOK_SHARE = 4.0  # of the pace: how often the cell is looked at while time passes


@dataclass
class Durable:
    """What the daemon has said is on disk: it must be found there, whatever comes."""

    last_seq: int = 0
    frames: dict[str, int] = field(default_factory=dict)
    """At least this many of each run."""
    began: tuple[int, str, int] = (0, "", 0)
    """A daemon, its run, and how many frames it had stored when the run was first seen."""


@dataclass
class World:
    """Everything that outlives a daemon, and the present one."""

    seed: int
    folder: Path
    optics: Optics
    bench: Bench
    disk: Disk
    pace: float
    life: Life | None = None
    lives: list[Life] = field(default_factory=list)
    durable: Durable = field(default_factory=Durable)
    requests: list[Request] = field(default_factory=list)
    hang_ups: list[Any] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    """What happened, in order: equal for equal seeds."""
    run_asked_s: float = -1e18
    """When a run was last asked for."""
    still: bool = False
    """Nobody sets the wall clock."""
    on_look: Any = None
    """Called with the world while time passes."""

    @property
    def state_dir(self) -> Path:
        """The daemon's state directory."""
        return self.folder / "state"

    @property
    def deadline_s(self) -> float:
        """The daemon's longest wait for a sample of the cell."""
        return 2.0 * self.pace

    def settings(self) -> Settings:
        """The daemon's settings, at the scenario's pace."""
        pace = self.pace
        return Settings(
            camera=CameraSettings(frame_deadline_s=2.0 * pace),
            potentiostat=PotentiostatSettings(sample_deadline_s=self.deadline_s),
            cell=CellSettings(capacity_mah=1.0),
            engine=EngineSettings(silence_s=5.0 * pace, start_timeout_s=90.0 * pace, restart_window_s=60.0 * pace),
            store=StoreSettings(state_dir=self.state_dir),
            api=ApiSettings(port=0),
            service=ServiceSettings(thread_stall_s=10.0 * pace),
        )

    def note(self, what: str) -> None:
        """Into the trace."""
        self.trace.append(f"{SCHEDULE.now_s:.2f} {what}")

    def start(self) -> None:
        """Start the daemon, unless one runs."""
        if self.life is not None and self.life.alive:
            return
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.life = Life(len(self.lives) + 1, self.settings())
        self.life.instrument.clock_watch._period_s = self.pace
        self.lives.append(self.life)
        self.note("started")

    def kill(self) -> None:
        """SIGKILL: memory is gone, what the kernel holds of the files is not."""
        if self.life is None or not self.life.alive:
            return
        self.remember()
        self.life.kill()
        self.note("killed")
        left = self.folder / f"killed-{self.life.number}"
        shutil.copytree(self.state_dir, self.folder / "copy")  # the dead one's descriptors and locks stay on its own
        self.state_dir.rename(left)
        (self.folder / "copy").rename(self.state_dir)
        for engine in self.optics.engines:
            engine.exit(0)  # its link is closed

    def remember(self) -> None:
        """What the daemon vouches for now."""
        if self.life is None or self.life.state != "up":
            return
        instrument, durable = self.life.instrument, self.durable
        durable.last_seq = max(durable.last_seq, instrument.feed.last_seq)
        run, stored = instrument.runs.current(), instrument.writer.stats().stored_frames
        if run is None or run.state != "running":
            return
        if durable.began[:2] != (self.life.number, run.run_id):
            durable.began = (self.life.number, run.run_id, stored)
        durable.frames[run.run_id] = max(durable.frames.get(run.run_id, 0), stored - durable.began[2])

    def ask(self, method: str, path: str, body: Any = None, accept: str = "application/json") -> Request:
        """A request to the present daemon; never answered without one."""
        request = Request(method, f"/api/v1{path}", body, accept)
        if self.life is not None and self.life.alive:
            self.requests.append(self.life.ask(request))
            del self.requests[:-200]
        return request

    def run(self, seconds: float) -> None:
        """Let time pass, with a look now and then."""
        until_s = SCHEDULE.now_s + seconds
        while SCHEDULE.now_s < until_s:
            sleep(min(LOOK_SHARE * self.pace, until_s - SCHEDULE.now_s))
            if self.on_look is not None:
                self.on_look(self)

    @property
    def run_id(self) -> str:
        """The run in progress, or the last one that anybody knows of."""
        assert self.life is not None
        run = self.life.instrument.runs.current()
        return run.run_id if run is not None else next(reversed(self.durable.frames), "none")


@contextmanager
def world(seed: int, folder: Path, picture: Picture) -> Iterator[World]:
    """A fresh world for `seed`, wired to the daemon's seams."""
    rng = random.Random(f"world {seed}")
    pace = rng.choices(PACES, PACE_WEIGHTS)[0]
    kind = rng.choice(kinds())
    lost_s = None if kind.host_loss_after_s is None else kind.host_loss_after_s * pace
    bench = Bench(replace(kind, sample_rate_hz=kind.sample_rate_hz / pace, host_loss_after_s=lost_s))
    optics = Optics(picture, frame_rate_hz=rng.choice((1.0, 2.0)) / pace, tick_s=rng.choice((2.0, 4.0)) * pace)
    one = World(seed, folder, optics, bench, Disk(), pace)
    optics.note, optics.ending = one.note, lambda: one.life is None or one.life.state != "up"
    tokens = random.Random(f"tokens {seed}")
    with _seams(one), disks.installed(one.disk), mock.patch.object(secrets, "token_hex", partial(_token, tokens)):
        yield one


def _token(rng: random.Random, nbytes: int = 32) -> str:
    return f"{rng.getrandbits(8 * nbytes):0{2 * nbytes}x}"


@contextmanager
def _seams(one: World) -> Iterator[None]:
    """Devices at the seams that the product has for them; periods at the scenario's pace."""
    slow = (
        (daemon.cell.cell, "READ_SLICE_S", 5), (daemon.cell.link, "POLL_S", 5), (daemon.cell.device, "KEEP_ALIVE_S", 1),
        (daemon.diagnostics.vitals, "LAG_PERIOD_S", 20), (daemon.diagnostics.vitals, "MEMORY_PERIOD_S", 2),
        (daemon.pulse, "PERIOD_S", 1), (daemon.pulse, "SPACE_PERIOD_S", 1), (daemon.pulse, "RELEASE_PERIOD_S", 10),
        (daemon.engine.host, "CHECK_S", 3), (daemon.service.watchdog, "IDLE_PERIOD_S", 1),
        (daemon.store.loop, "IDLE_S", 3),
    )  # fmt: skip
    seams = (
        (daemon.bootstrap, "build_driver", lambda *_: Driver(one.bench)),
        (daemon.bootstrap, "ReadProcess", ReadsHere),
        (daemon.engine.host, "spawn", one.optics.spawn),
        (daemon.engine.host, "end", one.optics.end),
        (daemon.runs.setup, "ask", one.optics.ask),
        (daemon.diagnostics.evidence.subprocess, "run", _no_command),
    )
    before = [(module, name, getattr(module, name)) for module, name, _ in slow]
    before += [(module, name, getattr(module, name)) for module, name, _ in seams]
    for module, name, more in slow:
        setattr(module, name, getattr(module, name) * one.pace * more)
    for module, name, stand_in in seams:
        setattr(module, name, stand_in)
    yield
    for module, name, value in before:
        setattr(module, name, value)


def _no_command(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    raise FileNotFoundError(2, "the scenario's machine has no such command", command[0])
