"""Starting a Python process of ours that talks over a private socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

from daemon.engine.link import Message, read_message
from daemon.service.priority import few_threads

SOCKET_BYTES = 1 << 20


async def spawn(module: str) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader, asyncio.StreamWriter]:
    """Start ``python -m module FD`` with the other end of the returned streams as descriptor FD."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
    ours.setblocking(False)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, str(theirs.fileno()),
            pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL, env=few_threads(),
        )  # fmt: skip
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    try:
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 22)
    except BaseException:  # cancelled: nobody else knows of the process
        ours.close()
        await _kill(process)
        raise
    return process, reader, writer


async def end(process: asyncio.subprocess.Process, writer: asyncio.StreamWriter, grace_s: float) -> None:
    """Close the link, wait `grace_s` for the process to end by itself, then kill it; at once when cancelled."""
    writer.close()
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), grace_s)
    finally:
        if process.returncode is None:
            await _kill(process)
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def ask(module: str, order: Message, timeout_s: float) -> Message:
    """One order to a process of its own and its answer.

    Raises `ChildProcessError`, which says how, when it died first, and `TimeoutError` when it took too long.
    """
    process, reader, writer = await spawn(module)
    answer = None
    try:
        async with asyncio.timeout(timeout_s):
            for buffer in order.encode():
                writer.write(buffer)
            with contextlib.suppress(ConnectionError):  # its death shows as the missing answer
                await writer.drain()
            answer = await read_message(reader)
    finally:
        await end(process, writer, grace_s=1.0)
    if answer is None:
        raise ChildProcessError(_end_of(process.returncode))
    return answer


def _end_of(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return f"killed by signal {-returncode}"
    return f"exit status {returncode}"
