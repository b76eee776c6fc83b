"""What a curious network sends: bytes, and a client that speaks in sockets."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator

HOST = b"Host: localhost\r\n"
GARBAGE: dict[str, bytes] = {
    "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
    "no version": b"GET /api/v1/status\r\n\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown version": b"GET / HTTP/9.9\r\n\r\n",
    "binary": bytes(range(256)) * 4 + b"\r\n\r\n",
    "long line": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    "long header": b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
    "header flood": b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: 1\r\n" % n for n in range(5000)) + b"\r\n",
    "nul in header": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n",
    "nul in path": b"GET /api/v1/\x00status HTTP/1.1\r\n" + HOST + b"\r\n",
    "space in name": b"GET / HTTP/1.1\r\n" + HOST + b"X y: 1\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\n" + HOST + b"X: 1\r\n continued\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n",
    "bad length": b"POST /api/v1/runs HTTP/1.1\r\n" + HOST + b"Content-Length: many\r\n\r\n{}",
    "negative length": b"POST /api/v1/runs HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n{}",
    "two lengths": b"POST /api/v1/runs HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunks": (
        b"POST /api/v1/runs HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "two codings": b"POST /api/v1/runs HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "bad chunk": b"POST /api/v1/runs HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "huge chunk": b"POST /api/v1/runs HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b"f" * 40
    + b"\r\n",
}
"""By what is wrong with them; each is refused with 400, 413 or 431, and the connection closed."""

PATHS = (
    "/../../../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/static/..%2f..%2f..%2fetc%2fpasswd",
    "/static/plotly.min.js/../../../etc/passwd",
    "/api/v1/runs/..%2f..%2finstrument.db",
    "/api/v1/runs/../../../etc/passwd/particles",
    "/api/v1/runs/%00/particles",
    "/api/v1/runs/a%00b",
    "/api/v1/runs/%ff%fe",
    "/api/v1/runs/" + "a" * 300,
    "/api/v1/runs/r1%0d%0aX-Injected:%201",
    "/api/v1/operations/..%2f..%2fetc/file",
    "//etc/passwd",
    "/api/v1//status",
    "/api/v1/status/",
    "/api/v1/openapi.json/..",
    "/%",
    "/%zz",
    "/;/?#",
    "http://evil.example/api/v1/status",
)
QUERIES = (
    "runs?limit=99999999999999999999",
    "runs?limit=-1",
    "runs?limit=1&limit=2",
    "runs?limit=%00",
    "runs?limit=NaN",
    "events?after=1e400",
    "events?follow=perhaps",
    "runs/r1/traces?points=1000000000",
    "runs/r1/traces?from=nan",
    "runs/r1/traces?from=5&to=1",
    "runs/r1/traces?from=1e999",
    "runs/r1/traces?particles=" + ",".join(["1"] * 1001),
    "runs/r1/traces?particles=-1",
    "runs/r1/traces?particles=18446744073709551616",
    "runs/r1/traces?columns=contrast'--",
    "runs/r1/traces?columns=" + ",".join(["contrast"] * 101),
    "runs/r1/events?kind=1%20or%201=1",
    "runs/r1/events?after=9223372036854775808",
    "runs/r1/cycles?cycle=99999999999",
    "runs/r1/export?tables=../../etc",
    "logs?since=1e308",
    "logs?since=9999-99-99",
    "frame.png?overlay=../x",
    "runs?" + "&".join(f"a{n}=1" for n in range(500)),
)
"""Each is refused with a problem document that names what is wrong."""


class Answer:
    """Of a raw exchange."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, self.body = raw.partition(b"\r\n\r\n")
        self.head = head.lower()
        self.status = int(raw.split(b" ")[1]) if raw.startswith(b"HTTP/") else 0


async def exchange(address: tuple[str, int], request: bytes, timeout_s: float = 10.0) -> Answer:
    """Send, and read until the other side closes."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(request)
            await writer.drain()
        with contextlib.suppress(ConnectionError):
            return Answer(await asyncio.wait_for(reader.read(), timeout_s))
        return Answer(b"")
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def get(path: str, method: str = "GET") -> bytes:
    """A request that ends its connection."""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1")


def mutations(seed: int, count: int) -> Iterator[bytes]:
    """Good and bad requests with bytes changed, cut out, doubled and put in."""
    rng = random.Random(seed)
    seeds = [*GARBAGE.values(), get("/api/v1/status"), get("/api/v1/cell/off", "POST"), get("/api/v1/runs?limit=2")]
    for _ in range(count):
        request = bytearray(rng.choice(seeds)[:3000])
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(request) + 1)
            kind = rng.randrange(4)
            if kind == 0:
                request[at : at + 1] = bytes([rng.randrange(256)])
            elif kind == 1:
                del request[at : at + rng.randint(1, 20)]
            elif kind == 2:
                request[at:at] = request[at : at + rng.randint(1, 200)]
            else:
                request[at:at] = rng.choice([b"\r\n", b"\0", b"\xff", b": ", b"\r\n\r\n", b" ", b"%00", b"../"])
        yield bytes(request)


class Idle:
    """Connections that say nothing, or never finish what they say."""

    def __init__(self, address: tuple[str, int], count: int, word: bytes = b"") -> None:
        self._address, self._count, self._word = address, count, word
        self._open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.refused = 0

    async def __aenter__(self) -> Idle:
        for number in range(self._count):
            try:
                pair = await asyncio.wait_for(asyncio.open_connection(*self._address), 10)
            except (OSError, TimeoutError):
                self.refused += 1
                continue
            self._open.append(pair)
            if self._word:
                pair[1].write(self._word)
            if number % 100 == 0:
                await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        for _, writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0)

    def still_open(self) -> int:
        """As far as this side knows."""
        return sum(not reader.at_eof() and not writer.is_closing() for reader, writer in self._open)


async def timed_status(address: tuple[str, int]) -> tuple[int, float]:
    """Status of `/api/v1/status` and how long it took."""
    began_s = time.monotonic()
    answer = await exchange(address, get("/api/v1/status"), 20.0)
    return answer.status, time.monotonic() - began_s
