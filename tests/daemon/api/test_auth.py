"""Who is let in: tokens, scopes, local peers, foreign pages."""

from __future__ import annotations

import os
from pathlib import Path

import aiohttp
import pytest

from daemon.api.auth import Gate, is_loopback
from daemon.config import ApiSettings
from daemon.errors import ConfigError, ConfigReason
from tests.daemon.api.conftest import Serve, Served
from tests.daemon.api.fakes import ADMIN, OPERATE, READ, TOKENS


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {READ}",
        READ,
        "Bearer wrong-token-0123456789",
        f"Bearer {READ}x",
        "Bearer ÿ",
    ],
)
async def test_bad_credentials_are_refused_and_told_how(serve: Serve, header: str | None) -> None:
    served = await serve(tokens=TOKENS)
    headers = {} if header is None else {"Authorization": header}
    async with served.ask("GET", "/status", headers=headers) as response:
        problem = await response.json(content_type="application/problem+json")
    assert response.status == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert problem["code"] == "api.unauthorised"
    assert READ not in str(problem)


async def test_two_credentials_are_refused(serve: Serve) -> None:
    served = await serve(tokens=TOKENS)
    headers = [("Authorization", f"Bearer {READ}"), ("Authorization", f"Bearer {ADMIN}")]
    await served.json("GET", "/status", 401, headers=headers)


@pytest.mark.parametrize(
    ("secret", "method", "path", "status"),
    [
        (READ, "GET", "/status", 200),
        (READ, "POST", "/cell/off", 403),
        (READ, "GET", "/logs", 403),
        (OPERATE, "GET", "/status", 200),
        (OPERATE, "POST", "/cell/off", 200),
        (OPERATE, "GET", "/diagnostics/bundle", 403),
        (ADMIN, "GET", "/logs", 200),
        (ADMIN, "POST", "/cell/off", 200),
    ],
)
async def test_scopes_include_each_other(serve: Serve, secret: str, method: str, path: str, status: int) -> None:
    served = await serve(tokens=TOKENS)
    body = await served.json(method, path, status, headers=bearer(secret))
    if status == 403:
        assert body["code"] == "api.forbidden"
        assert "scope" in body["detail"]


async def test_a_refused_request_changes_nothing(serve: Serve) -> None:
    served = await serve(tokens=TOKENS)
    await served.json("POST", "/cell/off", 403, headers=bearer(READ))
    assert served.fakes.cell.calls == []


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "instrument.example"])
def test_a_reachable_host_needs_tokens(host: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Gate(ApiSettings(host=host)).check_settings()
    assert refused.value.reason is ConfigReason.BAD_VALUE
    assert host in refused.value.detail
    Gate(ApiSettings(host=host, tokens=TOKENS)).check_settings()


def test_loopback_names() -> None:
    assert all(map(is_loopback, ["localhost", "LOCALHOST.", "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"]))
    assert not any(map(is_loopback, ["", "0.0.0.0", "10.0.0.1", "localhost.evil.example", "::ffff:10.0.0.1", "0x7f.1"]))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8470", "localhost.evil.example", "[::"])
async def test_a_rebound_host_name_is_refused(served: Served, host: str) -> None:
    problem = await served.json("GET", "/status", 403, headers={"Host": host})
    assert problem["code"] == "api.cross_site"


async def test_own_host_names_are_served(served: Served) -> None:
    for host in ("localhost", "127.0.0.1:1", "[::1]:8470"):
        await served.json("GET", "/status", headers={"Host": host})


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_foreign_pages_cannot_change_anything(served: Served, headers: dict[str, str]) -> None:
    problem = await served.json("POST", "/cell/off", 403, headers=headers)
    assert problem["code"] == "api.cross_site"
    assert served.fakes.cell.calls == []


async def test_the_own_page_may(served: Served) -> None:
    origin = served.server.url.rstrip("/")
    await served.json("POST", "/cell/off", headers={"Origin": origin, "Sec-Fetch-Site": "same-origin"})


async def test_what_came_through_a_proxy_is_not_local(served: Served) -> None:
    problem = await served.json("GET", "/status", 401, headers={"X-Forwarded-For": "10.0.0.9"})
    assert "proxy" in problem["detail"]


async def test_the_unix_socket_needs_no_token(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "run" / "api.sock"
    served = await serve(tokens=TOKENS, socket=path)
    assert path.stat().st_mode & 0o777 == 0o660
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
        async with session.get("http://anything/api/v1/whoami") as response:
            assert (await response.json())["actor"] == f"unix:uid={os.getuid()}"
        async with session.post("http://localhost/api/v1/cell/off") as response:
            assert response.status == 200
    await served.server.stop()
    assert not path.exists()


async def test_every_change_is_audited_with_its_actor(serve: Serve) -> None:
    served = await serve(tokens=TOKENS)
    await served.json("PATCH", "/camera", json={"exposure_us": 500.0}, headers=bearer(OPERATE))
    assert served.fakes.audited == [("token:operator", "camera.configure", "exposure_us=500")]
