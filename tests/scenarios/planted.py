"""Bugs put in on purpose: the runner is worth something only if it notices each of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import daemon.engine.host
from daemon.bootstrap import Instrument
from daemon.cell.device import Device
from daemon.events import EventFeed
from daemon.pulse import Pulse
from daemon.runs.active import ActiveRun
from daemon.runs.known import KnownRuns
from daemon.runs.manager import RunManager
from tests.scenarios.actions import Action
from tests.scenarios.world import World


@dataclass(frozen=True)
class Planted:
    """A bug, what happens to the instrument then, and words of the sentence that must come of it."""

    plant: Callable[[World], None]
    actions: list[Action]
    words: str


def _put(owner: Any, name: str, value: Any) -> None:
    mock.patch.object(owner, name, value).start()  # for as long as the process lives, which is this scenario


def lost_frame(world: World) -> None:
    """One batch in three is forgotten, and counted nowhere."""
    add_batch, seen = ActiveRun.add_batch, [0]

    def forgetful(run: ActiveRun, batch: Any) -> None:
        seen[0] += 1
        if seen[0] % 3:
            add_batch(run, batch)

    _put(ActiveRun, "add_batch", forgetful)


def unowned_cell(world: World) -> None:
    """Off is believed without asking the device, at the end of a connection, too."""

    def believed(device: Device) -> bool:
        device.on = device.in_doubt = False
        return True

    _put(Device, "switch_off", believed)
    _put(Device, "close", lambda _: None)


def ready_lie(world: World) -> None:
    """Always ready."""
    _put(Instrument, "blocking", lambda _: [])


def leaked_thread(world: World) -> None:
    """A thread for each pulse that nobody ends."""
    count = Pulse._count

    def leaking(pulse: Pulse) -> None:
        threading.Thread(target=threading.Event().wait, name="leak", daemon=True).start()
        count(pulse)

    _put(Pulse, "_count", leaking)


def leaked_descriptor(world: World) -> None:
    """A file for each pulse that nobody closes."""
    count, kept = Pulse._count, []

    def leaking(pulse: Pulse) -> None:
        kept.append(open("/dev/null"))  # noqa: SIM115
        count(pulse)

    _put(Pulse, "_count", leaking)


def wall_clock_deadline(world: World) -> None:
    """The engine's silence is measured on the clock that people set."""
    clock = mock.Mock(wraps=time)
    clock.monotonic = time.time
    _put(daemon.engine.host, "time", clock)


def blocked_loop(world: World) -> None:
    """The pulse waits in the event loop."""
    count = Pulse._count

    def waiting(pulse: Pulse) -> None:
        time.sleep(3.0)
        count(pulse)

    _put(Pulse, "_count", waiting)


def repeated_event(world: World) -> None:
    """An event is published twice."""
    publish = EventFeed.publish
    _put(EventFeed, "publish", lambda feed, events: (publish(feed, list(events)), publish(feed, list(events))))


def forgotten_end(world: World) -> None:
    """A run whose end the disk refused stays in progress for whoever asks."""
    _put(KnownRuns, "remember", lambda *_: None)


def traceback(world: World) -> None:
    """The record of the cell meets a fault of the software."""

    def failing(*_: Any) -> None:
        raise ZeroDivisionError

    _put(RunManager, "on_cell_rows", failing)


def _acts(world_pace: float, *named: tuple[str, float, float]) -> list[Action]:
    return [Action("start", 0.0, 12.0 * world_pace), *(Action(n, v, s * world_pace) for n, v, s in named)]


def planted(pace: float) -> dict[str, Planted]:
    """Every bug by name, for a world of this pace."""
    run = ("begin_run", 0.0, 30.0)
    return {
        "lost_frame": Planted(lost_frame, _acts(pace, ("begin_run", 0.9, 30.0), ("read", 0.0, 90.0)), "in flight"),
        "unowned_cell": Planted(unowned_cell, _acts(pace, run, ("off", 0.0, 90.0), ("read", 0.0, 60.0)), "cell is"),
        "ready_lie": Planted(ready_lie, _acts(pace, ("camera_out", 0.0, 20.0), ("read", 0.0, 5.0)), "ready, and"),
        "leaked_thread": Planted(leaked_thread, _acts(pace, ("read", 0.0, 60.0)), "threads run"),
        "leaked_descriptor": Planted(leaked_descriptor, _acts(pace, ("read", 0.0, 120.0)), "descriptors are open"),
        "wall_clock_deadline": Planted(
            wall_clock_deadline, _acts(pace, ("wall_clock", 0.0, 1.3), ("wall_clock", 0.0, 20.0)), "healthy engine"
        ),
        "blocked_loop": Planted(blocked_loop, _acts(pace, ("read", 0.0, 5.0)), "held up"),
        "repeated_event": Planted(repeated_event, _acts(pace, ("wall_clock", 0.0, 10.0)), "do not rise"),
        "forgotten_end": Planted(
            forgotten_end,
            _acts(pace, ("begin_run", 0.9, 30.0), ("disk_fails", 0.4, 0.2), ("end_run", 0.0, 80.0)),
            "is told to be",
        ),
        "traceback": Planted(traceback, _acts(pace, ("read", 0.0, 5.0)), "traceback"),
    }
