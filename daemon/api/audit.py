"""Who was refused what: rows in the catalogue, as many as a flood of refusals may make and no more."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from daemon.api.limits import Buckets
from daemon.api.parts import ApiParts

log = logging.getLogger(__name__)

REFUSALS_HZ, REFUSALS_AT_ONCE = 0.2, 20.0  # rows one client can make: 12 a minute, some 6 MB a year
MAX_WRITING = 64


class Auditor:
    """Writes rows behind the answers: a refusal does not wait for the disk."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._buckets = Buckets(REFUSALS_HZ, REFUSALS_AT_ONCE)
        self._unwritten: Counter[str] = Counter()
        self._writing: set[asyncio.Task[None]] = set()

    def refused(self, actor: str, action: str, code: str) -> None:
        """A request that was not done; of many by one actor only some have a row, which counts the others."""
        if self._buckets.take(actor) > 0 or len(self._writing) >= MAX_WRITING:
            self._unwritten[actor if len(self._unwritten) < 1000 else "others"] += 1
            return
        more = self._unwritten.pop(actor, 0)
        self.note(actor, action, f"refused: {code}" + (f"; {more} more before were not recorded" if more else ""))

    def note(self, actor: str, action: str, detail: str) -> None:
        """One row, soon."""
        task = asyncio.create_task(self._write(actor, action, detail), name="api-audit")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def stop(self) -> None:
        """Wait until everything is written. Idempotent."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _write(self, actor: str, action: str, detail: str) -> None:
        try:
            # threads of the loop's own: those of the API may be all taken by who is being refused
            await asyncio.to_thread(self._parts.audit, actor, action, detail)
        except Exception:
            log.error("the audit has no record of: %s %s %s", actor, action, detail, exc_info=True)
