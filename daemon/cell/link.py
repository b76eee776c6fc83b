"""One opened potentiostat with its thread and its watch, and what remains possible when a driver call never returns."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from daemon.cell.device import OFF_ATTEMPTS, Device, Permits
from daemon.cell.journal import Aftermath, Report
from daemon.cell.watch import CellWatch
from daemon.cell.worker import DeviceThread
from daemon.errors import PotentiostatError
from daemon.recipe import CellLimits
from hw.potentiostat.contract import Potentiostat, PotentiostatInfo

log = logging.getLogger(__name__)

POLL_S = 0.05  # how closely deadlines of driver calls are kept


class Link:
    """A potentiostat from opening to closing. Created anew for every attempt; event loop only."""

    def __init__(
        self,
        factory: Callable[[], Potentiostat],
        permits: Permits,
        limits: CellLimits,
        sample_deadline_s: float,
        deliver: Callable[[Report], None],
    ) -> None:
        self._permits = permits
        self.device = Device(factory, permits)
        self.watch = CellWatch(self.device, permits, limits, sample_deadline_s)
        self.info: PotentiostatInfo | None = None
        self.hung = False
        self.polled_s = time.monotonic()
        """`time.monotonic()` of the last look at whether a call has returned."""
        self.settled = asyncio.Event()
        """All that can be done to switch this one off has been done."""
        self.thread: DeviceThread[Report] = DeviceThread(
            "potentiostat",
            idle_s=sample_deadline_s,
            idle=self.watch.unwatched,
            last_words=self.device.last_words,
            report=self.watch.take_report,
            deliver=deliver,
        )

    async def open(self, aftermath: Aftermath | None) -> None:
        """Start the thread and open the device. Raises `InstrumentError`; call `close` in any case."""
        self.thread.start()
        self.info = await self.finish(self.thread.submit(self.watch.open, aftermath))

    async def finish(self, future: asyncio.Future[Any]) -> Any:
        """The job's result. When a driver call passes its deadline the thread is given up: raises HUNG."""
        while not future.done():
            await asyncio.wait((future,), timeout=POLL_S)
            self.polled_s = time.monotonic()
            overdue = self.device.overdue(self.polled_s)
            if overdue is not None and not future.done():
                self.give_up(overdue)
        return future.result()

    def give_up(self, call: str) -> None:
        """Wait for the thread no more; every open job fails with HUNG."""
        self.hung = True
        self._permits.withdraw()
        self.device.abandon()
        self.thread.abandon(f"the potentiostat's driver did not return from {call}")

    async def close(self, reason: str) -> None:
        """Cell off and device released; whether the cell is known to be off is in `device.in_doubt` afterwards."""
        if not self.hung:
            try:
                await self.finish(self.thread.submit(self.watch.close, reason, urgent=True))
            except PotentiostatError as error:
                log.warning("closing the potentiostat: %s", error)
            except Exception:
                log.exception("closing the potentiostat failed")
        if not self.hung:
            await self.thread.stop()

    async def rescue(self) -> list[DeviceThread[None]]:
        """Try to switch the cell off past a call that hangs, from fresh threads, a few times, when it may be on.

        Sets `device.in_doubt`. Returns the threads that hang now: the first, and each further one that got stuck too.
        """
        stuck: list[Any] = [self.thread]
        driver = self.device.driver
        self.device.in_doubt = self.device.on
        if driver is None or not self.device.on:
            return stuck
        for _ in range(OFF_ATTEMPTS):
            self.polled_s = time.monotonic()
            spare = Device.around(driver, self._permits)
            thread = _spare_thread(spare)
            thread.start()
            confirmed = await _finish_spare(spare, thread)
            if confirmed is None:
                stuck.append(thread)
                continue
            await thread.stop()
            self.device.in_doubt = not confirmed
            if confirmed:
                break
        return stuck


def _spare_thread(device: Device) -> DeviceThread[None]:
    return DeviceThread(
        "potentiostat-rescue",
        idle_s=3600.0,
        idle=lambda: None,
        last_words=lambda: None,
        report=lambda: None,
        deliver=lambda _: None,
    )


async def _finish_spare(device: Device, thread: DeviceThread[None]) -> bool | None:
    """Whether the cell is off; None when this call hangs as well."""
    future = thread.submit(device.switch_off)
    while not future.done():
        await asyncio.wait((future,), timeout=POLL_S)
        if not future.done() and (call := device.overdue(time.monotonic())) is not None:
            device.abandon()
            thread.abandon(f"the potentiostat's driver did not return from {call} either")
            return None
    return bool(future.result())
