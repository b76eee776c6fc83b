import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.drift import solve_shift
from tests.kernels.naive_photometry import naive_series


def _series(rng):
    series = rng.normal(0, 0.05, (2, 9))
    series[:, :2] += np.eye(2)
    return series


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-0.8, 0.8), st.floats(-0.8, 0.8))
def test_the_solution_reproduces_the_value(seed, y, x):
    series = _series(np.random.default_rng(seed))
    value = naive_series(series, y, x)
    out = np.empty(2)
    if solve_shift(series, value, out):
        np.testing.assert_allclose(naive_series(series, *out), value, atol=1e-6)
        assert np.abs(out).max() < 2.0


def test_a_gentle_series_gives_the_shift_back():
    rng = np.random.default_rng(3)
    for _ in range(50):
        series = _series(rng) * np.array([1, 1, *[0.3] * 7])
        shift = rng.uniform(-0.8, 0.8, 2)
        out = np.empty(2)
        assert solve_shift(series, naive_series(series, *shift), out)
        np.testing.assert_allclose(out, shift, atol=1e-6)


def test_hopeless_cases_say_so():
    out = np.empty(2)
    for series, value in (
        (np.zeros((2, 9)), np.ones(2)),
        (np.eye(2, 9), np.full(2, 1e6)),
        (np.full((2, 9), np.nan), np.zeros(2)),
        (np.eye(2, 9), np.full(2, np.nan)),
    ):
        assert not solve_shift(series, value, out)
        assert np.isnan(out).all()
