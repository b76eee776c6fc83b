"""Threads of the API's own, so that slow reads can never starve the rest of the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from daemon.errors import ApiError, ApiReason

T = TypeVar("T")


class Workers:
    """A few threads and a bounded line before them; who comes when the line is full is sent away."""

    def __init__(self, name: str, threads: int, max_waiting: int) -> None:
        self._name = name
        self._threads = threads
        self._max_waiting = max_waiting
        self._pool: ThreadPoolExecutor | None = None
        self.open_calls = 0
        """Calls running or waiting."""
        self.refused = 0

    async def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a blocking function in a thread. Raises `ApiError` (BUSY) when too many wait already."""
        if self.open_calls >= self._threads + self._max_waiting:
            self.refused += 1
            raise ApiError(ApiReason.BUSY, f"{self.open_calls} requests are being worked on already")
        self.open_calls += 1
        future = self._executor().submit(partial(function, *args, **kwargs))
        future.add_done_callback(partial(self._done, asyncio.get_running_loop()))
        return await asyncio.wrap_future(future)

    async def stop(self) -> None:
        """Drop what waits, let what runs finish. Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)

    def _executor(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)
        return self._pool

    def _done(self, loop: asyncio.AbstractEventLoop, _: Future[Any]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        self.open_calls -= 1
