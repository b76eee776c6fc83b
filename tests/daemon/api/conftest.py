"""A served API over the fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from daemon.api.server import ApiServer
from daemon.parts import RunSummary
from tests.daemon.api.fakes import Fakes, fakes, make_run


class Served:
    """The fakes, the server before them, and a client."""

    def __init__(self, fakes: Fakes, server: ApiServer, session: aiohttp.ClientSession) -> None:
        self.fakes, self.server, self.session = fakes, server, session

    def url(self, path: str) -> str:
        return self.server.url.rstrip("/") + (
            path if path.startswith(("/api", "/static")) or path == "/" else f"/api/v1{path}"
        )

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.server.url.removeprefix("http://").rstrip("/").rsplit(":", 1)
        return host, int(port)

    def ask(self, method: str, path: str, **request: Any) -> Any:
        return self.session.request(method, self.url(path), **request)

    async def json(self, method: str, path: str, status: int = 200, **request: Any) -> Any:
        async with self.ask(method, path, **request) as response:
            body = await response.json(content_type=None)
            assert response.status == status, body
            return body

    async def finished(self, operation: dict[str, Any]) -> dict[str, Any]:
        """The operation once it is over."""
        import asyncio

        for _ in range(1500):  # a process of its own takes seconds to begin on a busy machine
            found = await self.json("GET", operation["url"])
            if found["state"] not in ("pending", "running"):
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"{operation['kind']} did not end")


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts a server; keyword arguments are settings of `api`."""
    running: list[Served] = []

    async def start(**api: Any) -> Served:
        behind = fakes(tmp_path, **api)
        server = ApiServer(behind.parts())
        await server.start()
        running.append(Served(behind, server, aiohttp.ClientSession()))
        return running[-1]

    yield start
    for served in running:
        await served.session.close()
        await served.server.stop()


@pytest.fixture
async def served(serve: Serve) -> Served:
    return await serve()


@pytest.fixture(scope="session")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    """A finished run on disk, never changed by a test."""
    return make_run(tmp_path_factory.mktemp("runs") / "r1.db")


@pytest.fixture
async def with_run(served: Served, run_file: RunSummary) -> Served:
    served.fakes.runs.runs["r1"] = run_file
    return served
