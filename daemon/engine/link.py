"""The wire between daemon and engine: messages of a kind, JSON fields and raw arrays, over a private socket pair.

Layout: ``<4s I Q`` (magic, header bytes, payload bytes), a JSON header ``{kind, fields, arrays: [[name, dtype,
shape]]}``,
then the arrays' bytes in order. Both ends are one version of this software; anything else is a protocol error.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daemon.errors import EngineError, EngineReason

MAGIC = b"PMD1"
PREFIX = struct.Struct("<4sIQ")
MAX_HEADER_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 1 << 30


@dataclass
class Message:
    """One message; `arrays` are read-only views of the received buffer."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def encode(self) -> list[bytes | memoryview]:
        """The message as buffers to be written in order."""
        arrays = {name: np.asarray(array, order="C") for name, array in self.arrays.items()}
        table = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
        header = json.dumps({"kind": self.kind, "fields": self.fields, "arrays": table}).encode()
        payload = sum(array.nbytes for array in arrays.values())
        prefix = PREFIX.pack(MAGIC, len(header), payload)
        views = [array.reshape(-1).view(np.uint8).data for array in arrays.values() if array.nbytes]
        return [prefix + header, *views]


def _sizes(prefix: bytes) -> tuple[int, int]:
    magic, header_bytes, payload_bytes = PREFIX.unpack(prefix)
    if magic != MAGIC or header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise EngineError(EngineReason.PROTOCOL, f"a message of {header_bytes} + {payload_bytes} bytes makes no sense")
    return header_bytes, payload_bytes


def _decode(header: bytes, payload: bytes | bytearray) -> Message:
    try:
        document = json.loads(header)
        arrays, start = {}, 0
        for name, dtype, shape in document["arrays"]:
            count = math.prod(shape)
            arrays[name] = np.frombuffer(payload, np.dtype(dtype), count, start).reshape(shape)
            start += arrays[name].nbytes
        return Message(document["kind"], document["fields"], arrays)
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(EngineReason.PROTOCOL, f"a message could not be decoded: {error}") from error


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None at the end of the stream. Raises `EngineError` (PROTOCOL)."""
    try:
        header_bytes, payload_bytes = _sizes(await reader.readexactly(PREFIX.size))
        return _decode(await reader.readexactly(header_bytes), await reader.readexactly(payload_bytes))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def receive(sock: socket.socket) -> Message | None:
    """Blocking twin of `read_message`."""
    prefix = _exactly(sock, PREFIX.size)
    if prefix is None:
        return None
    header_bytes, payload_bytes = _sizes(bytes(prefix))
    header, payload = _exactly(sock, header_bytes), _exactly(sock, payload_bytes)
    return None if header is None or payload is None else _decode(bytes(header), payload)


def send(sock: socket.socket, message: Message) -> None:
    """Write a message whole; raises `OSError` when the other end is gone."""
    for buffer in message.encode():
        sock.sendall(buffer)


def _exactly(sock: socket.socket, count: int) -> bytearray | None:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        try:
            received = sock.recv_into(view)
        except ConnectionError:  # a peer that was killed had something unread
            return None
        if received == 0:
            return None
        view = view[received:]
    return data
