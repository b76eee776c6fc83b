"""From a frame as the camera sent it to the calibrated values that a run looks at; nothing else is unpacked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daemon.engine.operator import Operator
from hw.camera.contract import PixelFormat
from kernels.collect import (
    collect_pixels,
    collect_pixels_12p,
    collect_spans,
    collect_spans_12p,
    correct,
    repair,
)
from kernels.functionals import saturated
from kernels.lanes import LARGEST, SPAN_PX
from kernels.photometry import AXIAL_BINS, SUMS
from kernels.unpack import unpack

VALUE_BITS = 14  # of calibrated values: a pixel's own gain up to 2 still fits 15
RAW_BITS = 15
SCALE_BITS = 14
SATURATION = 0.98  # of full scale: above it the sensor is no longer linear
BLOCK_PX = {True: 8_192, False: 65_536}  # products of 15 (12) bits and 7, of which a sixteenth adds up within 31 bits
AROUND = ((-1, 0), (1, 0), (0, -1), (0, 1))


class Collector:
    """Reads a run's spans of frames of one format under a whole-pixel shift.

    `unit_e` electrons a count and `dark` counts make electrons of values. With maps, `dark_map` (H, W) DN and
    `flat_map` (H, W) relative gain, values are calibrated pixel by pixel.
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
        maps = _fill_maps(self._shape, dark, dark_map, flat_map)
        self._right = max(bit_depth - RAW_BITS, 0)  # what a pixel loses to fit a value
        self._most = min(2**bit_depth - 1, LARGEST)
        raised = VALUE_BITS - bit_depth if maps is not None else -self._right
        self.unit_e = gain / 2.0**raised
        self.dark = dark * 2.0**raised if maps is None else 0.0
        self.block_px = BLOCK_PX[maps is not None or bit_depth > 12]
        self._limit = int(SATURATION * (2**bit_depth - 1)) >> self._right
        self._operator = operator
        self.saturated = np.zeros(operator.particles, bool)
        spans = np.concatenate([operator.mask_span, operator.ring_span, operator.plane_span])
        ends = np.cumsum([SPAN_PX * len(s) for s in (operator.mask_span, operator.ring_span, operator.plane_span)])
        self.values = np.zeros(ends[-1], np.int16)
        self.masks, self.rings, self.plane = np.split(self.values, ends[:2])
        self._frame = np.empty(0, np.uint16)
        maps_at = None if maps is None else PixelMaps(*maps, raised, raised + self._right)
        self._places = Places(spans, self._shape, operator.defects, maps_at)

    def open(self, frame: np.ndarray) -> np.ndarray:
        """The frame as the other methods take it: flat, and unpacked where no kernel reads its format.

        `frame` is (H, W) uint8 or uint16 pixels, or the flat uint8 payload of `pixel_format`.
        """
        flat, pixels = frame.reshape(-1), self._shape[0] * self._shape[1]
        if flat.dtype != np.uint8 or flat.size == pixels:
            return flat
        if flat.size == 2 * pixels:
            return flat.view(np.uint16)
        return flat if self._format == PixelFormat.MONO12P else self._unpacked(flat)

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
        if self._is_packed(frame):
            collect_spans_12p(frame, places.start, places.place, self.values)
        else:
            collect_spans(frame, places.start, places.place, self._right, self._most, self.values)
        if places.bad.size:
            donors = self.pixels(frame, places.donors)
            repair(self.values, places.bad, donors.reshape(-1, len(AROUND)))
        operator = self._operator
        self.saturated[:] = False
        if self.masks.max(initial=0) >= self._limit:  # seldom: then it is worth asking whose
            saturated(
                self.masks, operator.weights, operator.weight_first, operator.weight_pointer, operator.mask_pointer,
                SUMS, AXIAL_BINS, self._limit, self.saturated,
            )  # fmt: skip
        places.calibrate(self.values)

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
    """Flat dark (DN) and relative-gain maps; values are raised by 2**`raised` over DN, of which the calibration does
    `left` bits.
    """

    dark: np.ndarray
    flat: np.ndarray
    raised: int
    left: int

    @property
    def scale_bits(self) -> int:
        """Fractional bits of a pixel's scale: fewer where the darkest corner needs a factor above 2."""
        return SCALE_BITS - max(0, int(np.ceil(-np.log2(2.0 * self.flat.min()))))


class Places:
    """Where spans lie under the present shift, which of their pixels are defects, and their calibration; made anew only
    when the shift changes.

    `start` (S,) uint32 in the order of the frame, so that memory is read in order; `place` (S,) uint32 where each goes
    among the values; `bad` positions among the values, `donors` their neighbours in the frame.
    """

    def __init__(
        self, reference: np.ndarray, shape: tuple[int, int], defects: np.ndarray, maps: PixelMaps | None
    ) -> None:
        self._reference, self._shape, self._maps = reference.astype(np.int64), shape, maps
        self._order = np.argsort(reference, kind="stable")
        self.place = (SPAN_PX * self._order).astype(np.uint32)
        self._defects = np.sort(defects.astype(np.int64))
        self._offset: int | None = None
        self.start = np.empty(0, np.uint32)
        self.bad = np.empty(0, np.int64)
        self.donors = np.empty(0, np.uint32)
        self._dark = self._scale = np.empty(0, np.int16)

    def at(self, offset: int) -> Places:
        """These places shifted by `offset` linear pixels; what would leave the frame reads inside it instead."""
        if offset != self._offset:
            self._offset = offset
            start = np.clip(self._reference + offset, 0, self._shape[0] * self._shape[1] - SPAN_PX)
            self.start = start[self._order].astype(np.uint32)
            if self._defects.size or self._maps is not None:
                pixels = (start[:, None] + np.arange(SPAN_PX)).reshape(-1)
                self._find_defects(pixels)
                self._find_calibration(pixels)
        return self

    def calibrate(self, values: np.ndarray) -> None:
        """Apply dark and flat, in place, where there are maps."""
        if self._maps is not None:
            correct(values, self._dark, self._scale, self._maps.left, self._maps.scale_bits)

    def _find_defects(self, pixels: np.ndarray) -> None:
        if not self._defects.size:
            return
        near = np.minimum(np.searchsorted(self._defects, pixels), self._defects.size - 1)
        self.bad = np.flatnonzero(self._defects[near] == pixels)
        steps = np.array([dy * self._shape[1] + dx for dy, dx in AROUND])
        around = pixels[self.bad][:, None] + steps
        self.donors = np.clip(around, 0, self._shape[0] * self._shape[1] - 1).astype(np.uint32).reshape(-1)

    def _find_calibration(self, pixels: np.ndarray) -> None:
        maps = self._maps
        if maps is not None:
            self._dark = np.clip(np.rint(maps.dark[pixels] * 2.0**maps.raised), -LARGEST, LARGEST).astype(np.int16)
            scale = np.rint(2.0**maps.scale_bits / maps.flat[pixels])
            self._scale = np.clip(scale, 1, LARGEST).astype(np.int16)


def _fill_maps(
    shape: tuple[int, int], dark_dn: float, dark_map: np.ndarray | None, flat_map: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Flat dark (DN) and flat-field maps when there is any; the scalar dark level and 1 for the one that is not."""
    if dark_map is None and flat_map is None:
        return None
    dark = np.full(shape, dark_dn, np.float32) if dark_map is None else np.asarray(dark_map, np.float32)
    flat = np.ones(shape, np.float32) if flat_map is None else np.asarray(flat_map, np.float32)
    return dark.reshape(-1), np.maximum(flat.reshape(-1), 0.05)
