"""The systemd watchdog, fed only while every vital part makes progress and the event loop is on time."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping

from daemon.errors import ServiceReason
from daemon.parts import PartStatus
from daemon.service.notify import Notifier

log = logging.getLogger(__name__)

PINGS_PER_INTERVAL = 4  # one ping may be skipped and the next still comes in time
IDLE_PERIOD_S = 2.0  # without a supervisor stalls are still noticed and shown


def interval_from(environ: Mapping[str, str]) -> float | None:
    """Seconds within which systemd wants a ping; None when it wants none of this process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        interval_s = int(environ["WATCHDOG_USEC"]) / 1e6
    except (KeyError, ValueError):
        return None
    return interval_s if interval_s > 0 else None


class Watchdog:
    """Watches the vital parts' progress from the event loop and passes it on to systemd.

    Vital parts call `register` once and `beat` whenever they got something done (an idle part beats too). A part
    silent for `stall_s` withholds the ping, as does a loop that runs late. `on_stall(part, silence_s)` is called once
    a stall.
    """

    def __init__(
        self,
        notifier: Notifier,
        stall_s: float,
        *,
        interval_s: float | None = None,
        on_stall: Callable[[str, float], None] | None = None,
    ) -> None:
        self._notifier = notifier
        self._stall_s = stall_s
        self._interval_s = interval_s
        self._period_s = interval_s / PINGS_PER_INTERVAL if interval_s else IDLE_PERIOD_S
        self._on_stall = on_stall
        self._beats: dict[str, float] = {}
        self._reported: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._withheld = False
        self.lateness_s = 0.0
        """By how much the last look came too late."""
        self.pings = 0

    def register(self, name: str) -> Callable[[], None]:
        """Make `name` vital from now on; returns its `beat`. Any thread."""
        self._beats[name] = time.monotonic()
        return lambda: self.beat(name)

    def beat(self, name: str) -> None:
        """`name` made progress. Any thread; unknown names are ignored, so a part may beat while it is being stopped."""
        if name in self._beats:
            self._beats[name] = time.monotonic()

    def unregister(self, name: str) -> None:
        """`name` is not vital any more: it is being stopped on purpose."""
        self._beats.pop(name, None)
        self._reported.discard(name)

    def stalled(self) -> dict[str, float]:
        """The vital parts without progress for `stall_s`, and for how long, seconds."""
        now_s = time.monotonic()
        silences = {name: now_s - beat_s for name, beat_s in list(self._beats.items())}
        return {name: silence_s for name, silence_s in silences.items() if silence_s > self._stall_s}

    def status(self) -> PartStatus:
        """The line in the status."""
        stalled = self.stalled()
        values = {"lateness_s": round(self.lateness_s, 3), "pings": self.pings, "interval_s": self._interval_s}
        if not stalled:
            return PartStatus("watchdog", "ready", values=values)
        reason = ServiceReason.STALLED
        return PartStatus("watchdog", "degraded", reason.code, _sentence(stalled), reason.remedy, values)

    async def start(self) -> None:
        """Begin to watch."""
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="watchdog")

    async def stop(self) -> None:
        """Stop watching; systemd ends its own watch when the service says that it is stopping. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _watch(self) -> None:
        while True:
            expected_s = time.monotonic() + self._period_s
            self._look()
            await asyncio.sleep(self._period_s)
            self.lateness_s = time.monotonic() - expected_s

    def _look(self) -> None:
        stalled = self.stalled()
        self._report(stalled)
        if stalled:
            self._withhold(_sentence(stalled))
        elif self.lateness_s > self._period_s:
            self._withhold(f"the event loop ran {self.lateness_s:.1f} s late")
        else:
            self._ping()

    def _ping(self) -> None:
        if self._interval_s is not None:
            self._notifier.watchdog()
            self.pings += 1
        if self._withheld:
            self._withheld = False
            self._notifier.status("ready")

    def _withhold(self, why: str) -> None:
        if not self._withheld:
            log.error("watchdog not fed: %s", why)
        self._withheld = True
        self._notifier.status(f"watchdog not fed: {why}")

    def _report(self, stalled: dict[str, float]) -> None:
        for name in stalled.keys() - self._reported:
            if self._on_stall is not None:
                self._on_stall(name, stalled[name])
        self._reported = set(stalled)


def _sentence(stalled: Mapping[str, float]) -> str:
    return ", ".join(f"{name} made no progress for {silence_s:.0f} s" for name, silence_s in sorted(stalled.items()))
