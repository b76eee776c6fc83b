from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.engine.collector import Collector
from daemon.engine.operator import empty_operator
from hw.camera.contract import PixelFormat
from kernels.photometry import AXIAL_BINS, SUMS
from tests.kernels.naive_photometry import naive_collect, span_pixels
from tests.kernels.naive_unpack import naive_pack

HEIGHT, WIDTH = 14, 24
PIXELS = HEIGHT * WIDTH
GAIN_E, DARK_DN = 5.0, 60.0
SEEDS = st.integers(0, 2**32 - 1)
NONE = np.empty(0, np.int32)


def _operator(masks, rings=NONE, plane=NONE, defects=NONE, mask=None):
    """An operator whose only particle looks at the spans `masks` with the soft mask `mask` (127 is a whole)."""
    size = 8 * len(masks)
    weights = np.zeros((SUMS, size), np.int8)
    weights[AXIAL_BINS - 1] = 127 if mask is None else mask
    weights[-1] = 127  # what is no share of a pixel
    return replace(
        empty_operator((HEIGHT, WIDTH)),
        noise=np.array([GAIN_E, 2.0, DARK_DN]),
        defects=np.array(defects, np.int32),
        mask_span=np.array(masks, np.int32),
        mask_pointer=np.array([0, size], np.int32),
        weights=weights.reshape(-1),
        weight_first=np.zeros(SUMS, np.int32),
        weight_pointer=np.arange(0, size * (SUMS + 1), size, dtype=np.int32) if size else np.zeros(SUMS + 1, np.int32),
        ring_span=np.array(rings, np.int32),
        ring_pointer=np.array([0, 8 * len(rings)], np.int32),
        plane_span=np.array(plane, np.int32),
    )


def _frame(bit_depth, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 2**bit_depth, (HEIGHT, WIDTH)).astype(np.uint16)
    pixels[0, 0], pixels[-1, -1] = 2**bit_depth - 1, 2**bit_depth - 1
    return pixels


def _electrons(collector, offset=0):
    if collector.dark is not None:
        return collector.unit_e * (collector.values - collector.dark)
    dark, parts = collector.dark_values(offset)
    return collector.unit_e * (collector.values - dark / parts)


@pytest.mark.parametrize("pixel_format", list(PixelFormat))
@pytest.mark.parametrize("missing", [1, -1, 50])
def test_a_payload_of_another_size_is_refused_whatever_its_format(pixel_format, missing):
    collector = Collector(_operator([40]), pixel_format, pixel_format.bit_depth)
    payload = np.zeros(pixel_format.payload_bytes(HEIGHT, WIDTH) - missing, np.uint8)
    with pytest.raises(ValueError, match=f"{payload.size} bytes"):
        collector.open(payload)


@pytest.mark.parametrize("pixel_format", list(PixelFormat))
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, offset=st.integers(-40, 40))
def test_payloads_and_pixels_of_every_format_give_the_same_values(pixel_format, seed, offset):
    depth = pixel_format.bit_depth
    pixels = _frame(depth, seed)
    spans = np.random.default_rng(seed).integers(40, PIXELS - 48, 12)
    collector = Collector(_operator(spans[:5], spans[5:8], spans[8:]), pixel_format, depth)
    want = naive_collect(pixels.reshape(-1), span_pixels(spans + offset), max(depth - 15, 0))
    frames = [naive_pack(pixels, pixel_format.value), pixels]
    if depth == 8:
        frames.append(pixels.astype(np.uint8))
    for frame in frames:
        opened = collector.open(frame)
        collector.read(opened, offset)
        assert collector.values.tolist() == want
        assert [part.size for part in (collector.masks, collector.rings, collector.plane)] == [40, 24, 32]
        assert np.concatenate([collector.masks, collector.rings, collector.plane]).tolist() == want
        index = np.array([0, 17, PIXELS - 1], np.uint32)
        assert collector.pixels(opened, index).tolist() == naive_collect(pixels.reshape(-1), index, max(depth - 15, 0))
        whole = collector.whole(opened)
        assert whole.dtype == np.float32
        np.testing.assert_array_equal(whole, pixels)


@pytest.mark.parametrize("pixel_format", list(PixelFormat))
def test_values_are_electrons_without_the_dark_level(pixel_format):
    pixels = _frame(pixel_format.bit_depth)
    collector = Collector(_operator([0, 33, PIXELS - 8]), pixel_format, pixel_format.bit_depth)
    collector.read(collector.open(naive_pack(pixels, pixel_format.value)), 0)
    want = GAIN_E * (pixels.reshape(-1)[span_pixels([0, 33, PIXELS - 8])] - DARK_DN)
    lost = 0.0 if pixel_format.bit_depth < 16 else GAIN_E  # the last of 16 bits
    np.testing.assert_allclose(_electrons(collector), want, atol=lost + 1e-9)


