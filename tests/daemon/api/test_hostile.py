"""Under attack: every refusal is a problem document, none is a fault of ours, and the status goes on answering."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import socket
import time
from pathlib import Path

import pytest
from aiohttp import web

from daemon.api import connections, dispatch
from daemon.api.connections import HEAD_DEADLINE_S, KEEPALIVE_S, STALL_S, Connections, Opening
from daemon.api.server import room_for
from tests.daemon.api.conftest import Serve, Served
from tests.daemon.api.fakes import OPERATE, TOKENS
from tests.daemon.api.hostile import GARBAGE, HOST, PATHS, QUERIES, Answer, Idle, exchange, get, mutations, timed_status

MUTATIONS = int(os.environ.get("ATTACK_MUTATIONS", "300"))
IDLE = int(os.environ.get("ATTACK_IDLE", "300"))
SEED = int(os.environ.get("ATTACK_SEED", "1"))


def problem_of(answer: Answer) -> dict[str, object]:
    assert b"application/problem+json" in answer.head, answer.raw[:300]
    assert b"traceback" not in answer.raw.lower()
    problem: dict[str, object] = json.loads(answer.body)
    assert problem["status"] == answer.status
    assert problem["remedy"]
    return problem


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_is_refused_and_the_connection_closed(served: Served, name: str) -> None:
    answer = await exchange(served.address, GARBAGE[name])
    assert answer.status in (400, 413, 431), answer.raw[:300]
    problem_of(answer)
    assert served.fakes.runs.started == 0
    await served.json("GET", "/healthz")


@pytest.mark.parametrize("path", PATHS)
async def test_paths_lead_nowhere_else(with_run: Served, path: str) -> None:
    answer = await exchange(with_run.address, get(path))
    assert b"root:" not in answer.raw
    assert b"x-injected" not in answer.head
    if answer.status != 200 or b"problem+json" in answer.head:
        assert answer.status in (400, 403, 404, 405), answer.raw[:300]
        problem_of(answer)
    else:
        assert b"<html" in answer.body.lower()  # the page itself, under another spelling of its own path


@pytest.mark.parametrize("query", QUERIES)
async def test_queries_are_refused_by_name(with_run: Served, query: str) -> None:
    answer = await exchange(with_run.address, get(f"/api/v1/{query}"))
    assert answer.status == 400, answer.raw[:300]
    problem = problem_of(answer)
    assert problem["code"] == "api.bad_request"
    assert problem["errors"]


@pytest.mark.parametrize("method", ["PUT", "TRACE", "CONNECT", "OPTIONS", "BREW", "get"])
async def test_methods_that_are_not(served: Served, method: str) -> None:
    answer = await exchange(served.address, get("/api/v1/status", method))
    assert answer.status in (400, 404, 405)
    problem_of(answer)


async def test_a_body_too_large_is_not_read(serve: Serve) -> None:
    served = await serve(max_body_bytes=1000)
    head = b"POST /api/v1/runs HTTP/1.1\r\n" + HOST + b"Connection: close\r\n"
    for request in (
        head + b"Content-Length: 1000000000000\r\n\r\n" + b"x" * 5000,
        head + b"Content-Length: 5000\r\n\r\n" + b" " * 5000,
        head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1388\r\n" + b" " * 5000 + b"\r\n0\r\n\r\n",
    ):
        answer = await exchange(served.address, request)
        assert answer.status == 413
        problem_of(answer)


@pytest.mark.parametrize("body", [b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"\0", b"1e999999", b'"\\ud800"'])
async def test_bodies_that_are_no_json_of_ours(served: Served, body: bytes) -> None:
    head = b"POST /api/v1/runs HTTP/1.1\r\n" + HOST + b"Connection: close\r\nContent-Type: application/json\r\n"
    answer = await exchange(served.address, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert answer.status == 400
    problem_of(answer)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_body_that_is_not_encoded_as_it_says(
    served: Served, coding: str, caplog: pytest.LogCaptureFixture
) -> None:
    rest = b"Connection: close\r\nContent-Encoding: %s\r\nContent-Length: 7\r\n\r\nnotgzip" % coding.encode()
    for path, status in ((b"/api/v1/runs", 400), (b"/nowhere", 404)):  # read, and not
        answer = await exchange(served.address, b"POST %s HTTP/1.1\r\n" % path + HOST + rest)
        assert answer.status == status, answer.raw[:300]
        problem_of(answer)
    assert served.fakes.runs.started == 0
    assert not caplog.records


async def test_a_request_behind_another_is_one_of_its_own(served: Served) -> None:
    """Smuggled behind a body that was refused, it is not answered."""
    smuggled = b"POST /api/v1/cell/off HTTP/1.1\r\n" + HOST + b"\r\n"
    for name in ("bad length", "two lengths", "length and chunks", "bad chunk"):
        answer = await exchange(served.address, GARBAGE[name] + smuggled)
        assert answer.raw.count(b"HTTP/1.") == 1
    assert served.fakes.cell.calls == []


async def test_whatever_comes_nothing_breaks(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    served = await serve(max_requests_per_s=1e6)
    for request in mutations(SEED, MUTATIONS):
        reader, writer = await asyncio.open_connection(*served.address)
        writer.write(request)
        writer.write_eof()
        answer = Answer(await asyncio.wait_for(reader.read(), 20))
        writer.close()
        if answer.raw:
            assert 200 <= answer.status < 500, (SEED, request, answer.raw[:300])
    assert "Traceback" not in caplog.text
    await served.json("GET", "/healthz")


def _let_open(connections: int) -> None:
    """Both ends of them are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 1000
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"{wanted} open files are wanted, the hard limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def test_idle_connections_do_not_keep_the_status_from_answering(serve: Serve) -> None:
    _let_open(IDLE)
    served = await serve(max_connections=min(100, IDLE // 2), max_requests_per_s=1e6)
    async with Idle(served.address, IDLE, b"GET /api/v1/status HTTP/1.1\r\nX: ") as idle:
        for _ in range(10):
            status, _ = await timed_status(served.address)
            assert status == 200
        assert len(served.server._table) <= min(100, IDLE // 2)
        assert served.server._table.closed["idle"] >= IDLE - min(100, IDLE // 2)
        await asyncio.sleep(0.1)
        assert idle.still_open() <= min(100, IDLE // 2)
    async with served.ask("GET", "/status") as response:
        line = next(part for part in (await response.json())["parts"] if part["name"] == "api")
        assert line["values"]["connections_closed_idle"] > 0


async def test_who_works_is_not_closed_for_who_comes(serve: Serve) -> None:
    served = await serve(max_connections=10)
    streams = [served.ask("GET", "/events") for _ in range(9)]
    open_ones = [await stream.__aenter__() for stream in streams]
    async with Idle(served.address, 40):
        assert (await timed_status(served.address))[0] == 200
        for response in open_ones:
            assert not response.content.at_eof()
    last = await served.ask("GET", "/events").__aenter__()
    answer = await exchange(served.address, get("/api/v1/status"))
    assert answer.status == 503 and problem_of(answer)["code"] == "api.busy"
    for response in (*open_ones, last):
        response.close()


async def _takes_nothing(served: Served, request: bytes) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, served.address)
    await loop.sock_sendall(connection, request)
    return connection


async def _until_all_are_answered(served: Served, count: int) -> None:
    table = served.server._table
    async with asyncio.timeout(20):
        while len(table) < count or any(each.quiet_since_s is not None for each in table._open):
            await asyncio.sleep(0.01)


async def test_answers_that_need_no_token_keep_nobody_from_switching_the_cell_off(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve(max_connections=10, tokens=TOKENS)
    slow = [await _takes_nothing(served, get("/static/plotly.min.js")) for _ in range(10)]
    await _until_all_are_answered(served, 10)
    request = b"POST /api/v1/cell/off HTTP/1.1\r\n" + HOST + b"Connection: close\r\nAuthorization: Bearer %s\r\n\r\n"
    answer = await exchange(served.address, request % OPERATE.encode())
    assert answer.status == 200, answer.raw[:300]
    assert served.fakes.cell.calls == ["off: operator"]
    assert served.server._table.closed == {"nobody": 1}
    for each in slow:
        each.close()
    await asyncio.sleep(0.1)
    assert not caplog.records


async def test_the_unix_socket_answers_while_all_of_tcp_is_taken(serve: Serve, tmp_path: Path) -> None:
    served = await serve(max_connections=10, socket=tmp_path / "api.sock")
    streams = [await served.ask("GET", "/events").__aenter__() for _ in range(10)]
    assert (await exchange(served.address, get("/api/v1/status"))).status == 503
    reader, writer = await asyncio.open_unix_connection(tmp_path / "api.sock")
    writer.write(get("/api/v1/whoami"))
    answer = Answer(await asyncio.wait_for(reader.read(), 10))
    assert answer.status == 200 and b"unix:uid=" in answer.body
    writer.close()
    for response in streams:
        response.close()


async def test_a_peer_that_the_kernel_gives_up_on_is_no_error_of_ours(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def prepare(*_: object) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(web.FileResponse, "prepare", prepare)
    assert (await exchange(served.address, get("/static/plotly.min.js"))).raw == b""
    assert not caplog.records


class Place:
    """A connection of `peer` as the table sees it, closed when it is told to end."""

    quiet_since_s = None

    def __init__(self, peer: str, gives_way_since_s: float | None) -> None:
        self.peer, self.gives_way_since_s, self.ended = peer, gives_way_since_s, False

    def end(self, reason: object = None) -> None:
        self.ended = True


class Shaking(Place, Opening):
    """One that shakes hands."""


def test_who_has_most_gives_way_and_first_who_does_not_end_shaking_hands() -> None:
    now_s = time.monotonic()
    flood = [Place("flood", None), Place("flood", now_s - 20), Shaking("flood", now_s - 2), Shaking("flood", now_s)]
    others = [Place("lab", now_s - 60), Shaking("lab", now_s - 5), Place("cell", None)]
    table = Connections(len(flood) + len(others))
    for each in (*flood, *others):
        (table.add_opening if isinstance(each, Opening) else table.add)(each)  # type: ignore[arg-type]
    for gone in (flood[2], flood[1]):
        assert table.make_room() and gone.ended
        table.add(Place("flood", None))  # type: ignore[arg-type]
        assert sum(each.ended for each in (*flood, *others)) == table.closed.total()
    assert table.closed == {"handshake": 1, "nobody": 1}


def test_short_of_files_one_is_closed_though_there_is_room() -> None:
    table, place = Connections(10), Place("flood", 0.0)
    table.add(place)  # type: ignore[arg-type]
    assert table.make_room() and not place.ended
    assert table.make_room(short_of_files=True) and place.ended
    assert not table.make_room(short_of_files=True)


async def test_a_head_that_does_not_end_is_ended(served: Served) -> None:
    reader, writer = await asyncio.open_connection(*served.address)
    writer.write(b"GET /api/v1/status HTTP/1.1\r\nX: ")
    quiet, quiet_writer = await asyncio.open_connection(*served.address)
    while len(served.server._table) < 2 or not all(each.spoke for each in list(served.server._table._open)[:1]):
        await asyncio.sleep(0.01)
    (first, *_) = served.server._table._open
    assert first.quiet_since_s is not None
    served.server._table.sweep(first.quiet_since_s + HEAD_DEADLINE_S - 1)
    assert len(served.server._table) == 2
    served.server._table.sweep(first.quiet_since_s + HEAD_DEADLINE_S + 1)
    answer = Answer(await asyncio.wait_for(reader.read(), 5))
    assert answer.status == 408
    assert problem_of(answer)["code"] == "api.too_slow"
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(quiet.readexactly(1), 5)
    assert served.server._table.closed["slow_head"] == 2
    for each in (writer, quiet_writer):
        each.close()


async def test_a_connection_between_requests_stays_for_a_while(served: Served) -> None:
    await served.json("GET", "/healthz")
    (connection,) = served.server._table._open
    while connection.quiet_since_s is None:
        await asyncio.sleep(0.01)
    served.server._table.sweep(connection.quiet_since_s + KEEPALIVE_S)
    assert len(served.server._table) == 1
    served.server._table.sweep(connection.quiet_since_s + KEEPALIVE_S + HEAD_DEADLINE_S + 1)
    assert len(served.server._table) == 0


async def test_a_body_that_does_not_end_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "BODY_DEADLINE_S", 0.2)
    monkeypatch.setattr(connections, "LINGER_S", 0.2)
    head = b"POST /api/v1/runs HTTP/1.1\r\n" + HOST + b"Connection: close\r\n"
    reader, writer = await asyncio.open_connection(*served.address)
    writer.write(head + b'Content-Length: 100\r\n\r\n{"name')
    raw = await asyncio.wait_for(reader.readuntil(b"}"), 10)
    assert Answer(raw).status == 408
    assert problem_of(Answer(raw))["code"] == "api.too_slow"
    await asyncio.wait_for(reader.read(), 10)  # closed once it has waited for the rest in vain
    writer.close()


async def test_a_client_that_leaves_within_its_body_is_no_error_of_ours(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection(*served.address)
    writer.write(b"POST /api/v1/runs HTTP/1.1\r\n" + HOST + b'Content-Length: 100\r\n\r\n{"name')
    await asyncio.sleep(0.1)
    writer.close()
    await writer.wait_closed()
    await served.json("GET", "/healthz")
    while served.server._table._open:
        served.server._table.sweep(1e9)
        await asyncio.sleep(0.01)
    assert "Traceback" not in caplog.text and not [r for r in caplog.records if r.levelname == "ERROR"]


async def test_who_does_not_read_an_answer_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers pile up behind one reader; the table sees no byte taken and ends it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, served.address)
    await loop.sock_sendall(connection, (b"GET /api/v1/openapi.json HTTP/1.1\r\n" + HOST + b"\r\n") * 60)
    table = served.server._table
    for _ in range(500):
        if table._open and next(iter(table._open)).transport.get_write_buffer_size():  # type: ignore[union-attr]
            break
        await asyncio.sleep(0.01)
    (stalled,) = table._open
    table.sweep(1000.0)
    table.sweep(1000.0 + STALL_S - 1)
    assert len(table) == 1
    table.sweep(1000.0 + STALL_S + 1)
    assert len(table) == 0 and table.closed["slow_reader"] == 1
    assert stalled.transport is None or stalled.transport.is_closing()
    connection.close()


async def test_unread_answers_have_a_bound_together(served: Served) -> None:
    served.server._table.max_unread_bytes = 0
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, served.address)
    await loop.sock_sendall(connection, (b"GET /api/v1/openapi.json HTTP/1.1\r\n" + HOST + b"\r\n") * 60)
    for _ in range(500):
        served.server._table.sweep(1000.0)
        if served.server._table.closed["slow_reader"]:
            break
        await asyncio.sleep(0.01)
    assert served.server._table.closed["slow_reader"] == 1
    connection.close()


def test_room_for_connections_follows_the_limit_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [1024, 2048]
    monkeypatch.setattr(resource, "getrlimit", lambda which: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda which, wanted: limits.__setitem__(slice(None), list(wanted)))
    assert room_for(500) == 500 and limits == [1024, 2048]
    assert room_for(1500) == 1500 and limits[0] == 1500 + 256
    assert room_for(5000) == 2048 - 256 and limits[0] == 2048


def test_an_empty_table_has_room() -> None:
    assert Connections(10).make_room()
