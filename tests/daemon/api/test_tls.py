"""https by certificate files: what is refused at the start, what is taken up later."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from daemon.api.server import ApiServer
from daemon.api.tls import Certificate
from daemon.ctl.client import ask
from daemon.ctl.options import Connection
from daemon.errors import ClientError, ClientReason, ConfigError, ConfigReason
from tests.daemon.api.conftest import Serve
from tests.daemon.api.fakes import fakes


class Files:
    """A certificate for this machine and its key, as files."""

    def __init__(self, folder: Path, authority: trustme.CA | None = None, **issued: Any) -> None:
        self.authority = authority or trustme.CA()
        self.certificate, self.key, self.ca = (folder / name for name in ("cert.pem", "key.pem", "ca.pem"))
        self.authority.cert_pem.write_to_path(self.ca)
        self.issue(**issued)

    def issue(self, **issued: Any) -> None:
        made = self.authority.issue_cert("localhost", "127.0.0.1", **issued)
        for path, parts in ((self.certificate, made.cert_chain_pems), (self.key, [made.private_key_pem])):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(b"".join(part.bytes() for part in parts))
            os.replace(fresh, path)

    @property
    def settings(self) -> dict[str, Path]:
        return {"tls_certificate": self.certificate, "tls_key": self.key}


OLD = {"not_before": datetime(2019, 1, 1, tzinfo=UTC), "not_after": datetime(2020, 1, 1, tzinfo=UTC)}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def test_https_and_nothing_else(serve: Serve, files: Files) -> None:
    served = await serve(**files.settings)
    assert served.server.url.startswith("https://127.0.0.1:")
    trust = ssl.create_default_context(cafile=str(files.ca))
    async with served.session.get(served.url("/status"), ssl=trust) as response:
        assert response.status == 200
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await served.session.get(served.url("/status"))
    with pytest.raises(aiohttp.ClientError):
        await served.session.get(served.url("/status").replace("https", "http"))
    old = ssl.create_default_context(cafile=str(files.ca))
    with pytest.warns(DeprecationWarning):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(aiohttp.ClientError):
        await served.session.get(served.url("/status"), ssl=old)


async def test_who_does_not_shake_hands_keeps_nobody_out(serve: Serve, files: Files) -> None:
    served = await serve(max_connections=10, **files.settings)
    host, port = served.server.url.removeprefix("https://").rstrip("/").split(":")
    table = served.server._table
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(30)]
    async with asyncio.timeout(20):
        while table.closed["handshake"] < 20:
            await asyncio.sleep(0.01)
    assert len(table._opening) == 10 and len(table) == 0 and not table.closed["full"]
    trust = ssl.create_default_context(cafile=str(files.ca))
    async with served.session.get(served.url("/status"), ssl=trust) as response:
        assert response.status == 200
    async with asyncio.timeout(20):
        while sum(reader.at_eof() for reader, _ in silent) < table.closed["handshake"]:
            await asyncio.sleep(0.01)
    for _, writer in silent:
        writer.close()


async def test_the_tool_trusts_whom_it_is_told_to(serve: Serve, files: Files) -> None:
    served = await serve(**files.settings)
    url = served.server.url
    found = await asyncio.to_thread(ask, Connection(url, ca_file=str(files.ca)), lambda client: client.get("/version"))
    assert found["api"] == "v1"
    with pytest.raises(ClientError) as refused:
        await asyncio.to_thread(ask, Connection(url), lambda client: client.get("/version"))
    assert refused.value.reason is ClientReason.UNTRUSTED
    with pytest.raises(ClientError) as refused:
        await asyncio.to_thread(ask, Connection(url, ca_file=str(files.key)), lambda client: client.get("/version"))
    assert refused.value.reason is ClientReason.BAD_FILE


async def test_a_new_certificate_is_taken_up_and_a_bad_one_is_not(serve: Serve, files: Files, tmp_path: Path) -> None:
    served = await serve(**files.settings)
    certificate = served.server._certificate
    assert certificate is not None

    def serial() -> Any:
        trust = ssl.create_default_context(cafile=str(files.ca))
        host, port = served.server.url.removeprefix("https://").rstrip("/").split(":")

        with (
            socket.create_connection((host, int(port))) as plain,
            trust.wrap_socket(plain, server_hostname=host) as tls,
        ):
            return (tls.getpeercert() or {})["serialNumber"]

    first = await asyncio.to_thread(serial)
    await asyncio.to_thread(files.issue)
    await asyncio.to_thread(certificate.refresh)
    second = await asyncio.to_thread(serial)
    assert second != first
    await asyncio.to_thread(files.certificate.write_text, "nonsense")
    await asyncio.to_thread(certificate.refresh)
    assert await asyncio.to_thread(serial) == second
    assert served.server.status().reason == ConfigReason.TLS.code
    await asyncio.to_thread(files.issue)
    await asyncio.to_thread(certificate.refresh)
    assert served.server.status().state == "ready"


def _mismatched(files: Files) -> None:
    kept = files.key.read_bytes()
    files.issue()
    files.key.write_bytes(kept)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (_mismatched, "not the certificate's"),
        (lambda files: files.certificate.write_text(""), "PEM"),
        (lambda files: files.certificate.write_bytes(b"\0" * 100), "PEM"),
        (lambda files: files.key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), ""),
        (lambda files: files.key.unlink(), "key.pem"),
        (lambda files: files.certificate.unlink(), "cert.pem"),
    ],
)
async def test_files_that_cannot_be_used_stop_the_start(files: Files, tmp_path: Path, spoil: Any, word: str) -> None:
    await asyncio.to_thread(spoil, files)
    server = ApiServer(fakes(tmp_path, **files.settings).parts())
    with pytest.raises(ConfigError) as refused:
        await server.start()
    assert refused.value.reason is ConfigReason.TLS
    assert word in refused.value.detail
    assert server.status().state == "stopped"


def test_a_key_with_a_passphrase_does_not_ask_at_the_terminal(files: Files) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(ConfigError) as refused:
        Certificate(files.certificate, files.key).context()
    assert refused.value.reason is ConfigReason.TLS


async def test_an_expired_certificate_is_a_fault_but_no_reason_not_to_measure(serve: Serve, tmp_path: Path) -> None:
    files = Files(tmp_path, **OLD)
    served = await serve(**files.settings)
    line = served.server.status()
    assert (line.state, line.reason) == ("degraded", ConfigReason.TLS_EXPIRED.code)
    await asyncio.to_thread(files.issue)
    certificate = served.server._certificate
    assert certificate is not None
    await asyncio.to_thread(certificate.refresh)
    assert served.server.status().state == "ready"


def test_a_certificate_knows_its_end(files: Files) -> None:
    certificate = Certificate(files.certificate, files.key)
    certificate.context()
    assert certificate.problem is None
    assert not certificate.expires_soon()
