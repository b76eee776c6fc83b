"""Pixels as slices of one long string of bits, and back: slow, obvious twins of `kernels.unpack`."""

from __future__ import annotations

import numpy as np

SIGNIFICANT_BITS = {"Mono8": 8, "Mono10p": 10, "Mono12": 12, "Mono12p": 12, "Mono16": 16}
STORED_BITS = {"Mono8": 8, "Mono10p": 10, "Mono12": 16, "Mono12p": 12, "Mono16": 16}


def naive_unpack(payload: np.ndarray, pixel_format: str, pixels: int) -> list[int]:
    stream = int.from_bytes(payload.tobytes(), "little")
    stored, significant = STORED_BITS[pixel_format], SIGNIFICANT_BITS[pixel_format]
    return [(stream >> (stored * i)) & ((1 << significant) - 1) for i in range(pixels)]


def naive_pack(pixels: np.ndarray, pixel_format: str) -> np.ndarray:
    bits = STORED_BITS[pixel_format]
    stream = sum(int(value) << (bits * i) for i, value in enumerate(pixels.ravel()))
    size = (pixels.size * bits + 7) // 8
    return np.frombuffer(stream.to_bytes(size, "little"), np.uint8).copy()
