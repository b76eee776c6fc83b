import numpy as np
import pytest

from kernels.calibrate import accumulate
from tests.kernels.naive_photometry import naive_accumulate


@pytest.mark.parametrize("size", [0, 1, 33])
def test_accumulate_equals_naive_and_leaves_the_frame_as_previous(size):
    rng = np.random.default_rng(0)
    frame, previous = rng.normal(100, 5, (2, size)).astype(np.float32)
    total, square = rng.normal(0, 1, (2, size)).astype(np.float32)
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
