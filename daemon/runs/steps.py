"""Steps of a run's way, which must not keep the next one from following, and waits between them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import numpy as np

from daemon.errors import InstrumentError, StoreError

log = logging.getLogger("runs")


def taken(put: Callable[..., Future[Any]], *arguments: Any, **named: Any) -> Future[Any]:
    """The store's future; one that failed when its queue is full or closed: what follows must happen all the same."""
    try:
        return put(*arguments, **named)
    except StoreError as error:
        log.error("%s", error)
        refused: Future[Any] = Future()
        refused.set_exception(error)
        return refused


async def tried(what: str, work: Awaitable[Any]) -> bool:
    """Await one step of the way down; a failing step is logged, and the next one follows. Whether it succeeded."""
    try:
        await work
    except (InstrumentError, TimeoutError) as error:
        log.error("%s: %s", what, str(error) or "took too long")
    except Exception:
        log.exception("%s", what)
    else:
        return True
    return False


async def first_of(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait until one of them ends, however; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def or_zero(t_s: float) -> float:
    """A time that may be NaN, before the first frame."""
    return t_s if np.isfinite(t_s) else 0.0
