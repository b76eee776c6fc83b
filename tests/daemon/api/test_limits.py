"""How often, who, and what the file of tokens says meanwhile."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from daemon.api import dispatch
from daemon.api.app import ENDPOINTS, SERVICES
from daemon.api.auth import GATE, MadeTokens
from daemon.api.dispatch import request_buckets
from daemon.api.limits import MAX_KEYS, Buckets, TooManyRequestsError, peer_key
from daemon.config import ApiSettings
from daemon.errors import TokenReason
from daemon.tokens import StoredToken, TokenFile
from tests.daemon.api.conftest import Serve, Served
from tests.daemon.api.fakes import ADMIN, OPERATE, READ, TOKENS

DAY = timedelta(days=1)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_buckets_fill_with_time() -> None:
    now_s = [0.0]
    buckets = Buckets(2.0, 3, lambda: now_s[0])
    assert [buckets.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert buckets.take("b") == 0.0
    now_s[0] = 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0.0, 0.5]
    now_s[0] = 1e9
    assert [buckets.take("a") > 0 for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize("rate_hz", [0.4, 0.001, 5e-324])
def test_a_low_rate_lets_one_request_through(rate_hz: float) -> None:
    buckets = request_buckets(ApiSettings(max_requests_per_s=rate_hz))
    assert buckets.take("a") == 0.0
    wait_s = buckets.take("a")
    assert wait_s > 0 and 1 <= TooManyRequestsError("", wait_s).retry_after_s <= 86_400


def test_buckets_are_bounded() -> None:
    buckets = Buckets(1.0, 1)
    for number in range(MAX_KEYS + 100):
        buckets.take(str(number))
    assert len(buckets) == MAX_KEYS


def test_a_network_of_one_host_is_one_client() -> None:
    assert peer_key("2001:db8::1") == peer_key("2001:db8::ffff:1")
    assert peer_key("::ffff:10.0.0.1") == peer_key("10.0.0.1") != peer_key("10.0.0.2")
    assert peer_key(None) == peer_key("") == "unix"
    assert peer_key("fe80::1%eth0") == peer_key("fe80::1")


async def test_who_asks_too_often_is_told_for_how_long(serve: Serve) -> None:
    served = await serve(max_requests_per_s=3.0)
    answers = []
    for _ in range(12):
        async with served.ask("GET", "/nowhere") as response:
            answers.append(response.status)
            if response.status == 429:
                assert int(response.headers["Retry-After"]) >= 1
                assert (await response.json(content_type=None))["code"] == "api.too_many_requests"
    assert answers[:6] == [404] * 6
    assert 429 in answers
    for _ in range(20):
        await served.json("POST", "/cell/off")
    assert len(served.fakes.cell.calls) == 20


async def test_a_token_is_limited_wherever_it_comes_from(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = await serve(tokens=TOKENS, max_requests_per_s=3.0)
    peers = (str(number) for number in range(1000))
    monkeypatch.setattr(dispatch, "peer_key", lambda remote: next(peers))
    asked = [served.ask("GET", "/whoami", headers=bearer(READ)) for _ in range(12)]
    statuses = []
    for each in asked:
        async with each as response:
            statuses.append(response.status)
    assert statuses[:6] == [200] * 6 and 429 in statuses
    await served.json("GET", "/whoami", headers=bearer(OPERATE))


async def test_wrong_tokens_run_out_and_a_right_one_passes(serve: Serve) -> None:
    served = await serve(tokens=TOKENS)
    statuses = []
    for number in range(30):
        async with served.ask("GET", "/status", headers=bearer(f"guess-{number:020d}")) as response:
            statuses.append(response.status)
    assert statuses[:10] == [401] * 10
    assert set(statuses[12:]) == {429}
    for headers in ({}, {"Authorization": "Bearer "}):
        for _ in range(20):
            await served.json("GET", "/status", 401, headers=headers)
    await served.json("GET", "/status", headers=bearer(READ))
    await served.server.stop()
    rows = [row for row in served.fakes.audited if row[2].startswith("refused: api.unauthorised (unknown)")]
    assert 1 <= len(rows) <= 20
    assert all(row[0] == "anyone:127.0.0.1" for row in rows)
    assert served.fakes.unauthorised["unknown"] == 30
    assert served.fakes.unauthorised["missing"] == 40
    assert not any("guess-" in str(row) for row in served.fakes.audited)


async def _watched(served: Served) -> None:
    """What the server does once a second."""
    runner = served.server._runner
    assert runner is not None
    made = runner.app[GATE].made
    assert made is not None
    await asyncio.to_thread(made.refresh)
    runner.app[SERVICES].followers.admit_again()


async def test_tokens_are_noticed_without_a_restart(serve: Serve, tmp_path: Path) -> None:
    served = await serve()
    await served.json("GET", "/status")
    file = TokenFile(served.fakes.settings.store.state_dir)
    _, secret = await asyncio.to_thread(file.create, "a", "operate")
    await _watched(served)
    await served.json("GET", "/status", 401)
    assert (await served.json("GET", "/version"))["asks_for_tokens"] is True
    assert (await served.json("GET", "/whoami", headers=bearer(secret)))["actor"] == "token:a"
    await served.json("GET", "/logs", 403, headers=bearer(secret))
    await asyncio.to_thread(file.revoke, "a")
    await _watched(served)
    await served.json("GET", "/status", 401, headers=bearer(secret))
    await asyncio.to_thread(file.path.unlink)
    await _watched(served)
    await served.json("GET", "/status", 401)


async def _ends(response: aiohttp.ClientResponse) -> bool:
    try:
        await asyncio.wait_for(response.content.read(), 10)
    except TimeoutError:
        return False
    return True


async def test_streams_end_with_the_token_they_were_opened_by(serve: Serve, tmp_path: Path) -> None:
    """And those that needed none when they were opened, but not those that a token of the configuration opened."""
    file = TokenFile(tmp_path)
    served = await serve(socket=tmp_path / "api.sock")
    early = await served.ask("GET", "/events").__aenter__()
    _, secret = await asyncio.to_thread(file.create, "a", "admin")
    await _watched(served)
    assert await _ends(early)
    events = await served.ask("GET", "/events", headers=bearer(secret)).__aenter__()
    logs = await served.ask("GET", "/logs?follow=true", headers=bearer(secret)).__aenter__()
    assert (events.status, logs.status) == (200, 200)
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "api.sock"))) as session:
        over_unix = await session.get("http://x/api/v1/events")
        await asyncio.to_thread(file.revoke, "a")
        await _watched(served)
        assert await _ends(events) and await _ends(logs)
        assert served.server.status().values["followers"] == 1
        over_unix.close()


async def test_streams_end_when_their_token_expires(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = await serve(tokens=TOKENS)
    _, secret = await asyncio.to_thread(TokenFile(served.fakes.settings.store.state_dir).create, "a", "read", DAY)
    await _watched(served)
    expiring = await served.ask("GET", "/events", headers=bearer(secret)).__aenter__()
    lasting = await served.ask("GET", "/events", headers=bearer(READ)).__aenter__()
    monkeypatch.setattr(StoredToken, "expiry_problem", lambda self, now: "the token expired")
    await _watched(served)
    assert await _ends(expiring)
    assert served.server.status().values["followers"] == 1
    lasting.close()


async def test_the_server_looks_at_streams_by_itself(serve: Serve) -> None:
    served = await serve()
    early = await served.ask("GET", "/events").__aenter__()
    await asyncio.to_thread(TokenFile(served.fakes.settings.store.state_dir).create, "a", "read")
    assert await _ends(early)


async def test_the_server_looks_by_itself(serve: Serve) -> None:
    served = await serve()
    await asyncio.to_thread(TokenFile(served.fakes.settings.store.state_dir).create, "a", "read")
    for _ in range(100):
        async with served.ask("GET", "/status") as response:
            if response.status == 401:
                return
        await asyncio.sleep(0.1)
    raise AssertionError("a token made meanwhile was not noticed")


async def test_damaged_tokens_let_nobody_in_and_say_so(serve: Serve) -> None:
    served = await serve(tokens=TOKENS)
    file = TokenFile(served.fakes.settings.store.state_dir)
    _, secret = await asyncio.to_thread(file.create, "a", "admin")
    await _watched(served)
    await served.json("GET", "/status", headers=bearer(secret))
    await asyncio.to_thread(file.path.write_text, "{")
    await _watched(served)
    problem = await served.json("GET", "/status", 503, headers=bearer(secret))
    assert problem["code"] == TokenReason.DAMAGED.code
    status = await served.json("GET", "/status", headers=bearer(ADMIN))
    (line,) = (part for part in status["parts"] if part["name"] == "api")
    assert (line["state"], line["reason"]) == ("degraded", TokenReason.DAMAGED.code)


async def test_expired_tokens_are_told_so(serve: Serve) -> None:
    served = await serve()
    file = TokenFile(served.fakes.settings.store.state_dir)
    _, secret = await asyncio.to_thread(file.create, "a", "admin", timedelta(seconds=0))
    await _watched(served)
    assert "expired" in (await served.json("GET", "/status", 401, headers=bearer(secret)))["detail"]
    assert served.fakes.unauthorised["expired"] == 1


def test_a_file_that_cannot_be_read_is_not_none(tmp_path: Path) -> None:
    (tmp_path / "tokens.json").mkdir()
    made = MadeTokens(tmp_path / "tokens.json")
    made.refresh()
    assert made.present and made.problem is not None
    if os.geteuid() != 0:
        return
    assert made.problem.reason is TokenReason.DAMAGED


ACTING = [endpoint for endpoint in ENDPOINTS if endpoint.scope in ("operate", "admin")]


@pytest.mark.parametrize("endpoint", ACTING, ids=lambda endpoint: f"{endpoint.method} {endpoint.path}")
async def test_every_control_action_leaves_a_row(serve: Serve, endpoint: object, run_file: object) -> None:
    """Whether it is done, fails or is refused."""
    served = await serve(tokens=TOKENS)
    served.fakes.runs.runs["r1"] = run_file  # type: ignore[assignment]
    path = endpoint.path.replace("{run_id}", "r1").replace("{kind}", "dark").replace("{operation_id}", "ab")  # type: ignore[attr-defined]
    for secret, actor in ((READ, "token:viewer"), (ADMIN, "token:engineer")):
        before = len(served.fakes.audited)
        async with served.ask(endpoint.method, path, headers=bearer(secret)) as response:  # type: ignore[attr-defined]
            await response.read()
            assert (response.status == 403) == (secret == READ)
        for _ in range(100):
            rows = list(served.fakes.audited[before:])
            if secret == ADMIN:  # its row is written in the transaction that deletes
                rows += [(actor, "run.delete", run_id) for run_id, actor, _ in served.fakes.keeping.deleted]
            if rows:
                break
            await asyncio.sleep(0.05)
        assert rows and {row[0] for row in rows} == {actor}
