"""Camera payload bytes to pixels. Packed formats (PFNC names ending in ``p``) are LSB-first bits, rows unpadded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from kernels.jit import JIT


@njit(**JIT)
def unpack_mono8(payload: np.ndarray, out: np.ndarray) -> None:
    """`payload` (N,) uint8 to `out` (N,) uint16."""
    for i in range(out.size):
        out[i] = payload[i]


@njit(**JIT)
def unpack_mono10p(payload: np.ndarray, out: np.ndarray) -> None:
    """`payload` (ceil(10 N / 8),) uint8 to `out` (N,) uint16: four pixels in five bytes, the low bits first."""
    groups = out.size // 4
    for i in range(groups):
        a, b, c = np.uint16(payload[5 * i]), np.uint16(payload[5 * i + 1]), np.uint16(payload[5 * i + 2])
        d, e = np.uint16(payload[5 * i + 3]), np.uint16(payload[5 * i + 4])
        out[4 * i] = a | (b & 0x03) << 8
        out[4 * i + 1] = b >> 2 | (c & 0x0F) << 6
        out[4 * i + 2] = c >> 4 | (d & 0x3F) << 4
        out[4 * i + 3] = d >> 6 | e << 2
    for i in range(4 * groups, out.size):
        byte, shift = i * 10 // 8, i * 10 % 8
        out[i] = (np.uint16(payload[byte]) >> shift | np.uint16(payload[byte + 1]) << (8 - shift)) & 0x3FF


@njit(**JIT)
def unpack_mono12p(payload: np.ndarray, out: np.ndarray) -> None:
    """`payload` (ceil(12 N / 8),) uint8 to `out` (N,) uint16: two pixels in three bytes, the low bits first."""
    pairs = out.size // 2
    for i in range(pairs):
        a, b, c = np.uint16(payload[3 * i]), np.uint16(payload[3 * i + 1]), np.uint16(payload[3 * i + 2])
        out[2 * i] = a | (b & 0x0F) << 8
        out[2 * i + 1] = b >> 4 | c << 4
    if out.size % 2:
        out[-1] = np.uint16(payload[3 * pairs]) | (np.uint16(payload[3 * pairs + 1]) & 0x0F) << 8


@njit(**JIT)
def unpack_mono12(payload: np.ndarray, out: np.ndarray) -> None:
    """`payload` (2 N,) uint8, little-endian words, to `out` (N,) uint16.

    Bits above the twelfth are dropped: whatever a faulty device sends, a pixel indexes a table of 4096 safely.
    """
    for i in range(out.size):
        out[i] = np.uint16(payload[2 * i]) | (np.uint16(payload[2 * i + 1]) & 0x0F) << 8


@njit(**JIT)
def unpack_mono16(payload: np.ndarray, out: np.ndarray) -> None:
    """`payload` (2 N,) uint8, little-endian words, to `out` (N,) uint16."""
    for i in range(out.size):
        out[i] = np.uint16(payload[2 * i]) | np.uint16(payload[2 * i + 1]) << 8


BITS_STORED = {"Mono8": 8, "Mono10p": 10, "Mono12": 16, "Mono12p": 12, "Mono16": 16}
"""Bits one pixel takes in the payload, by PFNC name."""

_KERNELS: dict[str, Callable[[np.ndarray, np.ndarray], None]] = {
    "Mono8": unpack_mono8,
    "Mono10p": unpack_mono10p,
    "Mono12": unpack_mono12,
    "Mono12p": unpack_mono12p,
    "Mono16": unpack_mono16,
}


def unpack(payload: np.ndarray, pixel_format: str, out: np.ndarray) -> None:
    """Fill `out`, (H, W) uint16 C-contiguous, from `payload`, 1-D uint8 of exactly one frame.

    Raises ValueError on an unknown format, on arrays of another kind, and when the sizes do not belong together.
    """
    kernel = _KERNELS.get(pixel_format)
    if kernel is None:
        raise ValueError(f"pixel format {pixel_format!s} cannot be unpacked (known: {', '.join(_KERNELS)})")
    if payload.dtype != np.uint8 or payload.ndim != 1:
        raise ValueError(f"payload must be 1-D uint8, not {payload.ndim}-D {payload.dtype}")
    if out.dtype != np.uint16 or not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous uint16, not {out.dtype} with strides {out.strides}")
    needed = (out.size * BITS_STORED[pixel_format] + 7) // 8
    if payload.size != needed:
        raise ValueError(
            f"payload has {payload.size} bytes, but {out.shape} pixels of {pixel_format!s} take {needed} bytes"
        )
    kernel(np.ascontiguousarray(payload), out.reshape(-1))
