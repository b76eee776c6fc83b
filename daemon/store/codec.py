"""Chunk columns as bytes and back: little-endian, compressed by Blosc (zstd, byte shuffle), CRC-32 over what is stored.

Three codecs; each column of a chunk names its own:

`raw`      The array as it is, frame-major. Exact for every dtype, NaN payloads included.
`rounded`  float32 with the mantissa rounded to 8 bits: relative error at most 2**-9. NaN, infinities, zero and sign
           survive. For standard deviations.
`steps`    float32 as whole multiples of a power of two chosen for each particle, 2**e: absolute error at most
           2**(e - 1), plus float32's own rounding. e is the largest for which 2**e <= sigma / 16, sigma being the
           median of the particle's `contrast_sigma` in the chunk, so the rounding adds at most 0.04 % to the noise's
           variance. Centroids use e = -11 (pixels). Where sigma is unknown, e is 23 below the exponent of the
           particle's largest value, which is float32's own precision there; e is never below that exponent less 29, so
           that every count fits 32 bits, and within -126..104. NaN survives (its payload does not); a column
           with an infinity is `raw`.
           Bytes: int8 e of each particle, then one Blosc frame of uint32 (particles, frames): differences along
           time modulo 2**32, as zigzag numbers; the count -2**31 stands for NaN.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numcodecs import BitRound, Blosc

from daemon.errors import StoreError, StoreReason
from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS

CodecName = Literal["raw", "rounded", "steps"]
Per = Literal["frame", "particle"]
"""Whether a column has one value a frame, (N,), or one a frame and particle, (N, P)."""

DTYPES: dict[Per, dict[str, str]] = {"frame": CHUNK_FRAME_COLUMNS, "particle": CHUNK_PARTICLE_COLUMNS}

SIGMA_STEPS = 16  # steps to one standard deviation
CENTROID_EXPONENT = -11  # 0.0005 px: a sixth of the best centroid's noise
ROUNDED_BITS = 8
MAX_DECODED_BYTES = 256 << 20  # 4096 frames of 16384 particles; a damaged size must not take the memory
NAN_COUNT = np.int32(-(2**31))
MIN_EXPONENT, MAX_EXPONENT = (
    -126,
    104,
)  # within int8; float32 begins at 2**-126, its largest value is a multiple of 2**104

STEPPED_COLUMNS = ("contrast", "layer_surface", "layer_outer", "layer_inner", "layer_core")
CENTROID_COLUMNS = ("centroid_y_px", "centroid_x_px")

_BLOSC_SIZES = struct.Struct("<4xI")  # byte 4 of a Blosc frame: decoded bytes


@dataclass(frozen=True)
class Unpacked:
    """A column that is decompressed: values of a few of its particles are cheap from here on."""

    stored: np.ndarray
    """(N,) or (N, P) values; of `steps` (P, N) zigzag numbers."""
    exponents: np.ndarray | None = None
    """(P,) of `steps`."""

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return self.stored.nbytes + (0 if self.exponents is None else self.exponents.nbytes)

    def values(self, indices: np.ndarray | None = None) -> np.ndarray:
        """The (N,) or (N, P) array, native and writable; with `indices` (K,) only these of the particles, (N, K)."""
        if self.exponents is None:
            return self.stored.copy() if indices is None else self.stored[:, indices]
        zigzag, exponents = self.stored, self.exponents
        if indices is not None:
            zigzag, exponents = zigzag[indices], exponents[indices]
        counts = _undo_zigzag_differences(zigzag)
        values = np.ldexp(counts.astype(np.float64), exponents[:, None])
        values[counts == NAN_COUNT] = np.nan
        return np.ascontiguousarray(values.T, dtype=np.float32)


def encode_frame_column(name: str, values: np.ndarray) -> tuple[CodecName, bytes]:
    """(N,) values of a `CHUNK_FRAME_COLUMNS` column as codec name and bytes."""
    return "raw", _compress(values.astype("<" + CHUNK_FRAME_COLUMNS[name]))


def encode_particle_column(name: str, values: np.ndarray, contrast_sigma: np.ndarray) -> tuple[CodecName, bytes]:
    """(N, P) values of a `CHUNK_PARTICLE_COLUMNS` column; `contrast_sigma` (N, P) of the same frames sets the steps."""
    values = values.astype("<" + CHUNK_PARTICLE_COLUMNS[name])
    if name in STEPPED_COLUMNS and not np.isinf(values).any():
        return "steps", _encode_steps(values, _exponents(values, contrast_sigma))
    if name in CENTROID_COLUMNS and not np.isinf(values).any():
        wanted = np.full(values.shape[1], CENTROID_EXPONENT)
        return "steps", _encode_steps(values, np.maximum(wanted, _floor_log2(_largest(values)) - 29))
    if name == "contrast_sigma":
        return "rounded", _compress(_rounded(values))
    return "raw", _compress(values)


def unpack_column(per: Per, name: str, codec: str, blob: bytes, size: tuple[int, int]) -> Unpacked:
    """A column of a chunk of `size` (N, P). Raises `StoreError` (CORRUPT) when sizes disagree."""
    dtype = np.dtype("<" + DTYPES[per][name])
    if codec == "steps":
        return _unpack_steps(name, blob, *size)
    if codec not in ("raw", "rounded"):
        raise StoreError(StoreReason.CORRUPT, f"column '{name}' has an unknown codec '{codec}'")
    return Unpacked(_decompress(name, blob, dtype, size[:1] if per == "frame" else size))


def decode_column(per: Per, name: str, codec: str, blob: bytes, size: tuple[int, int]) -> np.ndarray:
    """The (N,) or (N, P) array of a column, native and writable. Raises `StoreError` as `unpack_column`."""
    return unpack_column(per, name, codec, blob, size).values()


def checksum(blob: bytes, *bound: Any) -> int:
    """CRC-32 of `blob` begun with the text of `bound`, so that bytes attached to another row are noticed too."""
    return zlib.crc32(blob, zlib.crc32("/".join(map(repr, bound)).encode()))


def matches(blob: Any, crc: Any, *bound: Any) -> bool:
    """Whether `blob` is bytes with that `checksum`; damage can make anything of a column."""
    return isinstance(blob, bytes) and checksum(blob, *bound) == crc


def pack_array(array: np.ndarray) -> bytes:
    """Any array (an image) losslessly, without its dtype and shape."""
    return _compress(array.astype(array.dtype.newbyteorder("<")))


def unpack_array(what: str, blob: bytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of `pack_array`. Raises `StoreError` (CORRUPT) naming `what`."""
    return _decompress(what, blob, np.dtype(dtype).newbyteorder("<"), shape)


