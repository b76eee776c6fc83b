"""The event feed: resuming, both encodings, stalled readers."""

from __future__ import annotations

import asyncio
import json
import socket

import aiohttp
import pytest

from daemon.api import followers as followers_module
from daemon.api import live
from daemon.api.app import SERVICES
from tests.daemon.api.conftest import Serve, Served
from tests.daemon.api.fakes import event


async def next_sse(response: aiohttp.ClientResponse) -> tuple[str, dict[str, object]]:
    """Id and data of the next event."""
    while True:
        block = await asyncio.wait_for(response.content.readuntil(b"\n\n"), 5)
        fields = dict(line.split(": ", 1) for line in block.decode().strip().split("\n") if not line.startswith(":"))
        if "data" in fields:
            return fields["id"], json.loads(fields["data"])


async def test_server_sent_events_resume_where_they_ended(served: Served) -> None:
    served.fakes.feed.publish([event(seq) for seq in range(1, 6)])
    async with served.ask("GET", "/events?after=3") as response:
        assert response.content_type == "text/event-stream"
        assert [(await next_sse(response))[0] for _ in range(2)] == ["4", "5"]
        served.fakes.feed.publish([event(6)])
        number, data = await next_sse(response)
        assert (number, data["seq"], data["kind"], data["magnitude"]) == ("6", 6, "step", None)
    served.fakes.feed.publish([event(7), event(8)])
    async with served.ask("GET", "/events?after=0", headers={"Last-Event-ID": "6"}) as response:
        assert [(await next_sse(response))[0] for _ in range(2)] == ["7", "8"]


async def test_older_events_come_from_the_store(served: Served) -> None:
    served.fakes.older = [event(seq) for seq in range(1, 1501)]
    served.fakes.feed.publish([event(1501)])
    async with served.ask("GET", "/events?follow=false", headers={"Accept": "application/x-ndjson"}) as response:
        lines = (await response.text()).splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, 1502))


async def test_lines_of_json_follow_too(served: Served) -> None:
    async with served.ask("GET", "/events", headers={"Accept": "application/x-ndjson"}) as response:
        served.fakes.feed.publish([event(1, detail="line\nbreak")])
        found = json.loads(await asyncio.wait_for(response.content.readline(), 5))
    assert (found["seq"], found["detail"]) == (1, "line\nbreak")


async def test_a_page_of_events_as_json(served: Served) -> None:
    served.fakes.feed.publish([event(seq) for seq in range(1, 8)])
    page = await served.json("GET", "/events?after=2&limit=3", headers={"Accept": "application/json"})
    assert [found["seq"] for found in page["events"]] == [3, 4, 5]
    assert page["last_seq"] == 5
    rest = await served.json("GET", "/events?after=9", headers={"Accept": "application/json"})
    assert rest == {"events": [], "last_seq": 9}


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 30, "²"])
async def test_a_garbled_last_event_id_is_refused(served: Served, last: str) -> None:
    problem = await served.json("GET", "/events", 400, headers={"Last-Event-ID": last})
    assert "Last-Event-ID" in problem["detail"]


async def test_quiet_streams_are_kept_alive(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "IDLE_S", 0.05)
    async with served.ask("GET", "/events") as response:
        assert await asyncio.wait_for(response.content.readuntil(b": alive\n\n"), 5)
    async with served.ask("GET", "/events", headers={"Accept": "application/x-ndjson"}) as response:
        assert await asyncio.wait_for(response.content.readline(), 5) == b"\n"


async def test_too_many_followers_are_sent_away(serve: Serve) -> None:
    served = await serve(max_followers=2)
    open_streams = [await served.session.get(served.url("/events")) for _ in range(2)]
    problem = await served.json("GET", "/events", 503)
    assert problem["code"] == "api.busy"
    assert served.server.status().values["followers"] == 2
    for stream in open_streams:
        stream.close()


async def test_readers_that_left_make_room(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "IDLE_S", 0.05)
    served = await serve(max_followers=1)
    for _ in range(3):
        async with served.ask("GET", "/events") as response:
            await response.content.readline()
            response.close()
        for _ in range(100):
            if not served.server.status().values["followers"]:
                break
            await asyncio.sleep(0.02)
        assert served.server.status().values["followers"] == 0


async def test_a_stalled_reader_is_dropped_and_slows_nobody(serve: Serve) -> None:
    served = await serve()
    services = served.server._runner.app[SERVICES]  # type: ignore[union-attr]
    services.followers._write_deadline_s = 0.2
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.setblocking(False)
    await asyncio.get_running_loop().sock_connect(stalled, served.address)
    await asyncio.get_running_loop().sock_sendall(stalled, b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    try:
        async with served.ask("GET", "/events") as healthy:
            seq = 0
            for _ in range(200):
                served.fakes.feed.publish([event(seq + n, detail="x" * 20_000) for n in range(1, 21)])
                seq += 20
                while int((await next_sse(healthy))[0]) < seq:
                    pass
                if services.followers.dropped:
                    break
            assert services.followers.dropped == 1
            assert len(services.followers) == 1
    finally:
        stalled.close()


def test_one_write_is_bounded() -> None:
    assert followers_module.MAX_WRITE_BYTES <= 1 << 20
