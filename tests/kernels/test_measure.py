import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.measure import layer_sums, ring_means
from tests.kernels.naive_photometry import naive_layer_sums, naive_ring_means


def _entries(rng, segments, rows, pixels=4000, longest=90):
    lengths = rng.integers(0, longest, segments)
    pointer = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    index = rng.integers(20, pixels - 20, pointer[-1]).astype(np.int32)
    weights = rng.normal(0, 1, (rows, pointer[-1])).astype(np.float32)
    weights[0] = rng.uniform(0, 1, pointer[-1])
    return index, weights, pointer


def _nothing(segments):
    return np.empty(0, np.int32), np.empty((2, 0), np.float32), np.zeros(segments + 1, np.int32)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.floats(-0.7, 0.7), st.floats(-0.7, 0.7))
def test_layer_sums_equal_naive(seed, segments, dy_px, dx_px):
    rng = np.random.default_rng(seed)
    frame = rng.uniform(-200, 30_000, 4000).astype(np.float32)
    rim, inner = _entries(rng, segments, 5), _entries(rng, segments, 2)
    valid = rng.random(segments) < 0.8
    out = np.empty((segments, 5))
    layer_sums(frame, *rim, *inner, 3, dy_px, dx_px, 25_000.0, valid, out)
    want = naive_layer_sums(frame, rim, inner, 3, np.float32(dy_px), np.float32(dx_px), 25_000.0, valid)
    np.testing.assert_allclose(out[:, :4], want[:, :4], rtol=2e-4, atol=30.0)
    # a pixel whose weight is one half to the last bit may fall on either side
    np.testing.assert_allclose(out[:, 4], want[:, 4], atol=1.0)


def test_bending_the_mask_by_its_gradient_follows_a_moving_scene():
    """A mask edge on a slope: moved by a third of a pixel, the flux keeps its value ten times better."""
    y, x = np.mgrid[0:41, 0:41].astype(float)

    def blob(dy, dx):
        return 1e4 * np.exp(-((y - 16 - dy) ** 2 + (x - 20 - dx) ** 2) / (2 * 4.0**2))

    edge = np.clip((12 - np.hypot(y - 20, x - 20)) / 4, 0, 1)
    mask = edge * edge * (3 - 2 * edge)
    zero = np.zeros_like(mask)
    weights = np.stack([mask, *np.gradient(mask), zero, zero]).reshape(5, -1).astype(np.float32)
    index, pointer = np.arange(mask.size, dtype=np.int32), np.array([0, mask.size], np.int32)

    def flux(scene, bend):
        out = np.empty((1, 5))
        frame = blob(*scene).astype(np.float32).reshape(-1)
        layer_sums(frame, index, weights, pointer, *_nothing(1), 0, *bend, 1e9, np.ones(1, bool), out)
        return out[0, 0]

    still = flux((0.0, 0.0), (0.0, 0.0))
    for shift in [(0.33, 0.0), (-0.33, 0.1)]:
        assert abs(flux(shift, shift) / still - 1) < 0.1 * abs(flux(shift, (0.0, 0.0)) / still - 1)


def test_saturated_pixels_are_counted_only_under_the_mask():
    frame = np.array([10, 99, 99, 10, 99], np.float32)
    weights = np.zeros((5, 4), np.float32)
    weights[0] = [1, 1, 0.2, 1]
    rim = np.arange(4, dtype=np.int32), weights, np.array([0, 4], np.int32)
    inner = np.array([4], np.int32), np.zeros((2, 1), np.float32), np.array([0, 1], np.int32)
    out = np.empty((1, 5))
    layer_sums(frame, *rim, *inner, 0, 0, 0, 90.0, np.ones(1, bool), out)
    assert out[0, 4] == 2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_ring_means_equal_naive(seed, rings):
    rng = np.random.default_rng(seed)
    frame = rng.uniform(0, 8000, 4000).astype(np.float32)
    index, _, pointer = _entries(rng, rings, 1)
    valid = rng.random(rings) < 0.8
    out = np.empty(rings)
    ring_means(frame, index, pointer, -5, valid, out)
    np.testing.assert_allclose(out, naive_ring_means(frame, index, pointer, -5, valid), rtol=1e-5)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_bad_pixel_spoils_only_its_own_particle(poison):
    frame = np.ones(20, np.float32)
    frame[2] = poison
    pointer = np.array([0, 5, 10], np.int32)
    out = np.empty(2)
    ring_means(frame, np.arange(10, dtype=np.int32), pointer, 0, np.ones(2, bool), out)
    assert not np.isfinite(out[0])
    assert out[1] == 1.0
