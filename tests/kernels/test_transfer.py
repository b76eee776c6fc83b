import numpy as np
import pytest

from kernels.transfer import respond
from tests.kernels.naive_transfer import naive_respond


def summed(frames, common):
    by_step, by_level = np.zeros((2, frames.shape[1]), np.float32)
    for n, frame in enumerate(frames):
        before = max(n - 1, 0)
        step, level = common[n] - common[before], common[n] - common[0]
        respond(frame, frames[before], step, level, common[0], by_step, by_level)
    return by_step, by_level


@pytest.mark.parametrize("size", [0, 1, 7, 1001])
def test_it_equals_its_naive_twin(size):
    rng = np.random.default_rng(size)
    frames = rng.normal(800, 10, (20, size)).astype(np.float32)
    common = rng.normal(800, 5, 20)
    for got, want in zip(summed(frames, common), naive_respond(frames, common), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=0.5)


def test_a_nan_stays_in_its_pixel():
    frames = np.full((3, 5), 100, np.float32)
    frames[1, 2] = np.nan
    for sums in summed(frames, np.array([100.0, 103.0, 101.0])):
        assert np.isnan(sums).tolist() == [False, False, True, False, False]