def _compress(array: np.ndarray) -> bytes:
    array = np.ascontiguousarray(array)
    if not array.size:
        return b""
    codec = Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE)  # measured: level 5 saves 0.5 % at 1.6 times the time
    return bytes(codec.encode(array))


def _decompress(what: str, blob: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    expected = math.prod(shape) * dtype.itemsize
    if min(shape) < 0 or expected > MAX_DECODED_BYTES:
        raise StoreError(StoreReason.CORRUPT, f"'{what}' claims the impossible shape {shape}")
    array = np.empty(shape, dtype)
    if not expected:
        return array
    if len(blob) < 16 or _BLOSC_SIZES.unpack_from(blob)[0] != expected:
        raise StoreError(StoreReason.CORRUPT, f"'{what}' does not hold the {expected} bytes its row claims")
    try:
        Blosc().decode(blob, array)
    except (RuntimeError, ValueError) as error:
        raise StoreError(StoreReason.CORRUPT, f"'{what}' cannot be decompressed: {error}") from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def _rounded(values: np.ndarray) -> np.ndarray:
    plain = np.where(np.isnan(values), np.float32(np.nan), values)  # a NaN with all bits set would round to -0
    return BitRound(ROUNDED_BITS).encode(plain).view("<f4")


def _exponents(values: np.ndarray, contrast_sigma: np.ndarray) -> np.ndarray:
    sigma = _median_of_known(contrast_sigma)
    largest = _floor_log2(_largest(values))
    wanted = np.where(sigma > 0, _floor_log2(sigma / SIGMA_STEPS), largest - 23)
    return np.maximum(wanted, largest - 29)


def _median_of_known(values: np.ndarray) -> np.ndarray:
    """(P,) median of the finite values of each column; 0 where there is none."""
    known = np.where(np.isfinite(values), values, np.inf)
    known.sort(axis=0)
    counts = np.isfinite(known).sum(axis=0)
    middle = np.take_along_axis(known, np.maximum(counts - 1, 0)[None, :] // 2, axis=0)[0]
    return np.where(counts > 0, middle, 0.0)


def _largest(values: np.ndarray) -> np.ndarray:
    """(P,) largest finite magnitude of each column, 0 where there is none."""
    return np.where(np.isnan(values), 0, np.abs(values)).max(axis=0, initial=0)


def _floor_log2(values: np.ndarray) -> np.ndarray:
    """Whole part of the binary logarithm; that of the smallest step for 0."""
    return np.where(values > 0, np.frexp(values)[1] - 1, MIN_EXPONENT)


def _encode_steps(values: np.ndarray, exponents: np.ndarray) -> bytes:
    exponents = np.clip(exponents, MIN_EXPONENT, MAX_EXPONENT).astype(np.int8)
    counts = np.rint(np.ldexp(values.T.astype(np.float64), -exponents[:, None].astype(np.int32)))
    counts = np.where(np.isnan(counts), float(NAN_COUNT), counts).astype("<i4")
    return exponents.tobytes() + _compress(_zigzag_differences(counts))


def _unpack_steps(name: str, blob: bytes, frames: int, particles: int) -> Unpacked:
    if particles < 0 or len(blob) < particles:
        raise StoreError(StoreReason.CORRUPT, f"'{name}' is shorter than its steps")
    exponents = np.frombuffer(blob[:particles], np.int8).astype(np.int32)
    return Unpacked(_decompress(name, blob[particles:], np.dtype("<u4"), (particles, frames)), exponents)


def _zigzag_differences(counts: np.ndarray) -> np.ndarray:
    """(P, N) int32 to uint32: small steps along time, up or down, become small numbers with empty high bytes."""
    bits = counts.view(np.uint32)
    steps = bits.copy()
    steps[:, 1:] -= bits[:, :-1]
    signs = (steps.view(np.int32) >> 31).view(np.uint32)
    return (steps << np.uint32(1)) ^ signs


def _undo_zigzag_differences(zigzag: np.ndarray) -> np.ndarray:
    steps = (zigzag >> np.uint32(1)) ^ (np.uint32(0) - (zigzag & np.uint32(1)))
    return np.cumsum(steps, axis=1, dtype=np.uint32).view(np.int32)
