"""What a camera sends with each frame behind its image: chunks of data, each with its id and length after it.

They are read from the end (AIA USB3 Vision 1.0, section 5.5); hosts disagree on the byte order, so both are tried.
"""

from __future__ import annotations

import struct

FOOTER_BYTES = 8


def without_image(tail: bytes, image_bytes: int) -> bytes:
    """The chunks behind the image's own, as they came; empty when `tail` is not what follows an image.

    `tail` begins where the image's `image_bytes` end: with padding, then the footer of the image's chunk.
    """
    for order in "<>":
        end = len(tail)
        while end >= FOOTER_BYTES:
            _, size = struct.unpack_from(f"{order}II", tail, end - FOOTER_BYTES)
            begin = end - FOOTER_BYTES - size
            if begin == -image_bytes:
                return tail[end:]
            if begin < 0:
                break
            end = begin
    return b""
