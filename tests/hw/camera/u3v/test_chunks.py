import struct

import pytest

from hw.camera.u3v.chunks import without_image


def tail(order, image_bytes, *chunks, padding=0):
    """What follows an image of that many bytes: its footer, then each chunk with its own."""
    data = bytes(padding) + struct.pack(f"{order}II", 1, image_bytes + padding)
    return data + b"".join(body + struct.pack(f"{order}II", 16 + k, len(body)) for k, body in enumerate(chunks))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("chunks", [[], [b"12345678"], [b"12345678", b"", b"abcd"]])
def test_chunks_are_what_follows_the_images(order, padding, chunks):
    whole = tail(order, 1000, *chunks, padding=padding)
    assert without_image(whole, 1000) == whole[8 + padding :]


@pytest.mark.parametrize("data", [b"", b"1234", bytes(8), bytes(24), b"\xff" * 40, tail("<", 999, b"12345678")])
def test_anything_else_is_nothing(data):
    assert without_image(data, 1000) == b""
