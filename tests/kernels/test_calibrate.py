import numpy as np
import pytest

from kernels.calibrate import accumulate, electrons_mapped, electrons_scalar
from tests.kernels.naive_photometry import naive_accumulate, naive_electrons


@pytest.mark.parametrize("size", [0, 1, 7, 64, 1001])
def test_scalar_equals_naive(size):
    rng = np.random.default_rng(size)
    dn = rng.integers(0, 65536, size).astype(np.uint16)
    out = np.empty(size, np.float32)
    electrons_scalar(dn, 7.9, 64.0, out)
    np.testing.assert_allclose(out, naive_electrons(dn, np.full(size, 7.9), np.full(size, 64.0)), rtol=1e-6, atol=0.05)


@pytest.mark.parametrize("size", [0, 1, 7, 1001])
def test_mapped_equals_naive(size):
    rng = np.random.default_rng(size)
    dn = rng.integers(0, 4096, size).astype(np.uint16)
    scale = rng.uniform(5, 9, size).astype(np.float32)
    dark = rng.uniform(0, 100, size).astype(np.float32)
    out = np.empty(size, np.float32)
    electrons_mapped(dn, scale, dark, out)
    np.testing.assert_allclose(out, naive_electrons(dn, scale, dark), rtol=1e-5, atol=1e-2)


def test_a_nan_in_a_map_stays_in_its_pixel():
    dn = np.full(5, 1000, np.uint16)
    scale = np.array([1, 1, np.nan, 1, 1], np.float32)
    out = np.empty(5, np.float32)
    electrons_mapped(dn, scale, np.zeros(5, np.float32), out)
    assert np.isnan(out).tolist() == [False, False, True, False, False]


def test_dark_frames_give_negative_electrons_not_wrapped_ones():
    out = np.empty(1, np.float32)
    electrons_scalar(np.zeros(1, np.uint16), 8.0, 64.0, out)
    assert out[0] == -512.0


def test_accumulate_equals_naive_and_leaves_the_frame_as_previous():
    rng = np.random.default_rng(0)
    frame, previous = rng.normal(100, 5, (2, 33)).astype(np.float32)
    total, square = rng.normal(0, 1, (2, 33)).astype(np.float32)
    want_total, want_square = naive_accumulate(frame, total, square, previous)
    accumulate(frame, total, square, previous)
    np.testing.assert_allclose(total, want_total, rtol=1e-6)
    np.testing.assert_allclose(square, want_square, rtol=1e-5)
    np.testing.assert_array_equal(previous, frame)


def test_half_the_mean_squared_difference_is_the_variance():
    rng = np.random.default_rng(1)
    frames = rng.normal(500, 12, (400, 100)).astype(np.float32)
    total, square, previous = frames[0].copy(), np.zeros(100, np.float32), frames[0].copy()
    for frame in frames[1:]:
        accumulate(frame, total, square, previous)
    assert np.median(square / (2 * 399)) == pytest.approx(144, rel=0.05)
