"""``python -m tests.bench.load_client URL RUN_ID SECONDS``: what asks a measuring daemon, in a process of its own.

Plain sockets and no parsing of bodies, so that the asking costs next to nothing of the machine that is measured.
Prints one line of JSON: latencies in seconds by kind of request, statuses, and what the followers heard.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time
from collections import Counter, defaultdict
from contextlib import suppress
from urllib.parse import urlsplit

RATE_HZ = 200.0
CONNECTIONS = 16  # of a kind of request
FOLLOWERS, STALLED = 50, 10
ANSWER_DEADLINE_S = 10.0
MIX = ("status", "status", "traces", "events", "status", "feed", "traces", "events")
"""In turn: three status, two traces, two pages of the run's events, one page of the feed."""


class Asker:
    """Requests at a steady rate over connections that are kept; a late answer does not slow the next request."""

    def __init__(self, host: str, port: int, run_id: str, particles: list[int], t_s: float) -> None:
        self._host, self._port, self._run_id = host, port, run_id
        self._particles = particles
        self._run_s, self._began_s = t_s, time.monotonic()
        self._free: dict[str, asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None]] = {
            kind: asyncio.Queue() for kind in MIX
        }
        """By kind: who watches the status does not wait behind another program's traces."""
        self.latencies_s: dict[str, list[float]] = defaultdict(list)
        self.statuses: Counter[str] = Counter()

    async def ask(self, seconds: float, rate_hz: float) -> None:
        """For so long."""
        for free in self._free.values():
            for _ in range(CONNECTIONS):
                free.put_nowait(None)
        began_s, tasks = time.monotonic(), set()
        for number in range(round(seconds * rate_hz)):
            due_s = began_s + number / rate_hz
            if (wait_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            task = asyncio.create_task(self._one(MIX[number % len(MIX)], due_s))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        for free in self._free.values():
            while not free.empty():
                if (pair := free.get_nowait()) is not None:
                    pair[1].close()

    async def _one(self, kind: str, due_s: float) -> None:
        """Timed from when it was due, a wait for a free connection included."""
        pair = await self._free[kind].get()
        try:
            pair = pair or await asyncio.open_connection(self._host, self._port)
            status = await asyncio.wait_for(self._exchange(pair, self._path(kind)), ANSWER_DEADLINE_S)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.statuses[type(error).__name__] += 1
            if pair is not None:
                pair[1].close()
            pair = None
        else:
            self.statuses[status] += 1
            self.latencies_s[kind].append(time.monotonic() - due_s)
        self._free[kind].put_nowait(pair)

    def _path(self, kind: str) -> str:
        now_s = self._run_s + time.monotonic() - self._began_s
        if kind == "traces":
            chosen = ",".join(map(str, random.sample(self._particles, 4)))
            return f"/api/v1/runs/{self._run_id}/traces?particles={chosen}&points=500&from={max(0.0, now_s - 10):.1f}"
        if kind == "events":
            return f"/api/v1/runs/{self._run_id}/events?limit=100"
        return "/api/v1/status" if kind == "status" else "/api/v1/events?follow=false&limit=100&after=0"

    async def _exchange(self, pair: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str) -> str:
        reader, writer = pair
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        return head.split(b" ")[1].decode()


async def follow(host: str, port: int, heard: Counter[str]) -> None:
    """One follower of the feed that reads what comes."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n")
    try:
        while line := await reader.readline():
            heard["lines"] += line.startswith(b"{")
        heard["followers ended"] += 1
    except (OSError, ValueError):
        heard["followers ended"] += 1
    finally:
        writer.close()


def stalled(host: str, port: int) -> socket.socket:
    """A follower that never reads, with little room for what it does not read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect((host, port))
    connection.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection


async def main(url: str, run_id: str, particles: list[int], t_s: float, seconds: float, rate_hz: float) -> None:
    """Ask and follow for so long, then print what was found."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    heard: Counter[str] = Counter()
    followers = [asyncio.create_task(follow(host, port, heard)) for _ in range(FOLLOWERS - STALLED)]
    deaf = [stalled(host, port) for _ in range(STALLED)]
    asker = Asker(host, port, run_id, particles, t_s)
    began_s = time.process_time()
    await asker.ask(seconds, rate_hz)
    spent_s = time.process_time() - began_s
    for task in followers:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*followers, return_exceptions=True)
    for connection in deaf:
        connection.close()
    found = {"latencies_s": asker.latencies_s, "statuses": asker.statuses, "heard": heard}
    print(json.dumps(found | {"cores": spent_s / seconds}), flush=True)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    asyncio.run(main(**asked))
