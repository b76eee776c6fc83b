import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.functionals import correlation_map, plane_sums, saturated, weighted_sums
from kernels.lanes import LARGEST
from tests.kernels.naive_photometry import (
    naive_correlation,
    naive_plane_sums,
    naive_saturated,
    naive_weighted_sums,
)

SEEDS = st.integers(0, 2**32 - 1)


def _rows(rng, particles, rows, longest=40):
    """Values of some groups, a third of them without any pixel, and runs of weights anywhere within each group."""
    lengths = rng.integers(0, longest, particles) * (rng.random(particles) > 0.3)
    group = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = rng.integers(-LARGEST, LARGEST + 1, group[-1]).astype(np.int16)
    values[rng.random(values.size) < 0.2] = LARGEST
    ends = np.sort([rng.integers(group[p], group[p + 1] + 1, 2) for p in range(particles) for _ in range(rows)], axis=1)
    first, last = ends.reshape(-1, 2).astype(np.int32).T
    pointer = np.concatenate([[0], np.cumsum(last - first)]).astype(np.int32)
    weights = rng.integers(-127, 128, pointer[-1]).astype(np.int8)
    return values, weights, first.copy(), pointer, group


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 6), st.sampled_from([1, 5, 19]), st.sampled_from([32, 96, 512, 65_536]))
def test_weighted_sums_equal_naive(seed, particles, rows, block):
    values, weights, first, pointer, _ = _rows(np.random.default_rng(seed), particles, rows)
    out = np.full(particles * rows, -1, np.int64)
    weighted_sums(values, weights, first, pointer, block, out)
    assert out.tolist() == naive_weighted_sums(values, weights, first, pointer)


@pytest.mark.parametrize(("block", "value"), [(8192, LARGEST), (65_536, 4095)])
@pytest.mark.parametrize("size", [1, 31, 32, 33, 8191, 8192, 8193, 65_535, 65_536, 200_000])
def test_the_largest_products_fit_their_block(block, value, size):
    """32 bits hold a block of them whatever their signs; Python's whole numbers hold any."""
    values = np.concatenate([np.full(size, value), np.full(size, -value)]).astype(np.int16)
    weights = np.concatenate([np.full(size, w) for w in (127, -127, 127, -127)]).astype(np.int8)
    first, pointer = np.array([0, 0, size, size], np.int32), np.arange(0, 5 * size, size, dtype=np.int32)
    out = np.empty(4, np.int64)
    weighted_sums(values, weights, first, pointer, block, out)
    most = size * value * 127
    assert out.tolist() == [most, -most, -most, most]


@pytest.mark.parametrize("block", [512, 8192])
@pytest.mark.parametrize("size", [1, 8, 4100, 9000])
def test_long_runs_of_twelve_bits_equal_naive(block, size):
    rng = np.random.default_rng(size)
    values = rng.integers(0, 4096, size + 5).astype(np.int16)
    weights = rng.choice([-127, 0, 127], 2 * size + 3).astype(np.int8)
    first, pointer = np.array([5, 1, 0, 2], np.int32), np.array([0, size, size, size + 3, 2 * size + 3], np.int32)
    out = np.empty(4, np.int64)
    weighted_sums(values, weights, first, pointer, block, out)
    assert out.tolist() == naive_weighted_sums(values, weights, first, pointer)


def test_no_rows_at_all():
    weighted_sums(
        np.empty(0, np.int16), np.empty(0, np.int8), np.empty(0, np.int32), np.zeros(1, np.int32), 512,
        np.empty(0, np.int64),
    )  # fmt: skip


@pytest.mark.parametrize("spans", [0, 1, 2, 513, 3000])
def test_plane_sums_equal_naive(spans):
    rng = np.random.default_rng(spans)
    values = rng.integers(0, LARGEST + 1, 8 * spans).astype(np.int16)
    u, v = rng.uniform(-1, 1, (2, spans)).astype(np.float32)
    out = np.empty(3)
    plane_sums(values, u, v, out)
    want = naive_plane_sums(values, u, v)
    assert out[0] == want[0]
    np.testing.assert_allclose(out, want, rtol=1e-6, atol=1e-2)


def test_plane_sums_of_the_brightest_frame_are_exact():
    spans = 12_500
    out = np.empty(3)
    one, half = np.ones(spans, np.float32), np.full(spans, -0.5, np.float32)
    plane_sums(np.full(8 * spans, LARGEST, np.int16), one, half, out)
    total = 8 * spans * LARGEST
    assert out.tolist() == [total, total, -total / 2]


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 6), st.integers(0, 3), st.sampled_from([0, 1, 4013, LARGEST]))
def test_saturated_equals_naive(seed, particles, extra, limit):
    rng = np.random.default_rng(seed)
    shares, rows = 3, 3 + extra
    values, weights, first, pointer, group = _rows(rng, particles, rows, longest=12)
    values[rng.random(values.size) < 0.2] = limit
    out = rng.random(particles) < 0.5
    saturated(values, weights, first, pointer, group, rows, shares, limit, out)
    assert out.tolist() == naive_saturated(values, weights, first, pointer, group, rows, shares, limit)


@pytest.mark.parametrize(
    ("values", "mask", "expected"),
    [
        ([10, 4013, 10], [127, 127, 127], True),
        ([10, 4012, 10], [127, 127, 127], False),
        ([10, 4095, 10], [127, 63, 127], False),
        ([10, 4095, 10], [127, 64, 127], True),
        ([10, 4095, 4095], [127, 0, 64], True),
        ([LARGEST, 0, 0], [0, 127, 127], False),
    ],
)
def test_saturation_counts_only_where_most_of_the_pixel_is_the_particles(values, mask, expected):
    """The mask is the sum of the first two rows; the third may be as large as it likes."""
    half = [m // 2 for m in mask]
    weights = np.array([*half, *(m - h for m, h in zip(mask, half, strict=True)), 127, 127, 127], np.int8)
    first, pointer, group = np.zeros(3, np.int32), np.array([0, 3, 6, 9], np.int32), np.array([0, 3], np.int32)
    out = np.zeros(1, bool)
    saturated(np.array(values, np.int16), weights, first, pointer, group, 3, 2, 4013, out)
    assert out.tolist() == [expected]


def test_correlation_map_equals_naive_and_peaks_at_the_shift():
    rng = np.random.default_rng(4)
    width, reach = 40, 4
    image = rng.normal(1000, 50, (30, width)).astype(np.float32)
    y, x = np.mgrid[8:20, 8:30].reshape(2, -1)
    template = image[y, x] - image[y, x].mean()
    moved = np.roll(image, (2, -3), (0, 1)).reshape(-1)
    index = (y * width + x).astype(np.int32)
    out = np.empty((2 * reach + 1, 2 * reach + 1))
    correlation_map(moved, width, index, template.astype(np.float32), reach, out)
    np.testing.assert_allclose(out, naive_correlation(moved, width, index, template, reach), rtol=1e-3, atol=0.05)
    assert np.unravel_index(out.argmax(), out.shape) == (reach + 2, reach - 3)


def test_correlation_of_a_constant_frame_is_zero():
    out = np.full((3, 3), np.nan)
    index = np.array([22, 23], np.int32)
    correlation_map(np.full(100, 7, np.float32), 10, index, np.array([-1, 1], np.float32), 1, out)
    assert np.all(out == 0.0)
