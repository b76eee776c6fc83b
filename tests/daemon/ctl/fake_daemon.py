"""A daemon of answers: the endpoints of CONTRACTS section 4 that photometryctl asks, on TCP and on a Unix socket."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

PREFIX = "/api/v1"
RUN = {
    "run_id": "r7", "name": "first", "state": "running", "started_utc": "2026-01-02T03:04:05+00:00", "ended_utc": None,
    "path": "/x/r7.db", "recipe": {}, "frames": 1234, "particles": 2, "reason": "", "detail": "",
}  # fmt: skip
STATUS = {
    "state": "degraded", "measuring": True, "version": "9.8.7", "utc": "2026-01-02T03:04:06Z", "last_event_seq": 3,
    "parts": [
        {"name": "engine", "state": "ready", "reason": "", "values": {"captured": 1000, "dropped": {"ring": 2}}},
        {"name": "camera", "state": "failed", "reason": "camera.stalled", "detail": "no frame came",
         "remedy": "Power-cycle it."},
    ],
    "run": RUN,
    "science": {"particles": 2, "particles_active": 1, "particles_dead": 1, "soc_mean": 0.51234567, "rate_cv": None},
    "cell": {"state": "running", "detail": "", "values": {"voltage_v": 3.71, "current_ma": -1.5, "mode": "off"}},
}  # fmt: skip
EVENTS = [
    {"seq": 1, "event_id": 1, "run_id": "r7", "particle_id": 4, "kind": "step", "t_s": 1.5, "magnitude": 0.25,
     "magnitude_sigma": 0.01, "score": 9.0, "detail": ""},
    {"seq": 2, "event_id": 2, "run_id": "r7", "particle_id": None, "kind": "frames_dropped", "t_s": 2.0,
     "magnitude": 3.0, "magnitude_sigma": None, "score": None, "detail": "the ring was full"},
    {"seq": 3, "event_id": 3, "run_id": "r7", "particle_id": 5, "kind": "crack", "t_s": 2.5, "magnitude": None,
     "magnitude_sigma": None, "score": None, "detail": ""},
]  # fmt: skip
PARTICLES = [
    {"particle_id": 4, "y_px": 10.5, "x_px": 20.25, "area_px": 300, "state": "active", "calibration": "monotone"},
    {"particle_id": 5, "y_px": 1.5, "x_px": 2.5, "area_px": 200, "state": "dead", "calibration": "none"},
]
LINE = {"utc": "2026-01-02T03:04:05.678+00:00", "level": "warning", "logger": "daemon", "message": "no frame",
        "thread": "MainThread", "exception": "Traceback\nValueError: \x1b[2J"}  # fmt: skip
PNG = b"\x89PNG\r\n\x1a\nnot much of a picture"
ARCHIVE = b"\x1f\x8b bundle " * 9000


def problem(status: int, code: str, detail: str, remedy: str) -> web.Response:
    body = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code, "remedy": remedy}
    return web.Response(status=status, text=json.dumps(body), content_type="application/problem+json")


class FakeDaemon:
    """Runs in a thread of its own. `answers` maps "METHOD /path" to what is answered in place of the usual."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.socket = directory / "api.sock"
        self.port = port
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        """(method, path, query, body) of everything asked."""
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self.operations: dict[str, list[dict[str, Any]]] = {}
        self.feed_connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="fake-daemon")
        self._ready = threading.Event()
        self._stop = asyncio.Event()

    def __enter__(self) -> FakeDaemon:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, method: str, path: str) -> list[tuple[dict[str, str], Any]]:
        """(query, body) of the requests to one place."""
        return [(query, body) for m, p, query, body in self.requests if (m, p) == (method, PREFIX + path)]

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._live())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _live(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        tcp = socket.create_server(("127.0.0.1", self.port))
        self.port = tcp.getsockname()[1]
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(str(self.socket))
        for listening in (tcp, unix):
            await web.SockSite(runner, listening).start()
        self._ready.set()
        await self._stop.wait()
        for listening in (tcp, unix):
            self._loop.remove_reader(listening)
        await asyncio.sleep(0.05)  # asyncio leaves open for good what it is accepting while its server is closed
        await runner.cleanup()
        await asyncio.sleep(0.05)  # for the transports to close

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.requests.append((request.method, request.path, dict(request.query), body))
        self.headers.append(dict(request.headers))
        path = request.path.removeprefix(PREFIX)
        own = self.answers.get(f"{request.method} {path}")
        if own is not None:
            return await own(request)
        if path.startswith("/operations/"):
            states = self.operations[path.removeprefix("/operations/").removesuffix("/file")]
            if path.endswith("/file"):
                return web.Response(body=ARCHIVE, content_type="application/gzip")
            return web.json_response(states.pop(0) if len(states) > 1 else states[0])
        if path == "/events":
            return await self._feed(request)
        if path == "/logs" and request.query.get("follow") == "true":
            return await self._log(request)
        return self._usual(request.method, path)

    def _usual(self, method: str, path: str) -> web.Response:
        known: dict[str, Any] = {
            "GET /status": STATUS,
            "GET /runs": {"runs": [RUN]},
            "GET /runs/r7/particles": {"run_id": "r7", "particles": PARTICLES},
            "GET /runs/r7/traces": {
                "run_id": "r7",
                "traces": [{"particle_id": 4, "frame": [0, 1], "t_s": [0.0, 0.01], "contrast": [0.0, -0.125]}],
            },
            "GET /logs": {"entries": [LINE]},
            "GET /version": {"api": "v1", "version": "9.8.7"},
            "POST /runs/r7/stop": RUN | {"state": "done"},
            "POST /cell/pause": {"state": "paused", "detail": "", "values": {"voltage_v": 3.7}},
            "POST /cell/resume": {"state": "running", "detail": "", "values": {}},
            "POST /cell/off": {"state": "off", "detail": "operator", "values": {}},
            "POST /cell/experiment": {"state": "running", "detail": "", "values": {}},
        }
        found = known.get(f"{method} {path}")
        if found is None:
            return problem(404, "api.not_found", f"there is nothing at {path}", "See /api/v1/openapi.json.")
        return web.json_response(found)

    async def _log(self, request: web.Request) -> web.StreamResponse:
        """Ends after each connection's lines, the last of which was there before."""
        self.feed_connections += 1
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for number in (self.feed_connections - 1, self.feed_connections):
            line = LINE | {"message": f"line {number}", "utc": f"2026-01-02T03:04:0{number}.000+00:00"}
            await response.write(json.dumps(line).encode() + b"\n\n")
        return response

    async def _feed(self, request: web.Request) -> web.StreamResponse:
        self.feed_connections += 1
        after = int(request.query["after"])
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for event in EVENTS:
            if event["seq"] > after:
                await response.write(json.dumps(event).encode() + b"\n\n")
                if request.query.get("follow") == "true":
                    return response  # hangs up after each, so that followers must resume
        if request.query.get("follow") == "true":
            await self._stop.wait()
        return response

    def later(self, delay_s: float, act: Callable[[], object]) -> None:
        """Have something happen on the daemon's side."""
        self._loop.call_soon_threadsafe(self._loop.call_later, delay_s, act)

    def operation(self, name: str, *states: dict[str, Any]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Answer 202; the operation then shows these states, one a look."""
        base = {
            "operation_id": name,
            "progress": 0.5,
            "log": [],
            "result": None,
            "error": None,
            "url": f"{PREFIX}/operations/{name}",
        }
        self.operations[name] = [base | state for state in states]

        async def accept(request: web.Request) -> web.StreamResponse:
            return web.json_response(base | {"state": "running"}, status=202)

        return accept


def answering(body: Any, status: int = 200) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Always this answer; bytes are sent as they are."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if isinstance(body, bytes):
            return web.Response(body=body, status=status, content_type="application/octet-stream")
        if isinstance(body, tuple):
            return web.Response(body=body[1], status=status, content_type=body[0])
        return web.json_response(body, status=status)

    return answer


def refusing(
    status: int, code: str, detail: str, remedy: str
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Always this problem document."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        return problem(status, code, detail, remedy)

    return refuse
