"""A stand-in for the process that reads results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from daemon.api.reads import READS, Answer
from daemon.api.workers import Workers


class ReadsHere:
    """Reads in threads: `ReadProcess` without the second that a process takes to start."""

    def __init__(self) -> None:
        self._workers = Workers("reads", threads=4, max_waiting=64)

    @property
    def open_calls(self) -> int:
        return self._workers.open_calls

    @property
    def refused(self) -> int:
        return self._workers.refused

    @property
    def pid(self) -> int | None:
        return None

    async def run(self, name: str, asked: Mapping[str, Any]) -> Answer:
        return await self._workers.run(READS[name].function, **json.loads(json.dumps(asked)))

    async def stop(self) -> None:
        await self._workers.stop()
