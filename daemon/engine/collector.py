"""From a frame as the camera sent it to the values that a run looks at; nothing else is unpacked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daemon.engine.operator import Operator
from daemon.engine.pages import on_large_pages
from hw.camera.contract import PixelFormat
from kernels.collect import (
    collect_pixels,
    collect_pixels_12p,
    collect_spans,
    collect_spans_12p,
    repair,
)
from kernels.functionals import saturated
from kernels.lanes import LARGEST, SPAN_PX
from kernels.photometry import AXIAL_BINS, SUMS
from kernels.unpack import unpack

RAW_BITS = 15
SCALE_BITS = 14  # of a pixel's own gain up to 2; fewer where the darkest corner needs more
SATURATION = 0.98  # of full scale: above it the sensor is no longer linear
BLOCK_PX = {True: 8_192, False: 65_536}  # products of 15 (12) bits and 7, of which a sixteenth adds up within 31 bits
LEAST_FLAT = 0.05
AROUND = ((-1, 0), (1, 0), (0, -1), (0, 1))


class Collector:
    """Reads a run's spans of frames of one format under a whole-pixel shift.

    `unit_e` electrons a count of what `dark_values` leave of the values. A `flat_map` (H, W), relative gain, is taken
    out of each pixel as it is read; a dark level, scalar or `dark_map` (H, W) DN, is a constant of every sum and costs
    frames nothing.
    """

    def __init__(
        self,
        operator: Operator,
        pixel_format: PixelFormat,
        bit_depth: int,
        dark_map: np.ndarray | None = None,
        flat_map: np.ndarray | None = None,
    ) -> None:
        self._shape = int(operator.shape[0]), int(operator.shape[1])
        self._format = pixel_format
        gain, dark = float(operator.noise[0]), float(operator.noise[2])
        self._right = max(bit_depth - RAW_BITS, 0)  # what a pixel loses to fit a value
        self._most = min(2**bit_depth - 1, LARGEST)
        maps = PixelMaps.of(self._shape, dark, dark_map, flat_map, bit_depth)
        raised = -self._right if maps is None else maps.raised
        self.unit_e = gain / 2.0**raised
        self.dark: float | None = dark * 2.0**raised if maps is None else None
        """Counts of the dark level; None when it is not the same everywhere."""
        self.block_px = BLOCK_PX[bit_depth > 12 or (maps is not None and maps.flat is not None)]
        self._limit = int(SATURATION * (2**bit_depth - 1)) >> self._right
        self._operator = operator
        self.saturated = np.zeros(operator.particles, bool)
        spans = np.concatenate([operator.mask_span, operator.ring_span, operator.plane_span])
        self._ends = np.cumsum(
            [SPAN_PX * len(s) for s in (operator.mask_span, operator.ring_span, operator.plane_span)]
        )
        self.values = on_large_pages(int(self._ends[-1]), np.int16)
        self.masks, self.rings, self.plane = self.parts(self.values)
        self._frame = np.empty(0, np.uint16)
        self._places = Places(spans, self._shape, operator.defects, maps)

    def parts(self, values: np.ndarray) -> list[np.ndarray]:
        """What of `values` belongs to masks, to rings and to the plane."""
        return np.split(values, self._ends[:2])

    def open(self, frame: np.ndarray) -> np.ndarray:
        """The frame as the other methods take it: flat, and unpacked where no kernel reads its format.

        `frame` is (H, W) uint8 or uint16 pixels, or the flat uint8 payload of `pixel_format`. Raises `ValueError` for
        one of another size.
        """
        flat, pixels = frame.reshape(-1), self._shape[0] * self._shape[1]
        if flat.dtype != np.uint8 or flat.size == pixels:
            return flat
        if flat.size == 2 * pixels:
            return flat.view(np.uint16)
        if self._format != PixelFormat.MONO12P:
            return self._unpacked(flat)
        if flat.size != (needed := self._format.payload_bytes(*self._shape)):
            raise ValueError(f"a frame has {flat.size} bytes, {self._shape} pixels of Mono12p take {needed}")
        return flat

    def _unpacked(self, payload: np.ndarray) -> np.ndarray:
        if self._frame.shape != self._shape:
            self._frame = np.empty(self._shape, np.uint16)
        unpack(payload, self._format.value, self._frame)
        return self._frame.reshape(-1)

    def _is_packed(self, frame: np.ndarray) -> bool:
        return frame.dtype == np.uint8 and frame.size != self._shape[0] * self._shape[1]

    def read(self, frame: np.ndarray, offset: int) -> None:
        """Fill `values` (and so `masks`, `rings`, `plane`) from an opened frame, shifted by `offset` pixels, and tell
        which particles are `saturated`, (P,) bool.
        """
        places = self._places.at(offset)
        left, scale = places.left, places.scale
        if self._is_packed(frame):
            largest = collect_spans_12p(frame, places.start, places.place, left, scale, self.values)
        else:
            largest = collect_spans(
                frame, places.start, places.place, self._right, self._most, left, scale, self.values
            )
        if places.bad.size:
            donors = self.pixels(frame, places.donors)
            largest = max(largest, int(donors.max()))
            repair(self.values, places.bad, places.calibrate(donors).reshape(-1, len(AROUND)))
        self.saturated[:] = False
        if largest >= self._limit:  # seldom: then it is worth asking whether and whose
            self._find_saturated(places)

    def _find_saturated(self, places: Places) -> None:
        operator, limits = self._operator, places.limits(self._limit, self.masks.size)
        over, least = (self.masks, self._limit) if limits is None else (self.masks - limits, 0)
        if over.max(initial=-LARGEST) >= least:
            saturated(
                over, operator.weights, operator.weight_first, operator.weight_pointer, operator.mask_pointer,
                SUMS, AXIAL_BINS, least, self.saturated,
            )  # fmt: skip

    def dark_values(self, offset: int) -> tuple[np.ndarray, float]:
        """What the dark level of each pixel adds to `values` under a shift by `offset` pixels: whole numbers, int16 in
        the same order, and how often a count is divided in them.
        """
        return self._places.at(offset).dark_values()

    def pixels(self, frame: np.ndarray, index: np.ndarray) -> np.ndarray:
        """(N,) int16 raw values of an opened frame at `index`, (N,) uint32."""
        values = np.empty(index.size, np.int16)
        if self._is_packed(frame):
            collect_pixels_12p(frame, index, values)
        else:
            collect_pixels(frame, index, self._right, self._most, values)
        return values

    def raw_dn(self, values: np.ndarray) -> np.ndarray:
        """uint16 DN of what `pixels` gave; of more than 15 bits the lowest are zero."""
        return values.astype(np.uint16) << np.uint16(self._right)

    def whole(self, frame: np.ndarray) -> np.ndarray:
        """(H, W) float32 DN of an opened frame: for the rare search that looks everywhere."""
        image = self._unpacked(frame) if self._is_packed(frame) else frame
        return image.reshape(self._shape).astype(np.float32)


@dataclass(frozen=True)
class PixelMaps:
    """Flat dark (DN) and relative-gain maps, `flat` None where all pixels are alike; values are raised by 2**`raised`
    over DN.
    """

    dark: np.ndarray
    flat: np.ndarray | None
    raised: int
    left: int
    """Bits that raw values are raised by before they are scaled."""
    scale_bits: int
    """Fractional bits of a pixel's scale."""

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        dark_dn: float,
        dark_map: np.ndarray | None,
        flat_map: np.ndarray | None,
        bit_depth: int,
    ) -> PixelMaps | None:
        """The maps when there is any, with the scalar dark level where that one is missing."""
        if dark_map is None and flat_map is None:
            return None
        dark = np.full(shape, dark_dn, np.float32) if dark_map is None else np.asarray(dark_map, np.float32)
        if flat_map is None or (np.asarray(flat_map) == 1.0).all():
            return cls(dark.reshape(-1), None, -max(bit_depth - RAW_BITS, 0), 0, 0)
        flat = np.maximum(np.asarray(flat_map, np.float32).reshape(-1), LEAST_FLAT)
        bits = SCALE_BITS - max(0, int(np.ceil(-np.log2(2.0 * flat.min()))))
        return cls(dark.reshape(-1), flat, bits - bit_depth, max(RAW_BITS - bit_depth, 0), bits)

    def scale_of(self, pixels: np.ndarray) -> np.ndarray | None:
        """(M,) int16 factors of `pixels`, in 2**-`scale_bits`."""
        if self.flat is None:
            return None
        return np.clip(np.rint(2.0**self.scale_bits / self.flat[pixels]), 1, LARGEST).astype(np.int16)

    def dark_of(self, pixels: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
        """(M,) float32: counts of the dark level among the values of `pixels`, whose scale is `scale`."""
        level: np.ndarray = self.dark[pixels] * np.float32(2.0**self.raised)
        return level if scale is None else level * scale * np.float32(2.0**-self.scale_bits)


class Places:
    """Where spans lie under the present shift, which of their pixels are defects, and their calibration; made anew only
    when the shift changes.

    `start` (S,) uint32 in the order of the frame, so that memory is read in order; `place` (S,) uint32 where each goes
    among the values; `scale` (8 S,) int16 of the pixels in the order of `start`, None without a flat, and `left` the
    bits that go with it; `bad` positions among the values, `donors` their neighbours in the frame.
    """

    def __init__(
        self, reference: np.ndarray, shape: tuple[int, int], defects: np.ndarray, maps: PixelMaps | None
    ) -> None:
        self._reference, self._shape, self._maps = reference.astype(np.int64), shape, maps
        self._order = np.argsort(reference, kind="stable")
        self.start, self.place = on_large_pages(2 * len(reference), np.uint32).reshape(2, -1)
        self.place[:] = SPAN_PX * self._order
        self._defects = np.sort(defects.astype(np.int64))
        self._offset: int | None = None
        self.bad = np.empty(0, np.int64)
        self.donors = np.empty(0, np.uint32)
        self.left = 0 if maps is None else maps.left
        self.scale: np.ndarray | None = None
        if maps is not None and maps.flat is not None:
            self.scale = on_large_pages(SPAN_PX * len(reference), np.int16)
        self._donor_scale: np.ndarray | None = None
        self._limits: np.ndarray | None = None

    def at(self, offset: int) -> Places:
        """These places shifted by `offset` linear pixels; what would leave the frame reads inside it instead."""
        if offset != self._offset:
            self._offset = offset
            start = self._starts()
            self.start[:] = start[self._order]
            self._find_defects(start)
            if self._maps is not None:
                self._limits = None
                if self.scale is not None:
                    self.scale[:] = self._maps.scale_of(_pixels_of(self.start))
                self._donor_scale = self._maps.scale_of(self.donors)
        return self

    def calibrate(self, donors: np.ndarray) -> np.ndarray:
        """Raw values of the `donors` as `collect_spans` would have scaled them."""
        if self._donor_scale is None:
            return donors
        return _rounded((donors.astype(np.int32) << self.left) * self._donor_scale)

    def limits(self, limit: int, count: int) -> np.ndarray | None:
        """What the raw value `limit` is among the first `count` values, (count,) int16; None without a flat."""
        if self.scale is not None and self._limits is None:
            self._limits = _rounded(np.int32(limit << self.left) * self._placed(self.scale)[:count].astype(np.int32))
        return self._limits

    def dark_values(self) -> tuple[np.ndarray, float]:
        """See `Collector.dark_values`; of a defect those of its neighbours, as its value is."""
        maps = self._maps
        if maps is None:
            return np.zeros(SPAN_PX * len(self.place), np.int16), 1.0
        dark = self._placed(maps.dark_of(_pixels_of(self.start), self.scale))
        if self.bad.size:
            dark[self.bad] = maps.dark_of(self.donors, self._donor_scale).reshape(-1, len(AROUND)).mean(axis=1)
        parts = 2.0 ** np.floor(np.log2(LARGEST / max(np.abs(dark).max(initial=0.0), 1e-3)))
        return np.rint(parts * dark).astype(np.int16), float(parts)

    def _placed(self, pixels: np.ndarray) -> np.ndarray:
        """(8 S,) what is in the order of the frame in that of the values."""
        values = np.empty((len(self.place), SPAN_PX), pixels.dtype)
        values[self._order] = pixels.reshape(-1, SPAN_PX)
        return values.reshape(-1)

    def _starts(self) -> np.ndarray:
        return np.clip(self._reference + (self._offset or 0), 0, self._shape[0] * self._shape[1] - SPAN_PX)

    def _find_defects(self, start: np.ndarray) -> None:
        if not self._defects.size:
            return
        pixels = _pixels_of(start)
        near = np.minimum(np.searchsorted(self._defects, pixels), self._defects.size - 1)
        self.bad = np.flatnonzero(self._defects[near] == pixels)
        steps = np.array([dy * self._shape[1] + dx for dy, dx in AROUND])
        around = pixels[self.bad][:, None] + steps
        self.donors = np.clip(around, 0, self._shape[0] * self._shape[1] - 1).astype(np.uint32).reshape(-1)


def _rounded(product: np.ndarray) -> np.ndarray:
    """(M,) int16: what `collect_spans` makes of the product of a value and a scale."""
    rounded: np.ndarray = (product + (1 << (RAW_BITS - 1))) >> RAW_BITS
    return rounded.astype(np.int16)


def _pixels_of(start: np.ndarray) -> np.ndarray:
    """(8 S,) pixels of spans."""
    return (start[:, None] + np.arange(SPAN_PX)).reshape(-1)