@pytest.mark.parametrize("pixel_format", [PixelFormat.MONO12P, PixelFormat.MONO16])
@pytest.mark.parametrize("offset", [-PIXELS, -30, -1, 0, 1, 30, PIXELS])
def test_spans_that_would_leave_the_frame_read_inside_it(pixel_format, offset):
    pixels = _frame(12)
    starts = np.array([0, 7, PIXELS - 8, PIXELS - 9])
    collector = Collector(_operator(starts), pixel_format, 12)
    for shift in (0, offset, 0):  # there and back: nothing of another place is kept
        collector.read(collector.open(naive_pack(pixels, pixel_format.value)), shift)
        inside = np.clip(starts + shift, 0, PIXELS - 8)
        assert collector.values.tolist() == naive_collect(pixels.reshape(-1), span_pixels(inside))


@pytest.mark.parametrize("pixel_format", list(PixelFormat))
@pytest.mark.parametrize("offset", [0, 1, -WIDTH - 2])
def test_a_defect_is_the_mean_of_its_four_neighbours_wherever_the_scene_drifts(pixel_format, offset):
    depth = pixel_format.bit_depth
    pixels = _frame(depth)
    defects = np.array([9 * WIDTH + 12, 3 * WIDTH + 4, 5 * WIDTH + 20])
    repaired = pixels.astype(int).reshape(-1) >> max(depth - 15, 0)
    for i in defects:
        around = [repaired[i + step] for step in (-1, 1, -WIDTH, WIDTH)]
        repaired[i] = (sum(around) + 2) // 4
    starts = np.array([3 * WIDTH, 5 * WIDTH + 10, 9 * WIDTH + 3, 9 * WIDTH + 5])
    collector = Collector(_operator(starts, defects=defects), pixel_format, depth)
    collector.read(collector.open(naive_pack(pixels, pixel_format.value)), 0)
    assert collector.values.tolist() == repaired[span_pixels(starts)].tolist()
    collector.read(collector.open(naive_pack(pixels, pixel_format.value)), offset)
    assert collector.values.tolist() == repaired[span_pixels(starts + offset)].tolist()


@pytest.mark.parametrize(("depth", "pixel_format"), [(8, "Mono8"), (10, "Mono10p"), (12, "Mono12p"), (16, "Mono16")])
@pytest.mark.parametrize("maps", ["dark", "flat", "both"])
def test_maps_calibrate_each_pixel(depth, pixel_format, maps):
    rng = np.random.default_rng(depth)
    full = 2**depth
    dark = rng.uniform(0, 0.05 * full, (HEIGHT, WIDTH)).astype(np.float32) if maps != "flat" else None
    flat = rng.uniform(0.7, 1.3, (HEIGHT, WIDTH)).astype(np.float32) if maps != "dark" else None
    if flat is not None:
        flat[:4, :6] = 0.2  # a corner that hardly sees the light
    pixels = np.minimum(_frame(depth), 0.9 * full).astype(np.uint16)
    pixels[:4, :6] //= 5
    starts = np.array([0, WIDTH, 2 * WIDTH + 1, 5 * WIDTH + 3, PIXELS - 20])
    collector = Collector(_operator(starts), PixelFormat(pixel_format), depth, dark, flat)
    for offset in (0, WIDTH + 1):
        collector.read(collector.open(naive_pack(pixels, pixel_format)), offset)
        index = span_pixels(np.clip(starts + offset, 0, PIXELS - 8))
        own_dark = DARK_DN if dark is None else dark.reshape(-1)[index].astype(float)
        own_flat = 1.0 if flat is None else flat.reshape(-1)[index].astype(float)
        want = GAIN_E * (pixels.reshape(-1)[index] - own_dark) / own_flat
        # steps of a value, of the rounded dark level behind the flat, and of the scale
        step_e = collector.unit_e * (0.5 + 1.5 / own_flat) + np.abs(want) * 0.5 * own_flat / 2**12
        assert (np.abs(_electrons(collector, offset) - want) <= step_e).all()


def test_the_calibration_follows_the_drift_on_the_sensor():
    """A gain belongs to the sensor's pixel, whatever part of the scene falls on it."""
    flat = np.ones((HEIGHT, WIDTH), np.float32)
    flat[6, 10] = 0.5
    pixels = np.full((HEIGHT, WIDTH), 1000, np.uint16)
    collector = Collector(_operator([6 * WIDTH + 8]), PixelFormat.MONO16, 12, None, flat)
    for offset in (0, 1, -3):
        collector.read(collector.open(pixels), offset)
        bright = np.flatnonzero(np.abs(_electrons(collector, offset) / (GAIN_E * (1000 - DARK_DN)) - 2.0) < 0.01)
        assert bright.tolist() == ([2 - offset] if offset <= 2 else [])


@pytest.mark.parametrize("pixel_format", list(PixelFormat))
@pytest.mark.parametrize(
    ("level", "mask", "expected"), [(1.0, 127, True), (0.985, 64, True), (0.975, 127, False), (1.0, 63, False)]
)
def test_saturation_is_told_only_under_the_mask(pixel_format, level, mask, expected):
    pixels = np.full((HEIGHT, WIDTH), 10, np.uint16)
    full = 2**pixel_format.bit_depth - 1
    pixels[5, 7] = int(level * full)
    pixels[5, 8] = full  # beyond the mask
    soft = np.array([127] * 7 + [0] + [127] * 8)
    soft[6] = mask
    operator = _operator([5 * WIDTH + 1, 9 * WIDTH], rings=[5 * WIDTH + 4], mask=soft)
    collector = Collector(operator, pixel_format, pixel_format.bit_depth)
    frame = collector.open(naive_pack(pixels, pixel_format.value))
    collector.read(frame, 0)
    assert collector.saturated.tolist() == [expected]
    collector.read(frame, 3 * WIDTH)  # the scene moved away from it
    assert collector.saturated.tolist() == [False]


