import asyncio
import socket
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from daemon.engine.link import MAGIC, PREFIX, Message, read_message, receive, send
from daemon.errors import EngineError


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    left.settimeout(5)
    right.settimeout(5)
    yield left, right
    left.close()
    right.close()


def _roundtrip(pair, message):
    sender = threading.Thread(target=send, args=(pair[0], message))
    sender.start()
    received = receive(pair[1])
    sender.join()
    return received


@given(
    st.dictionaries(st.text(max_size=5), hnp.arrays(st.sampled_from(["f4", "i8", "u2", "?"]),
    hnp.array_shapes(max_dims=3)), max_size=4),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9) | st.none(), max_size=4),
)  # fmt: skip
def test_what_is_sent_arrives(arrays, fields):
    left, right = socket.socketpair()
    with left, right:
        received = _roundtrip((left, right), Message("kind", fields, arrays))
    assert received.kind == "kind"
    assert received.fields == fields
    assert received.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(received.arrays[name], array)


def test_a_peer_that_ended_with_something_unread_is_the_end_of_the_stream_too(pair):
    pair[1].sendall(b"unread: this end is told ECONNRESET")
    pair[0].close()
    assert receive(pair[1]) is None


def test_large_and_empty_arrays(pair):
    message = Message("x", {}, {"large": np.arange(3_000_000, dtype=np.float32), "none": np.empty((0, 4))})
    received = _roundtrip(pair, message)
    assert received.arrays["large"][-1] == 2_999_999
    assert received.arrays["none"].shape == (0, 4)


def test_the_end_of_the_stream_is_none(pair):
    pair[0].close()
    assert receive(pair[1]) is None


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        PREFIX.pack(MAGIC, 1 << 31, 0),
        PREFIX.pack(MAGIC, 2, 1 << 40),
        PREFIX.pack(MAGIC, 2, 0) + b"{}",
        PREFIX.pack(MAGIC, 4, 0) + b"nope",
        PREFIX.pack(MAGIC, 63, 0) + b'{"kind": "x", "fields": {}, "arrays": [["a", "f4", [1000000]]]}',
    ],
)
def test_nonsense_is_a_protocol_error(pair, noise):
    pair[0].sendall(noise + b" " * 64)
    with pytest.raises(EngineError):
        receive(pair[1])


async def test_the_asynchronous_reader_reads_the_same():
    left, right = socket.socketpair()
    left.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=left)
    with right:
        await asyncio.to_thread(send, right, Message("hello", {"a": 1}, {"v": np.ones(3)}))
        message = await read_message(reader)
    assert (message.kind, message.fields, message.arrays["v"].sum()) == ("hello", {"a": 1}, 3.0)
    assert await read_message(reader) is None
    writer.close()
    await writer.wait_closed()
