import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.collect import (
    collect_pixels,
    collect_pixels_12p,
    collect_spans,
    collect_spans_12p,
    correct,
    repair,
)
from kernels.lanes import LARGEST
from tests.kernels.naive_photometry import naive_collect, naive_correct, naive_repair, span_pixels
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
    collect_spans(frame, start, places(start), shift, LARGEST, out)
    assert out.tolist() == naive_collect(frame, span_pixels(start), shift)
    assert (room[out.size :] == -12345).all()


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, size=st.integers(12, 70), count=st.integers(0, 9))
def test_packed_spans_equal_naive_up_to_the_payloads_last_pixel(seed, size, count):
    rng = np.random.default_rng(seed)
    pixels = _pixels(rng, size, 4095)
    start = _starts(rng, size, count)
    room, out = _guarded(8 * start.size)
    collect_spans_12p(naive_pack(pixels, "Mono12p"), start, places(start), out)
    assert out.tolist() == naive_collect(pixels, span_pixels(start))
    assert (room[out.size :] == -12345).all()


@pytest.mark.parametrize("size", [40, 41])
def test_every_packed_start_is_read_right(size):
    """Near the payload's end the vector would read too far: the pixels there are as good as any."""
    pixels = (np.arange(size) * 97 % 4096).astype(np.uint16)
    start = np.arange(size - 7, dtype=np.uint32)
    out = np.empty(8 * start.size, np.int16)
    collect_spans_12p(naive_pack(pixels, "Mono12p"), start, places(start), out)
    assert out.tolist() == naive_collect(pixels, span_pixels(start))


def test_bytes_behind_the_payload_are_no_pixels():
    pixels = np.arange(24, dtype=np.uint16) * 170
    packed = naive_pack(pixels, "Mono12p")
    want = naive_collect(pixels, range(16, 24))
    for behind in (0x00, 0xFF):
        buffer = np.concatenate([packed, np.full(32, behind, np.uint8)])
        out = np.empty(8, np.int16)
        collect_spans_12p(buffer[: packed.size], np.array([16], np.uint32), FIRST, out)
        assert out.tolist() == want


def test_full_scale_is_the_largest_value_and_never_negative():
    out = np.empty(8, np.int16)
    collect_spans(np.array([0, 1, 32767, 32768, 65534, 65535, 2, 3], np.uint16), FIRST, FIRST, 0, LARGEST, out)
    assert out.tolist() == [0, 1, LARGEST, LARGEST, LARGEST, LARGEST, 2, 3]
    collect_spans(np.full(8, 65535, np.uint16), FIRST, FIRST, 1, LARGEST, out)
    assert out.tolist() == [LARGEST] * 8
    collect_spans(np.arange(4092, 4100, dtype=np.uint16), FIRST, FIRST, 0, 4095, out)
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


@pytest.mark.parametrize("bit_depth", [8, 10, 12, 16])
@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, size=st.integers(0, 70), bits=st.integers(9, 14))
def test_correction_equals_naive(bit_depth, seed, size, bits):
    rng = np.random.default_rng(seed)
    values = _pixels(rng, size, 2 ** min(bit_depth, 15) - 1).astype(np.int16)
    dark = rng.integers(-LARGEST, LARGEST + 1, size).astype(np.int16)
    scale = rng.integers(1, LARGEST + 1, size).astype(np.int16)
    scale[rng.random(size) < 0.2] = LARGEST
    shift = 14 - min(bit_depth, 15)
    want = naive_correct(values, dark, scale, shift, bits)
    correct(values, dark, scale, shift, bits)
    assert values.tolist() == want


def test_correction_at_the_extremes_is_clipped_not_wrapped():
    values = np.array([16383, 16383, 0, 0, 8192], np.int16)
    dark = np.array([-LARGEST, 0, LARGEST, -LARGEST, 0], np.int16)
    scale = np.full(5, LARGEST, np.int16)
    correct(values, dark, scale, 0, 10)
    assert values.tolist() == [LARGEST, LARGEST, -LARGEST, LARGEST, LARGEST]


def test_dark_pixels_become_negative_values_and_halves_round_up():
    values = np.array([10, 3, 0], np.int16)
    correct(values, np.array([64, 0, 1], np.int16), np.array([1024, 512, 512], np.int16), 0, 10)
    assert values.tolist() == [-54, 2, 0]


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
    collect_spans(frame, start, place, 0, LARGEST, out)
    collect_spans_12p(naive_pack(frame, "Mono12p"), start, place, packed)
    assert out.tolist() == [*range(40, 48), *range(90, 98), *range(8, 16)] == packed.tolist()
