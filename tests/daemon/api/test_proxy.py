"""Behind nginx, with the configuration that docs/field/network.md gives."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest

from tests.daemon.api.conftest import Serve
from tests.daemon.api.fakes import OPERATE, TOKENS, event
from tests.daemon.api.test_tls import Files

PAGE = Path(__file__).parents[3] / "docs" / "field" / "network.md"
NGINX = os.environ.get("NGINX") or shutil.which("nginx")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (NGINX= names it)")


def configuration(folder: Path, files: Files, backend: str, port: int) -> Path:
    """The page's, with this test's places."""
    (found,) = re.findall(r"```nginx\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for old, new in (
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("/etc/nginx/tls/cert.pem", str(files.certificate)),
        ("/etc/nginx/tls/key.pem", str(files.key)),
        ("http://127.0.0.1:8470", backend),
    ):
        assert old in found
        found = found.replace(old, new)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary} {found} }}\n"
    )
    return path


@needs_nginx
async def test_through_nginx(serve: Serve, tmp_path: Path) -> None:
    assert NGINX is not None
    served = await serve(tokens=TOKENS)
    served.fakes.feed.publish([event(1)])
    files = Files(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    conf = await asyncio.to_thread(configuration, tmp_path, files, served.server.url.rstrip("/"), port)
    process = await asyncio.create_subprocess_exec(
        NGINX, "-c", str(conf), "-p", str(tmp_path), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        trust = ssl.create_default_context(cafile=str(files.ca))
        base = f"https://127.0.0.1:{port}"
        headers = {"Authorization": f"Bearer {OPERATE}"}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session:
            await _until_up(session, base)
            async with session.get(f"{base}/api/v1/status") as response:
                assert response.status == 401
            async with session.get(f"{base}/api/v1/whoami", headers=headers) as response:
                assert (await response.json())["actor"] == "token:operator"
            async with session.post(f"{base}/api/v1/cell/off", headers=headers | {"Origin": base}) as response:
                assert response.status == 200
            async with session.post(f"{base}/api/v1/cell/off", headers=headers | {"Origin": "https://evil"}) as reply:
                assert reply.status == 403
            async with session.get(f"{base}/api/v1/events", headers=headers) as response:
                assert b"retry" in await asyncio.wait_for(response.content.readline(), 10)
    finally:
        process.terminate()
        await process.wait()


async def _until_up(session: aiohttp.ClientSession, base: str) -> None:
    for _ in range(200):
        try:
            async with session.get(f"{base}/api/v1/healthz") as response:
                assert response.status == 200
                return
        except aiohttp.ClientConnectorError:
            await asyncio.sleep(0.05)
    raise AssertionError("nginx did not listen")


async def test_a_proxy_without_tokens_lets_nobody_in(serve: Serve) -> None:
    served = await serve()
    for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "x-forwarded-proto"):
        problem = await served.json("GET", "/status", 401, headers={name: "127.0.0.1"})
        assert "proxy" in problem["detail"]
    assert served.fakes.unauthorised["proxied"] == 5
