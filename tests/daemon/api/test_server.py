"""Listening, and what goes over the wire before any handler is asked."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from daemon.api.server import ApiServer
from daemon.errors import ApiError, ApiReason, ConfigError
from tests.daemon.api.conftest import Serve, Served
from tests.daemon.api.fakes import event, fakes


async def raw(served: Served, request: bytes) -> bytes:
    """Send bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection(*served.address)
    try:
        writer.write(request)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = ApiServer(fakes(tmp_path, port=port).parts())
        with pytest.raises(ApiError) as refused:
            await server.start()
    assert refused.value.reason is ApiReason.PORT_IN_USE
    assert str(port) in refused.value.detail
    assert server.url == ""
    assert server.status().state == "stopped"


async def test_a_host_of_elsewhere_is_named(tmp_path: Path) -> None:
    server = ApiServer(fakes(tmp_path, host="127.0.0.1", socket=tmp_path / ("x" * 200)).parts())
    with pytest.raises(ConfigError, match=r"api\.socket"):
        await server.start()
    await server.stop()


async def test_a_live_socket_is_not_taken_a_stale_one_is(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    await serve(socket=path)
    with pytest.raises(ApiError) as refused:
        await ApiServer(fakes(tmp_path, socket=path).parts()).start()
    assert refused.value.reason is ApiReason.PORT_IN_USE
    assert path.exists()


async def test_start_and_stop_again_and_again(tmp_path: Path) -> None:
    server = ApiServer(fakes(tmp_path).parts())
    for _ in range(2):
        await server.start()
        assert server.status().values["url"] == server.url
        await server.stop()
        await server.stop()


async def test_http_1_0_gets_no_chunks(served: Served) -> None:
    served.fakes.feed.publish([event(seq) for seq in range(1, 4)])
    for path, accept in (("/status", "*/*"), ("/events?follow=false", "application/x-ndjson")):
        head, _, body = (
            await raw(served, f"GET /api/v1{path} HTTP/1.0\r\nAccept: {accept}\r\n\r\n".encode())
        ).partition(b"\r\n\r\n")
        assert head.split(b" ")[1] == b"200"
        assert b"chunked" not in head.lower()
        assert body.strip().startswith(b"{")
        assert body.strip().endswith(b"}")


async def test_http_1_0_may_follow_the_feed(served: Served) -> None:
    served.fakes.feed.publish([event(1)])
    reader, writer = await asyncio.open_connection(*served.address)
    writer.write(b"GET /api/v1/events HTTP/1.0\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert b"chunked" not in head.lower()
    assert b"id: 1\n" in await asyncio.wait_for(reader.readuntil(b'"seq":1}\n\n'), 5)
    served.fakes.feed.publish([event(2)])
    assert b"id: 2\n" in await asyncio.wait_for(reader.readuntil(b"\n\n"), 5)
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /api/v1/status HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n{}",
        b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_not_http_is_refused_without_a_traceback(served: Served, request_bytes: bytes) -> None:
    answer = await raw(served, request_bytes)
    assert answer.split(b" ")[1] in (b"400", b"431")
    assert b"application/problem+json" in answer
    assert b"Traceback" not in answer
    await served.json("GET", "/healthz")


async def test_head_answers_like_get_without_a_body(with_run: Served) -> None:
    for path in (
        "/status",
        "/runs/r1/particles",
        "/events",
        "/frame.png",
        "/runs/r1/export",
        "/diagnostics/bundle",
        "/",
    ):
        async with with_run.ask("HEAD", path) as response:
            assert response.status == 200, path
            assert await response.read() == b""
    assert with_run.fakes.bundles == 0


async def test_stopping_ends_open_streams_at_once(served: Served) -> None:
    async with served.ask("GET", "/events") as response:
        await response.content.readline()
        await asyncio.wait_for(served.server.stop(), 2)
        await asyncio.wait_for(response.content.read(), 2)
