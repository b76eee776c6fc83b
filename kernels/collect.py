"""Gathering the pixels that masks, rings and registration look at, straight from the camera's payload.

Pixels come in spans of `SPAN_PX`, as signed 16-bit values one after another, so that everything that follows reads
memory in order and a frame is never unpacked where nobody looks. Nothing is checked: the caller keeps indices inside.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.jit import JIT
from kernels.lanes import copy_spans, copy_spans_12p


@njit(**JIT)
def collect_spans(
    frame: np.ndarray,
    start: np.ndarray,
    place: np.ndarray,
    right: int,
    most: int,
    left: int,
    scale: np.ndarray | None,
    out: np.ndarray,
) -> int:
    """``out[place[j] : + 8] = min(frame[start[j] : + 8] >> right, most)``; returns the largest value.

    `frame` is flat uint8 (taken as it is) or uint16; `start` (S,) uint32, at most 8 before the frame's end, best in
    rising order: memory then delivers ahead; `place` (S,) uint32; `out` int16. `most`, at most `LARGEST`, keeps what a
    faulty device sends from overflowing the sums.

    With `scale` (8 S,) int16, pixel by pixel in the order of `start`, or None, values are calibrated on the way:
    ``((value << left) * scale + 2**14) >> 15``. The caller keeps ``most << left`` within `LARGEST`: no result is then
    beyond it. The largest value told is that before.
    """
    return int(
        copy_spans(  # type: ignore[call-arg]
            out, place, frame, start, np.uint16(left), scale, np.uint16(right), np.uint16(most)
        )
    )


@njit(**JIT)
def collect_spans_12p(
    payload: np.ndarray, start: np.ndarray, place: np.ndarray, left: int, scale: np.ndarray | None, out: np.ndarray
) -> int:
    """`collect_spans` from Mono12p: `payload` is flat uint8 (PFNC: low bits first, no padding)."""
    return int(copy_spans_12p(out, place, payload, start, np.uint16(left), scale))  # type: ignore[call-arg]


@njit(**JIT)
def pixel_12p(payload: np.ndarray, index: np.uint64) -> np.int32:
    """Pixel `index` (uint64) of a Mono12p payload."""
    byte = (np.uint64(3) * index) >> np.uint64(1)
    word = np.uint32(payload[byte]) | np.uint32(np.uint32(payload[byte + np.uint64(1)]) << np.uint32(8))
    return np.int32((word >> (np.uint32(4) * np.uint32(index & np.uint64(1)))) & np.uint32(0xFFF))


@njit(**JIT)
def collect_pixels(frame: np.ndarray, index: np.ndarray, shift: int, most: int, out: np.ndarray) -> None:
    """``out[j] = min(frame[index[j]] >> shift, most)``: single pixels; `index` (M,) uint32, `out` (M,) int16."""
    bits, top = np.uint16(shift), np.uint16(most)
    for j in range(index.size):
        out[j] = min(np.uint16(frame[np.uint64(index[j])]) >> bits, top)


@njit(**JIT)
def collect_pixels_12p(payload: np.ndarray, index: np.ndarray, out: np.ndarray) -> None:
    """`collect_pixels` from Mono12p."""
    for j in range(index.size):
        out[j] = pixel_12p(payload, np.uint64(index[j]))


@njit(**JIT)
def repair(values: np.ndarray, places: np.ndarray, donors: np.ndarray) -> None:
    """Give defective pixels the mean of their neighbours: ``values[places[j]] = mean(donors[j])``; in place.

    `places` is (D,) int64, `donors` (D, 4) int16.
    """
    for j in range(places.size):
        total = 0
        for k in range(donors.shape[1]):
            total += donors[j, k]
        values[places[j]] = (total + donors.shape[1] // 2) // donors.shape[1]
