"""Requests to the real API without a socket: bytes in, bytes out, through the server's own protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from daemon.api.server import ApiServer
from tests.scenarios.schedule import SCHEDULE


@dataclass(eq=False)
class Request:
    """One request and what became of it."""

    method: str
    path: str
    body: Any = None
    accept: str = "application/json"
    asked_s: float = field(default_factory=lambda: SCHEDULE.now_s)
    answered_s: float | None = None
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    hung_up: bool = False
    on_answer: Callable[[Request], None] | None = None

    def json(self) -> Any:
        """The answer's JSON."""
        return json.loads(self.content)

    def encode(self) -> bytes:
        """The request's bytes."""
        payload = b"" if self.body is None else json.dumps(self.body).encode()
        head = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1", f"Accept: {self.accept}", "Connection: close"]
        if self.method != "GET":
            head += [f"Content-Length: {len(payload)}", "Content-Type: application/json"]
        return "\r\n".join([*head, "", ""]).encode() + payload

    def decode(self, raw: bytes) -> None:
        """Take the answer's bytes."""
        head, _, content = raw.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        chunked = self.headers.get("transfer-encoding") == "chunked"
        self.content = _joined(content) if chunked else content
        self.answered_s = SCHEDULE.now_s
        if self.on_answer is not None:
            self.on_answer(self)


def _joined(chunks: bytes) -> bytes:
    whole = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size or b"0", 16)
        whole, chunks = whole + rest[:length], rest[length + 2 :]
    return whole


class _Wire(asyncio.Transport):
    """The client's side of a connection."""

    def __init__(self, request: Request) -> None:
        super().__init__({"peername": ("127.0.0.1", 50_000)})
        self.request = request
        self.protocol: Any = None
        self.closed = False
        self._raw = bytearray()

    def write(self, data: Any) -> None:
        self._raw += data

    def writelines(self, pieces: Any) -> None:
        for piece in pieces:
            self._raw += piece

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)
        if not self.request.hung_up:
            self.request.decode(bytes(self._raw))

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


def send(server: ApiServer, request: Request) -> Callable[[], None]:
    """Ask, on the event loop; the value hangs up. The answer comes through the request."""
    runner = server._runner
    if runner is None or runner.server is None:
        return lambda: None
    wire = _Wire(request)
    wire.protocol = runner.server()
    wire.protocol.connection_made(wire)
    wire.protocol.data_received(request.encode())

    def hang_up() -> None:
        if not wire.closed:
            request.hung_up = True
            wire.close()

    return hang_up
