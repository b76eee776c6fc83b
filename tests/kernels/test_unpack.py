from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.camera.contract import PixelFormat
from kernels.unpack import BITS_STORED, unpack
from tests.kernels.naive_unpack import SIGNIFICANT_BITS, naive_pack, naive_unpack

FORMATS = sorted(SIGNIFICANT_BITS)


@pytest.mark.parametrize("pixel_format", FORMATS)
@settings(max_examples=60, deadline=None)
@given(height=st.integers(0, 7), width=st.integers(0, 23), seed=st.integers(0, 2**32 - 1))
def test_any_bytes_give_what_the_bit_stream_says(pixel_format, height, width, seed):
    size = (height * width * BITS_STORED[pixel_format] + 7) // 8
    payload = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    out = np.full((height, width), 0xDEAD, np.uint16)
    unpack(payload, pixel_format, out)
    assert out.ravel().tolist() == naive_unpack(payload, pixel_format, height * width)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 5), (7, 9), (16, 64), (33, 35)])
def test_packed_pixels_come_back(pixel_format, shape):
    pixels = np.random.default_rng(7).integers(0, 2 ** SIGNIFICANT_BITS[pixel_format], shape).astype(np.uint16)
    pixels.flat[0] = 2 ** SIGNIFICANT_BITS[pixel_format] - 1
    out = np.zeros(shape, np.uint16)
    unpack(naive_pack(pixels, pixel_format), pixel_format, out)
    np.testing.assert_array_equal(out, pixels)


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_full_scale_frame(pixel_format):
    pixels = np.full((5, 7), 2 ** SIGNIFICANT_BITS[pixel_format] - 1, np.uint16)
    out = np.zeros_like(pixels)
    unpack(naive_pack(pixels, pixel_format), pixel_format, out)
    np.testing.assert_array_equal(out, pixels)


def test_mono12p_as_the_naming_convention_draws_it():
    out = np.zeros((1, 2), np.uint16)
    unpack(np.array([0xAB, 0x6C, 0x45], np.uint8), "Mono12p", out)
    assert out.tolist() == [[0xCAB, 0x456]]


def test_mono10p_as_the_naming_convention_draws_it():
    out = np.zeros((1, 4), np.uint16)
    unpack(np.array([0xFF, 0x03, 0x00, 0x00, 0xC0], np.uint8), "Mono10p", out)
    assert out.tolist() == [[0x3FF, 0, 0, 0x300]]


def test_mono12_drops_bits_no_pixel_has():
    out = np.zeros((1, 1), np.uint16)
    unpack(np.array([0x34, 0xF2], np.uint8), "Mono12", out)
    assert out[0, 0] == 0x234


@pytest.mark.parametrize("pixel_format", list(PixelFormat))
def test_sizes_agree_with_the_camera_contract(pixel_format):
    for height, width in [(1, 1), (3, 5), (600, 960)]:
        out = np.zeros((height, width), np.uint16)
        unpack(np.zeros(pixel_format.payload_bytes(height, width), np.uint8), pixel_format, out)


def test_unaligned_and_strided_payloads():
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 37
    packed = naive_pack(pixels, "Mono12p")
    buffer = np.zeros(2 * packed.size + 1, np.uint8)
    buffer[1::2] = packed
    out = np.zeros_like(pixels)
    unpack(buffer[1::2], "Mono12p", out)
    np.testing.assert_array_equal(out, pixels)
    shifted = np.concatenate([[0], packed]).astype(np.uint8)
    unpack(shifted[1:], "Mono12p", out)
    np.testing.assert_array_equal(out, pixels)


@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_wrong_size_names_both_sizes(pixel_format, change):
    needed = 4 * 6 * BITS_STORED[pixel_format] // 8
    with pytest.raises(ValueError, match=rf"{needed + change} bytes.*{needed} bytes"):
        unpack(np.zeros(needed + change, np.uint8), pixel_format, np.zeros((4, 6), np.uint16))


def test_unknown_format_names_the_known_ones():
    with pytest.raises(ValueError, match=r"Mono12Packed.*Mono12p"):
        unpack(np.zeros(3, np.uint8), "Mono12Packed", np.zeros((1, 2), np.uint16))


@pytest.mark.parametrize(
    ("payload", "out"),
    [
        (np.zeros(4, np.int8), np.zeros((2, 2), np.uint16)),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint16)),
        (np.zeros(4, np.uint8), np.zeros((2, 2), np.int16)),
        (np.zeros(4, np.uint8), np.zeros((2, 4), np.uint16)[:, ::2]),
    ],
)
def test_wrong_kinds_of_array_are_refused(payload, out):
    with pytest.raises(ValueError, match="must be"):
        unpack(payload, "Mono8", out)
