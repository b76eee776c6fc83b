import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.collect import (
    collect_pixels,
    collect_pixels_12p,
    collect_spans,
    collect_spans_12p,
    repair,
)
from kernels.lanes import LARGEST
from tests.kernels.naive_photometry import naive_collect, naive_repair, naive_scale, span_pixels
from tests.kernels.naive_unpack import naive_pack

SEEDS = st.integers(0, 2**32 - 1)


def _pixels(rng, size, most, dtype=np.uint16):
    pixels = rng.integers(0, most + 1, size).astype(dtype)
    pixels[rng.random(size) < 0.1] = 0
    pixels[rng.random(size) < 0.1] = most
    return pixels


def _starts(rng, size, count):
    """Anywhere, odd and even, and always the first and last span that fit."""
    return np.concatenate([rng.integers(0, size - 7, count), [0, size - 8]]).astype(np.uint32)


FIRST = np.zeros(1, np.uint32)


def places(start):
    """One behind the other."""
    return (8 * np.arange(start.size)).astype(np.uint32)


def _guarded(size):
    """Room for the result with a guard behind it that nothing may write."""
    room = np.full(size + 16, -12345, np.int16)
    return room, room[:size]


@pytest.mark.parametrize(("dtype", "most"), [(np.uint8, 255), (np.uint16, 4095), (np.uint16, 65535)])
@pytest.mark.parametrize("shift", [0, 1, 4])
@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, size=st.integers(8, 70), count=st.integers(0, 9))
def test_spans_equal_naive(dtype, most, shift, seed, size, count):
    shift = 0 if dtype == np.uint8 else shift
    rng = np.random.default_rng(seed)
    frame, start = _pixels(rng, size, most, dtype), _starts(rng, size, count)
    room, out = _guarded(8 * start.size)
    largest = collect_spans(frame, start, places(start), shift, LARGEST, 0, None, out)
    assert out.tolist() == naive_collect(frame, span_pixels(start), shift)
    assert largest == out.max()
    assert (room[out.size :] == -12345).all()


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, size=st.integers(12, 70), count=st.integers(0, 9))
def test_packed_spans_equal_naive_up_to_the_payloads_last_pixel(seed, size, count):
    rng = np.random.default_rng(seed)
    pixels = _pixels(rng, size, 4095)
    start = _starts(rng, size, count)
    room, out = _guarded(8 * start.size)
    largest = collect_spans_12p(naive_pack(pixels, "Mono12p"), start, places(start), 0, None, out)
    assert out.tolist() == naive_collect(pixels, span_pixels(start))
    assert largest == out.max()
    assert (room[out.size :] == -12345).all()


@pytest.mark.parametrize("size", [40, 41])
def test_every_packed_start_is_read_right(size):
    """Near the payload's end too, where nothing may be read that lies behind it."""
    pixels = (np.arange(size) * 97 % 4096).astype(np.uint16)
    start = np.arange(size - 7, dtype=np.uint32)
    out = np.empty(8 * start.size, np.int16)
    collect_spans_12p(naive_pack(pixels, "Mono12p"), start, places(start), 0, None, out)
    assert out.tolist() == naive_collect(pixels, span_pixels(start))


def test_bytes_behind_the_payload_are_no_pixels():
    pixels = np.arange(24, dtype=np.uint16) * 170
    packed = naive_pack(pixels, "Mono12p")
    want = naive_collect(pixels, range(16, 24))
    for behind in (0x00, 0xFF):
        buffer = np.concatenate([packed, np.full(32, behind, np.uint8)])
        out = np.empty(8, np.int16)
        collect_spans_12p(buffer[: packed.size], np.array([16], np.uint32), FIRST, 0, None, out)
        assert out.tolist() == want


def test_full_scale_is_the_largest_value_and_never_negative():
    out = np.empty(8, np.int16)
    collect_spans(np.array([0, 1, 32767, 32768, 65534, 65535, 2, 3], np.uint16), FIRST, FIRST, 0, LARGEST, 0, None, out)
    assert out.tolist() == [0, 1, LARGEST, LARGEST, LARGEST, LARGEST, 2, 3]
    collect_spans(np.full(8, 65535, np.uint16), FIRST, FIRST, 1, LARGEST, 0, None, out)
    assert out.tolist() == [LARGEST] * 8
    collect_spans(np.arange(4092, 4100, dtype=np.uint16), FIRST, FIRST, 0, 4095, 0, None, out)
    assert out.tolist() == [4092, 4093, 4094, 4095, 4095, 4095, 4095, 4095]


