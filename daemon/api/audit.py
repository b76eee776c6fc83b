"""Who did what, and who was refused what: rows in the catalogue.

They have a thread of their own, so that nobody who keeps the API's other threads busy can keep a row from being
written; and a flood of refusals makes only so many.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from daemon.api.limits import Buckets
from daemon.api.parts import ApiParts
from daemon.api.workers import Workers
from daemon.errors import ApiReason, InstrumentError

log = logging.getLogger(__name__)

REFUSALS_HZ, REFUSALS_AT_ONCE = 0.2, 20.0  # rows one client can make: 12 a minute, some 6 MB a year
MAX_WRITING = 64  # of which refusals make no more
MAX_WAITING = 1000  # rows of what was done; only a store that takes nothing for minutes lets so many wait
ANSWER_WAITS_S = 1.0  # for the row of what was done; it is written all the same


class Auditor:
    """Writes rows in the order they come, most of them behind the answers."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._line = Workers("api-audit", threads=1, max_waiting=MAX_WAITING)
        self._buckets = Buckets(REFUSALS_HZ, REFUSALS_AT_ONCE)
        self._unwritten: Counter[str] = Counter()
        self._writing: set[asyncio.Task[None]] = set()

    async def begins(self, actor: str, action: str, detail: str = "") -> None:
        """One row, before what it tells of. Raises what writing it does: nothing is done then."""
        await self._line.run(self._parts.audit, actor, action, detail)

    async def done(self, actor: str, action: str, detail: str = "") -> None:
        """One row of what cannot be undone any more: waited for a moment, and a failure is no answer to who asked."""
        await asyncio.wait({self.note(actor, action, detail)}, timeout=ANSWER_WAITS_S)

    def refused(self, actor: str, action: str, code: str) -> None:
        """A request that was not done; of many by one actor only some have a row, which counts the others."""
        if self._buckets.take(actor) > 0 or len(self._writing) >= MAX_WRITING:
            self._unwritten[actor if len(self._unwritten) < 1000 else "others"] += 1
            return
        more = self._unwritten.pop(actor, 0)
        self.note(actor, action, f"refused: {code}" + (f"; {more} more before were not recorded" if more else ""))

    def note(self, actor: str, action: str, detail: str) -> asyncio.Task[None]:
        """One row, soon; one that cannot be written is logged, and a fault."""
        task = asyncio.create_task(self._write(actor, action, detail), name="api-audit")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task

    async def stop(self) -> None:
        """Wait until everything is written. Idempotent."""
        await asyncio.gather(*self._writing, return_exceptions=True)
        await self._line.stop()

    async def _write(self, actor: str, action: str, detail: str) -> None:
        try:
            await self.begins(actor, action, detail)
        except Exception as error:
            log.error("the audit has no record of it: %s %s %s", actor, action, detail, exc_info=True)
            reason = error.reason if isinstance(error, InstrumentError) else ApiReason.INTERNAL
            self._parts.note_fault(reason.code, f"the audit has no record of '{action}': {error}", reason.remedy)
