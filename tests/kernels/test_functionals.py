import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.functionals import correlation_map, four_sums, plane_sums
from tests.kernels.naive_photometry import naive_correlation, naive_weighted_sums


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 9000])
@pytest.mark.parametrize("offset", [-3, 0, 5])
def test_plane_sums_equal_naive(size, offset):
    rng = np.random.default_rng(size)
    frame = rng.uniform(0, 3e4, 20_000).astype(np.float32)
    index = np.sort(rng.integers(3, 19_990, size)).astype(np.int32)
    u, v = rng.uniform(-1, 1, (2, size)).astype(np.float32)
    out = np.empty(3)
    plane_sums(frame, index, u, v, offset, out)
    want = naive_weighted_sums(frame, index, [np.ones(size), u, v], offset)
    np.testing.assert_allclose(out, want, rtol=2e-6, atol=2e-6 * 3e4 * max(size, 1) ** 0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 300))
def test_four_sums_equal_naive(seed, size):
    rng = np.random.default_rng(seed)
    frame = rng.normal(0, 1e4, 1000).astype(np.float32)
    index = rng.integers(10, 980, size).astype(np.int32)
    weights = rng.normal(0, 1, (4, size)).astype(np.float32)
    out = np.empty(4)
    four_sums(frame, index, weights, 7, out)
    want = naive_weighted_sums(frame, index, weights, 7)
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-5 * 1e4 * max(size, 1))


def test_a_nan_pixel_poisons_only_sums_that_read_it():
    frame = np.ones(10, np.float32)
    frame[3] = np.nan
    out = np.empty(4)
    four_sums(frame, np.array([0, 1], np.int32), np.ones((4, 2), np.float32), 0, out)
    assert np.all(out == 2.0)
    four_sums(frame, np.array([0, 3], np.int32), np.ones((4, 2), np.float32), 0, out)
    assert np.isnan(out).all()


def test_correlation_map_equals_naive_and_peaks_at_the_shift():
    rng = np.random.default_rng(4)
    width, reach = 40, 4
    image = rng.normal(1000, 50, (30, width)).astype(np.float32)
    y, x = np.mgrid[8:20, 8:30].reshape(2, -1)
    template = image[y, x] - image[y, x].mean()
    moved = np.roll(image, (2, -3), (0, 1)).reshape(-1)
    index = (y * width + x).astype(np.int32)
    out = np.empty((2 * reach + 1, 2 * reach + 1))
    correlation_map(moved, width, index, template.astype(np.float32), 0, reach, out)
    np.testing.assert_allclose(out, naive_correlation(moved, width, index, template, 0, reach), rtol=1e-3, atol=0.05)
    assert np.unravel_index(out.argmax(), out.shape) == (reach + 2, reach - 3)


def test_correlation_of_a_constant_frame_is_zero():
    out = np.full((3, 3), np.nan)
    index = np.array([22, 23], np.int32)
    correlation_map(np.full(100, 7, np.float32), 10, index, np.array([-1, 1], np.float32), 0, 1, out)
    assert np.all(out == 0.0)
