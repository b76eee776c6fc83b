"""The instrument now: once, or live in the terminal."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from contextlib import aclosing
from typing import Any

import click

from daemon.ctl import view
from daemon.ctl.client import BACKOFF_S, Client, Refused, ask
from daemon.ctl.options import Connection, connection_options, json_option
from daemon.ctl.output import console, print_json
from daemon.errors import ClientError, InstrumentError

LAST_EVENTS = 12


@click.command()
@connection_options
@json_option
def status(connection: Connection, as_json: bool) -> None:
    """Every part of the instrument with its state, its reason and what to do about it."""
    document = ask(connection, lambda client: client.get("/status"))
    if as_json:
        print_json(document)
        return
    console().print(view.status(document))


@click.command()
@click.option("--interval", "interval_s", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True,
              help="Seconds between two looks.")  # fmt: skip
@click.option("--once", is_flag=True, help="Print one view and leave.")
@connection_options
def watch(connection: Connection, interval_s: float, once: bool) -> None:
    """The instrument live: states, cell, state of charge, particles, frame rate, drops, events. Ctrl-C leaves."""
    board = Board()
    if once:
        asyncio.run(_look_once(connection, board))
        console().print(board.view())
        return
    asyncio.run(_watch(connection, board, interval_s))


class Board:
    """What the view shows: the newest status, the rates between two, the last events, and whether anyone answers."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {}
        self.events: deque[dict[str, Any]] = deque(maxlen=LAST_EVENTS)
        self.frames_per_s: float | None = None
        self.problem = ""
        self._counted: tuple[float, float] | None = None

    def take(self, status: dict[str, Any], now_s: float) -> None:
        """A new status; the frame rate is that since the one before."""
        self.status, self.problem = status, ""
        captured = view.captured_frames(status)
        if captured is None:
            self._counted = self.frames_per_s = None
            return
        if self._counted is not None and now_s > self._counted[0]:
            rate = (captured - self._counted[1]) / (now_s - self._counted[0])
            self.frames_per_s = rate if rate >= 0 else None  # the engine was restarted: it counts anew
        self._counted = (now_s, captured)

    def last_seq(self) -> int:
        """Sequence number of the newest event the instrument knows of."""
        seq = self.status.get("last_event_seq")
        return seq if isinstance(seq, int) else 0

    def view(self) -> Any:
        """The whole screen."""
        return view.board(self.status, self.frames_per_s, list(self.events), self.problem)


async def _look_once(connection: Connection, board: Board) -> None:
    async with Client(connection) as client:
        board.take(await client.get("/status"), time.monotonic())
        async with aclosing(client.events(max(0, board.last_seq() - LAST_EVENTS))) as events:
            async for event in events:
                board.events.append(event)


async def _watch(connection: Connection, board: Board, interval_s: float) -> None:
    """Until Ctrl-C or SIGTERM. Raises when the daemon does not answer at the start, or refuses for good."""
    from rich.live import Live

    await _look_once(connection, board)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with Live(board.view(), console=console(), screen=True, auto_refresh=False) as live:
        tasks = [
            asyncio.create_task(_collect_events(connection, board), name="watch-events"),
            asyncio.create_task(_look(connection, board, live, interval_s), name="watch-status"),
            asyncio.create_task(stop.wait(), name="watch-stop"),
        ]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()


async def _look(connection: Connection, board: Board, live: Any, interval_s: float) -> None:
    async with Client(connection) as client:
        while True:
            try:
                board.take(await client.get("/status"), time.monotonic())
            except (ClientError, Refused) as error:
                board.problem = f"{error.detail}; trying again"
            live.update(board.view(), refresh=True)
            await asyncio.sleep(interval_s)


async def _collect_events(connection: Connection, board: Board) -> None:
    """Follow the feed for ever; the status line says when the daemon is away, so nothing is said here."""
    after = max((int(event.get("seq") or 0) for event in board.events), default=board.last_seq())
    async with Client(connection) as client:
        while True:
            try:
                async with aclosing(client.follow_events(after)) as events:
                    async for event in events:
                        after = max(after, int(event.get("seq") or 0))
                        board.events.append(event)
            except InstrumentError:
                await asyncio.sleep(BACKOFF_S[-1])