def test_a_hot_pixel_that_is_repaired_saturates_nothing_and_maps_do_not_hide_saturation():
    pixels = np.full((HEIGHT, WIDTH), 10, np.uint16)
    pixels[5, 7] = 4095
    flat = np.full((HEIGHT, WIDTH), 1.5, np.float32)
    for maps in (None, flat):
        for defects, expected in ((NONE, True), ([5 * WIDTH + 7], False)):
            collector = Collector(_operator([5 * WIDTH + 1], defects=defects), PixelFormat.MONO12, 12, None, maps)
            collector.read(collector.open(pixels), 0)
            assert collector.saturated.tolist() == [expected]


@pytest.mark.parametrize("pixel_format", list(PixelFormat))
def test_saturation_is_told_of_raw_pixels_under_an_uneven_flat(pixel_format):
    """A pixel that sees half of the light has twice the value at full scale; one that sees more, less."""
    full = 2**pixel_format.bit_depth - 1
    flat = np.ones((HEIGHT, WIDTH), np.float32)
    flat[5, 3], flat[5, 4] = 0.5, 1.9
    for pixel, level, expected in ((3, 0.9, False), (3, 1.0, True), (4, 0.9, False), (4, 1.0, True), (12, 1.0, False)):
        pixels = np.full((HEIGHT, WIDTH), full // 10, np.uint16)
        pixels[5, pixel] = int(level * full)
        operator = _operator([5 * WIDTH + 1], rings=[5 * WIDTH + 9])
        collector = Collector(operator, pixel_format, pixel_format.bit_depth, None, flat)
        for offset in (0, WIDTH, 0):
            collector.read(collector.open(naive_pack(pixels, pixel_format.value)), offset)
            assert collector.saturated.tolist() == [expected and offset == 0]


@pytest.mark.parametrize("pixel_format", list(PixelFormat))
def test_a_defect_has_its_neighbours_dark_level_and_gain(pixel_format):
    """A hot pixel is as hot in the dark map as in the frame, a dead one as dead in the flat: neither reaches values."""
    full = 2**pixel_format.bit_depth
    defects = np.array([5 * WIDTH + 4, 9 * WIDTH + 12])
    flat = np.random.default_rng(1).uniform(0.8, 1.2, (HEIGHT, WIDTH)).astype(np.float32)
    dark = np.full((HEIGHT, WIDTH), full / 64, np.float32)
    pixels = np.rint(full / 64 + full / 4 * flat).astype(np.uint16)
    dark[5, 4], pixels[5, 4] = full / 2, 0.9 * full
    flat[9, 12], pixels[9, 12] = 0.05, full / 64
    for offset in (0, 2):
        collector = Collector(
            _operator([5 * WIDTH, 9 * WIDTH + 8], defects=defects), pixel_format, pixel_format.bit_depth, dark, flat
        )
        collector.read(collector.open(naive_pack(pixels, pixel_format.value)), offset)
        np.testing.assert_allclose(_electrons(collector, offset), GAIN_E * full / 4, rtol=6 / full + 2e-3)


def test_a_dark_map_alone_costs_frames_nothing():
    dark = np.random.default_rng(0).uniform(50, 70, (HEIGHT, WIDTH)).astype(np.float32)
    for flat in (None, np.ones((HEIGHT, WIDTH), np.float32)):
        collector = Collector(_operator([3, 50]), PixelFormat.MONO12, 12, dark, flat)
        pixels = _frame(12)
        collector.read(collector.open(pixels), 0)
        assert collector.values.tolist() == naive_collect(pixels.reshape(-1), span_pixels([3, 50]))
        want = GAIN_E * (pixels.reshape(-1) - dark.reshape(-1).astype(float))[span_pixels([3, 50])]
        np.testing.assert_allclose(_electrons(collector), want, atol=GAIN_E / 256)


def test_bits_above_the_twelfth_count_as_full_scale():
    """Sums of garbage would else run over; that it is garbage shows as saturation."""
    payload = naive_pack(_frame(12), "Mono12")
    payload[1::2] |= 0xF0
    collector = Collector(_operator([3, 50]), PixelFormat.MONO12, 12)
    collector.read(collector.open(payload), 0)
    assert collector.values.tolist() == [4095] * 16


def test_an_operator_without_spans_reads_nothing():
    collector = Collector(_operator(NONE), PixelFormat.MONO12P, 12)
    collector.read(collector.open(naive_pack(_frame(12), "Mono12p")), 0)
    assert collector.values.size == 0
    assert collector.saturated.tolist() == [False]
