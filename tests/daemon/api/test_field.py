"""Self-test, bundle, logs."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from tests.daemon.api.conftest import Serve, Served


async def test_the_bundle_is_a_gzip_file(served: Served) -> None:
    async with served.ask("GET", "/diagnostics/bundle") as response:
        assert (response.status, response.content_type) == (200, "application/gzip")
        assert ".tar.gz" in response.headers["Content-Disposition"]
        assert await response.read() == b"\x1f\x8bbundle"


async def test_a_slow_bundle_is_made_once_and_fetched_later(served: Served) -> None:
    def slow(path: Path) -> None:
        time.sleep(1.0)
        served.fakes._bundle(path)

    served.server._parts.bundle = slow
    operations = await asyncio.gather(*(served.json("GET", "/diagnostics/bundle", 202) for _ in range(3)))
    assert len({operation["operation_id"] for operation in operations}) == 1
    found = await served.finished(operations[0])
    async with served.ask("GET", found["result"]["file_url"]) as response:
        assert await response.read() == b"\x1f\x8bbundle"
    assert served.fakes.bundles == 1


async def test_archives_of_an_earlier_life_go(serve: Serve, tmp_path: Path) -> None:
    left = tmp_path / "tmp" / "archive-abc"
    await asyncio.to_thread(left.mkdir, parents=True)
    await asyncio.to_thread((left / "half.zip").write_bytes, b"x")
    await serve()
    assert not await asyncio.to_thread(left.exists)


async def test_archives_go_when_the_service_ends(served: Served, tmp_path: Path) -> None:
    async with served.ask("GET", "/diagnostics/bundle") as response:
        await response.read()
    assert len(await asyncio.to_thread(lambda: list((tmp_path / "tmp").iterdir()))) == 1
    await served.server.stop()
    assert await asyncio.to_thread(lambda: list((tmp_path / "tmp").iterdir())) == []


async def test_logs_are_read_by_level_and_time(served: Served) -> None:
    body = await served.json("GET", "/logs?level=warning&since=2026-01-02T03:04:05Z")
    assert body["entries"][0]["level"] == "warning"
    assert body["entries"][0]["message"] == "since 2026-01-02 03:04:05+00:00"
    recent = await served.json("GET", "/logs?since=60")
    assert recent["entries"][0]["message"].startswith("since 20")
    async with served.ask("GET", "/logs", headers={"Accept": "application/x-ndjson"}) as response:
        assert json.loads(await response.text())["message"] == "since None"


async def test_logs_are_followed_line_by_line(served: Served) -> None:
    async with served.ask("GET", "/logs?follow=true") as response:
        assert response.content_type == "application/x-ndjson"
        assert json.loads(await response.content.readline())["message"] == "since None"
        assert await asyncio.wait_for(response.content.readline(), 5) == b"\n"
