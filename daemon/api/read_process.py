"""Reads of runs' files in a process of their own, so that whoever asks for much delays neither frames nor the cell.

The process starts with the first read, has a lower priority than the measurement, and ends after minutes without one.
One that dies or hangs fails the reads it had, and the next read starts another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from daemon.api.reads import READS, Answer
from daemon.engine.child import end, spawn
from daemon.engine.link import Message, read_message
from daemon.errors import ApiError, ApiReason, EngineError, InstrumentError, NamedFieldsError, all_reasons

log = logging.getLogger(__name__)

MODULE = "daemon.api.read_child"
MAX_OPEN = {False: 68, True: 18}
"""Most calls at once, of quick and of slow reads."""
IDLE_S = 300.0
HANGS_S = 120.0  # slow reads give up by themselves a minute after they began; only a disk that is silent takes longer
CHECK_S = 1.0
GRACE_S = 1.0


class ReadFailedError(RuntimeError):
    """A fault of the software, with the traceback from the process that met it."""


class ReadProcess:
    """`daemon.api.reads.Reads` in a process of its own. Single event loop only."""

    def __init__(self, idle_s: float = IDLE_S, hangs_s: float = HANGS_S) -> None:
        self._idle_s, self._hangs_s = idle_s, hangs_s
        self._life: _Life | None = None
        self._starting = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()
        self._open = {False: 0, True: 0}
        self.refused = 0

    @property
    def open_calls(self) -> int:
        """Calls running or waiting."""
        return sum(self._open.values())

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._life.pid if self._life is not None else None

    async def run(self, name: str, asked: Mapping[str, Any]) -> Answer:
        """The read `name` of `READS` with plain values.

        Raises what it raises, `ApiError`: BUSY at the bound, UNAVAILABLE when the process ended meanwhile; and
        `ReadFailedError`.
        """
        slow = READS[name].slow
        if self._open[slow] >= MAX_OPEN[slow]:
            self.refused += 1
            raise ApiError(ApiReason.BUSY, f"{self._open[slow]} requests are being worked on already")
        self._open[slow] += 1
        try:
            life = await self._living()
            return _answer_of(await life.ask(name, asked))
        finally:
            self._open[slow] -= 1

    async def stop(self) -> None:
        """End the process; what it had fails. Idempotent."""
        async with self._starting:
            if self._life is not None:
                self._life.over.set()
        if self._ending:
            await asyncio.wait(self._ending)

    async def _living(self) -> _Life:
        async with self._starting:
            if self._life is None or self._life.over.is_set():
                try:
                    self._life = _Life(*await spawn(MODULE))
                except OSError as error:
                    raise ApiError(ApiReason.UNAVAILABLE, f"no process to read with: {error}") from error
                task = asyncio.create_task(self._life.live(self._idle_s, self._hangs_s), name="api-reads")
                self._ending.add(task)
                task.add_done_callback(self._ended)
            return self._life

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not self._ending:
            self._life = None


class Progress:
    """What the process is known to do, by number. Times are on the monotonic clock.

    A read hangs from when the process began it: before that it waits in line, which is no fault of anybody's.
    """

    def __init__(self) -> None:
        self._waiting_since_s: dict[int, float] = {}
        self._running_since_s: dict[int, float] = {}
        self._heard_s = 0.0

    def ordered(self, number: int, now_s: float) -> None:
        """A read was sent to the process."""
        self._waiting_since_s[number] = now_s

    def heard(self, kind: str, number: int, now_s: float) -> None:
        """The process has `begun` a read, or ended it, which any other kind of message does."""
        self._heard_s = now_s
        self._waiting_since_s.pop(number, None)
        if kind == "begun":
            self._running_since_s[number] = now_s
        else:
            self._running_since_s.pop(number, None)

    def silent_s(self, now_s: float) -> float:
        """How long it has been at the read it began first, or has left those that wait without beginning one."""
        if self._running_since_s:
            return now_s - min(self._running_since_s.values())
        if self._waiting_since_s:
            return now_s - max(self._heard_s, min(self._waiting_since_s.values()))
        return 0.0


class _Life:
    """One process, its link and the calls it has."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process, self._reader, self._writer = process, reader, writer
        self._calls: dict[int, asyncio.Future[Message]] = {}
        self._progress = Progress()
        self._number = 0
        self._used_s = time.monotonic()
        self.over = asyncio.Event()
        """Set when it takes no more calls."""

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def ask(self, name: str, asked: Mapping[str, Any]) -> Message:
        """The answer to one order. Raises `ApiError` (UNAVAILABLE) when the process ends before it."""
        self._number += 1
        number, future = self._number, asyncio.get_running_loop().create_future()
        self._calls[number] = future
        self._progress.ordered(number, time.monotonic())
        try:
            for buffer in Message("read", {"number": number, "name": name, "asked": dict(asked)}).encode():
                self._writer.write(buffer)
            with suppress(ConnectionError):  # its end fails the call
                await self._writer.drain()
            return await future
        finally:
            self._used_s = time.monotonic()
            self._calls.pop(number, None)

    async def live(self, idle_s: float, hangs_s: float) -> None:
        """Until it is told to end, dies, hangs, or has had nothing to do for `idle_s`."""
        listening = asyncio.create_task(self._listen(), name="api-reads-listen")
        told = asyncio.create_task(self.over.wait(), name="api-reads-over")
        try:
            while not (await asyncio.wait({listening, told}, timeout=CHECK_S, return_when=asyncio.FIRST_COMPLETED))[0]:
                now_s = time.monotonic()
                if self._progress.silent_s(now_s) > hangs_s or (not self._calls and now_s - self._used_s > idle_s):
                    break
        finally:
            why = "has stopped" if told.done() else "died" if listening.done() else "did not answer"
            self.over.set()
            told.cancel()
            listening.cancel()
            await asyncio.gather(told, listening, return_exceptions=True)
            self._fail(f"the process that reads runs {why}")
            await end(self._process, self._writer, GRACE_S)

    async def _listen(self) -> None:
        try:
            while (message := await read_message(self._reader)) is not None:
                number = message.fields["number"]
                self._progress.heard(message.kind, number, time.monotonic())
                future = self._calls.get(number)
                if message.kind != "begun" and future is not None and not future.done():
                    future.set_result(message)
        except EngineError:
            log.exception("a message of the process that reads runs")

    def _fail(self, why: str) -> None:
        if self._calls:
            log.error("%s; %d calls fail", why, len(self._calls))
        for future in self._calls.values():
            if not future.done():
                future.set_exception(ApiError(ApiReason.UNAVAILABLE, why))


def _answer_of(message: Message) -> Answer:
    fields = message.fields
    if message.kind == "answer":
        return Answer(message.arrays["body"].tobytes(), fields["headers"])
    if message.kind == "failed":
        raise ReadFailedError(fields["trace"])
    if fields["errors"] is not None:
        raise NamedFieldsError(fields["errors"])
    reason = next(each for each in all_reasons() if each.code == fields["code"])
    raise InstrumentError(reason, fields["detail"])
