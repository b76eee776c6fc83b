import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.drift import shifted, solve_scene, solve_shift
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


def _scene(rng):
    """Functionals of a scene and what a shift takes from them: the template falls with the shift squared."""
    series = np.zeros((4, 9))
    series[:2] = _series(rng) * np.array([1, 1, *[0.3] * 7])
    series[2] = rng.normal(0, 0.1, 9)
    series[3, 2:5] = 0.2, 0.05, 0.2
    return series


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.floats(-0.6, 0.6), st.floats(-0.6, 0.6), st.floats(0.5, 2.0), st.floats(-0.3, 0.3)
)  # fmt: skip
def test_a_scene_gives_shift_brightness_and_blur_back(seed, y, x, brightness, gained):
    series = _scene(np.random.default_rng(seed))
    taken = naive_series(series, y, x)
    found = brightness * np.array([-taken[0], -taken[1], gained - taken[2], 1.0 - taken[3]])
    out = np.empty(4)
    assert solve_scene(found, series, 1.0, 0.3, out)
    np.testing.assert_allclose(out, [y, x, brightness, gained], atol=1e-4)


def test_a_row_of_the_series_is_what_the_naive_one_says():
    series = np.random.default_rng(8).normal(0, 1, (4, 9))
    found = [shifted(series, k, 0.4, -0.7) for k in range(4)]
    np.testing.assert_allclose(found, naive_series(series, 0.4, -0.7), rtol=1e-12)


def test_a_scene_without_a_template_or_a_solution_says_so():
    out = np.empty(4)
    assert not solve_scene(np.ones(4), np.eye(4, 9), 0.0, 0.3, out)
    assert not solve_scene(np.array([1e6, 0, 0, 1.0]), np.eye(4, 9), 1.0, 0.3, out)
    assert not solve_scene(np.full(4, np.nan), np.eye(4, 9), 1.0, 0.3, out)