@pytest.mark.parametrize(("dtype", "most", "shift"), [(np.uint8, 255, 0), (np.uint16, 4095, 0), (np.uint16, 65535, 1)])
@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, size=st.integers(1, 60), count=st.integers(0, 9))
def test_single_pixels_equal_naive(dtype, most, shift, seed, size, count):
    rng = np.random.default_rng(seed)
    frame = _pixels(rng, size, most, dtype)
    index = np.append(rng.integers(0, size, count), size - 1).astype(np.uint32)
    out = np.empty(index.size, np.int16)
    collect_pixels(frame, index, shift, LARGEST, out)
    assert out.tolist() == naive_collect(frame, index, shift)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, size=st.integers(1, 60), count=st.integers(0, 9))
def test_single_packed_pixels_equal_naive(seed, size, count):
    rng = np.random.default_rng(seed)
    pixels = _pixels(rng, size, 4095)
    index = np.append(rng.integers(0, size, count), size - 1).astype(np.uint32)
    out = np.empty(index.size, np.int16)
    collect_pixels_12p(naive_pack(pixels, "Mono12p"), index, out)
    assert out.tolist() == naive_collect(pixels, index)


@pytest.mark.parametrize("pixel_format", ["Mono8", "Mono12", "Mono12p", "Mono16"])
@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, size=st.integers(12, 70), count=st.integers(0, 9))
def test_scaled_spans_equal_naive_and_the_largest_is_told_before_scaling(pixel_format, seed, size, count):
    rng = np.random.default_rng(seed)
    depth = {"Mono8": 8, "Mono16": 16}.get(pixel_format, 12)
    right, left = max(depth - 15, 0), max(15 - depth, 0)
    pixels, start = _pixels(rng, size, 2**depth - 1), _starts(rng, size, count)
    scale = rng.integers(1, LARGEST + 1, 8 * start.size).astype(np.int16)
    scale[rng.random(scale.size) < 0.2] = LARGEST
    to = rng.permutation(start.size)
    room, out = _guarded(8 * start.size)
    payload = naive_pack(pixels, pixel_format)
    if pixel_format == "Mono12p":
        largest = collect_spans_12p(payload, start, (8 * to).astype(np.uint32), left, scale, out)
    else:
        frame = payload if depth == 8 else payload.view(np.uint16)
        largest = collect_spans(frame, start, (8 * to).astype(np.uint32), right, LARGEST, left, scale, out)
    raw = naive_collect(pixels, span_pixels(start), right)
    want = naive_scale(raw, left, scale)
    assert out.reshape(-1, 8)[to].reshape(-1).tolist() == want
    assert (room[out.size :] == -12345).all()
    assert largest == max(raw)


def test_scales_round_halves_up_and_never_run_over():
    values = np.array([0, 1, 2, 3, 16384, 32767, 32766, 1], np.uint16)
    scale = np.array([LARGEST, 16384, 16384, 16384, 16384, LARGEST, LARGEST, 16383], np.int16)
    out = np.empty(8, np.int16)
    assert collect_spans(values, FIRST, FIRST, 0, LARGEST, 0, scale, out) == LARGEST
    assert out.tolist() == [0, 1, 1, 2, 8192, 32766, 32765, 0]


def test_nothing_to_collect_has_nothing_largest():
    nothing = np.empty(0, np.uint32)
    for scale in (None, np.empty(0, np.int16)):
        out = np.empty(0, np.int16)
        assert collect_spans(np.zeros(8, np.uint16), nothing, nothing, 0, LARGEST, 0, scale, out) == 0
        assert collect_spans_12p(np.zeros(12, np.uint8), nothing, nothing, 0, scale, out) == 0


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, size=st.integers(1, 40), defects=st.integers(0, 6))
def test_repair_equals_naive(seed, size, defects):
    rng = np.random.default_rng(seed)
    values = _pixels(rng, size, LARGEST).astype(np.int16)
    places = np.sort(rng.choice(size, min(defects, size), replace=False)).astype(np.int64)
    donors = _pixels(rng, 4 * places.size, LARGEST).astype(np.int16).reshape(-1, 4)
    want = naive_repair(values, places, donors)
    repair(values, places, donors)
    assert values.tolist() == want


def test_four_saturated_neighbours_make_a_saturated_pixel():
    values = np.zeros(3, np.int16)
    repair(values, np.array([1]), np.full((1, 4), LARGEST, np.int16))
    assert values.tolist() == [0, LARGEST, 0]


def test_spans_go_where_they_are_told():
    frame = np.arange(100, dtype=np.uint16)
    start, place = np.array([8, 40, 90], np.uint32), np.array([16, 0, 8], np.uint32)
    out, packed = np.empty(24, np.int16), np.empty(24, np.int16)
    collect_spans(frame, start, place, 0, LARGEST, 0, None, out)
    collect_spans_12p(naive_pack(frame, "Mono12p"), start, place, 0, None, packed)
    assert out.tolist() == [*range(40, 48), *range(90, 98), *range(8, 16)] == packed.tolist()
