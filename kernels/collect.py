"""Gathering the pixels that masks, rings and registration look at, straight from the camera's payload.

Pixels come in spans of `SPAN_PX`, as signed 16-bit values one after another, so that everything that follows reads
memory in order and a frame is never unpacked where nobody looks. Nothing is checked: the caller keeps indices inside.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.jit import JIT
from kernels.lanes import LARGEST, PACKED_READ_BYTES, SPAN_PX, copy_span, copy_span_12p


@njit(**JIT)
def collect_spans(
    frame: np.ndarray, start: np.ndarray, place: np.ndarray, shift: int, most: int, out: np.ndarray
) -> None:
    """``out[place[j] : + 8] = min(frame[start[j] : + 8] >> shift, most)``.

    `frame` is flat uint8 (taken as it is) or uint16; `start` (S,) uint32, at most 8 before the frame's end, best in
    rising order: memory then delivers ahead; `place` (S,) uint32; `out` int16. `most`, at most `LARGEST`, keeps what a
    faulty device sends from overflowing the sums.
    """
    bits, top = np.uint16(shift), np.uint16(most)
    for j in range(start.size):
        copy_span(out, np.uint64(place[j]), frame, np.uint64(start[j]), bits, top)  # type: ignore[call-arg]


@njit(**JIT)
def collect_spans_12p(payload: np.ndarray, start: np.ndarray, place: np.ndarray, out: np.ndarray) -> None:
    """`collect_spans` from Mono12p: `payload` is flat uint8 (PFNC: low bits first, no padding)."""
    last_byte = np.uint64(max(payload.size - PACKED_READ_BYTES, 0))
    for j in range(start.size):
        begin, to = np.uint64(start[j]), np.uint64(place[j])
        if (np.uint64(3) * begin) >> np.uint64(1) <= last_byte:
            copy_span_12p(out, to, payload, begin)  # type: ignore[call-arg]
        else:  # the vector would read beyond the payload's end
            for lane in range(SPAN_PX):
                out[to + np.uint64(lane)] = pixel_12p(payload, begin + np.uint64(lane))


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
def correct(values: np.ndarray, dark: np.ndarray, scale: np.ndarray, shift: int, bits: int) -> None:
    """Per-pixel calibration in place: ``values = ((values << shift) - dark) * scale / 2**bits``, rounded and clipped.

    `values`, `dark`, `scale` are (M,) int16; a negative `shift` is a right shift. `dark` is in units of the result.
    """
    left, right = np.int32(max(shift, 0)), np.int32(max(-shift, 0))
    half, most, right_bits = np.int32(1 << (bits - 1)), np.int32(LARGEST), np.int32(bits)
    for j in range(values.size):
        level = np.int32(np.int32(np.int32(values[j]) << left) >> right) - np.int32(dark[j])
        corrected = np.int32(np.int32(level * np.int32(scale[j])) + half) >> right_bits
        values[j] = min(max(corrected, -most), most)


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
