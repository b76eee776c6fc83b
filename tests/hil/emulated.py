"""What tests of the emulated camera share."""

from __future__ import annotations

import numpy as np

HEIGHT, WIDTH = 48, 64
FORMATS = ["Mono8", "Mono10p", "Mono12", "Mono12p", "Mono16"]


def pattern(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """The picture that the camera's documentation promises, 12 bits."""
    y, x = np.mgrid[:height, :width]
    return ((5 * (number % 16) + 3 * x + 7 * y) % 4096).astype(np.int64)


def unpacked(payload: bytes, pixel_format: str) -> np.ndarray:
    """Values of a payload, bit by bit."""
    if pixel_format == "Mono8":
        return np.frombuffer(payload, np.uint8).astype(np.int64)
    if not pixel_format.endswith("p"):
        return np.frombuffer(payload, "<u2").astype(np.int64)
    bits = np.unpackbits(np.frombuffer(payload, np.uint8), bitorder="little")
    depth = int(pixel_format[4:6])
    return bits[: bits.size // depth * depth].reshape(-1, depth) @ (1 << np.arange(depth))
