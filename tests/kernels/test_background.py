import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.background import LEVEL, MEMORY, MEMORY_LEAST, STATES, STRUCK, VARIANCE, follow_background
from tests.kernels.naive_photometry import naive_follow

MOST = 2000.0


def _follow(levels, sigma=1.0, most=MOST, state=None):
    """States (N, P, STATES) after each of (N, P) levels."""
    frames, particles = levels.shape
    state = np.zeros((particles, STATES)) if state is None else state
    states = np.empty((frames, particles, STATES))
    for i in range(frames):
        follow_background(levels[i], np.full(particles, sigma**2), np.ones(particles, bool), most, state)
        states[i] = state
    return states


def _settled(frames=300, particles=200, seed=0):
    """State after white noise of sigma 1 about 100."""
    noise = np.random.default_rng(seed).normal(100.0, 1.0, (frames, particles))
    return _follow(noise)[-1].copy()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.sampled_from([1.0, 5.0, 20.0, MOST]), st.booleans())
def test_every_frame_equals_naive(seed, particles, most, knows):
    """Noise, steps, ramps, outliers, frames that tell nothing: whatever comes."""
    rng = np.random.default_rng(seed)
    frames = 60
    levels = rng.normal(0.0, 1.0, (frames, particles)).cumsum(axis=0) * rng.choice([0.0, 0.3, 3.0])
    levels += rng.normal(50.0, 2.0, levels.shape) + 20.0 * (np.arange(frames) > 40)[:, None]
    levels[rng.random(levels.shape) < 0.05] += 1e5
    levels[rng.random(levels.shape) < 0.05] = rng.choice([np.nan, np.inf, -np.inf])
    variance = rng.uniform(0.5, 8.0, levels.shape)
    variance[rng.random(levels.shape) < 0.05] = rng.choice([0.0, -1.0, np.nan])
    usable = rng.random(levels.shape) < 0.9
    state = np.zeros((particles, STATES))
    if knows:
        state[:, LEVEL], state[:, VARIANCE], state[:, MEMORY] = 50.0, 0.1, min(most, 30.0)
    want = [tuple(row) for row in state]
    for i in range(frames):
        follow_background(levels[i], variance[i], usable[i], most, state)
        want = [
            naive_follow(float(levels[i, p]), float(variance[i, p]), bool(usable[i, p]), most, want[p])
            for p in range(particles)
        ]
        np.testing.assert_allclose(state, np.array(want).reshape(particles, STATES), rtol=1e-9, atol=1e-9)


def test_a_growing_mean_is_the_plain_mean_of_all_frames():
    levels = np.random.default_rng(1).normal(100.0, 0.1, (300, 20))
    states = _follow(levels)
    for frames in (1, 2, 8, 9, 50, 300):
        np.testing.assert_allclose(states[frames - 1, :, LEVEL], levels[:frames].mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(states[frames - 1, :, VARIANCE], 1.0 / frames, rtol=1e-12)
        assert (states[frames - 1, :, MEMORY] == frames).all()


def test_what_the_reference_knew_counts_as_its_frames():
    state = np.zeros((1, STATES))
    state[0, [LEVEL, VARIANCE, MEMORY]] = 100.0, 1.0 / 50, 50.0
    levels = np.random.default_rng(2).normal(100.0, 0.1, (50, 1))
    level, variance = _follow(levels, state=state)[-1, 0, [LEVEL, VARIANCE]]
    assert level == pytest.approx((100.0 + levels.mean()) / 2)
    assert variance == pytest.approx(1.0 / 100)


def test_memory_is_bounded_and_then_forgets():
    states = _follow(np.random.default_rng(3).normal(100.0, 0.1, (400, 20)), most=50.0)
    assert states[:, :, MEMORY].max() == 50.0
    # an exponential mean of share 1/51 keeps the variance 1 / (2 * 51 - 1) of a frame's
    np.testing.assert_allclose(states[-1, :, VARIANCE], 1.0 / 101, rtol=1e-3)


@pytest.mark.parametrize(("frames", "most"), [(5, MOST), (200, MOST), (1000, MOST), (600, 50.0)])
def test_the_variance_is_honest_for_white_noise(frames, most):
    noise = np.random.default_rng(frames).normal(100.0, 3.0, (frames, 2000))
    state = _follow(noise, sigma=3.0, most=most)[-1]
    scatter = np.mean((state[:, LEVEL] - 100.0) ** 2)
    assert scatter / state[:, VARIANCE].mean() == pytest.approx(1.0, abs=0.12)  # 2000 of them tell it to 3 %
    assert state[:, VARIANCE].mean() < 1.1 * 9.0 / min(frames, 101)  # and little is forgotten by mistake


@pytest.mark.parametrize(("step", "within"), [(2.0, 80), (4.0, 60), (7.0, 45), (20.0, 3), (-1e6, 3)])
def test_a_step_is_followed_within_some_frames(step, within):
    state = _settled()
    levels = np.random.default_rng(4).normal(100.0 + step, 1.0, (within + 20, 200))
    after = _follow(levels, state=state)[within - 1 :, :, LEVEL] - (100.0 + step)
    assert np.abs(after).max() < 0.25 * abs(step) + 1.0


@pytest.mark.parametrize("size", [5.0, -10.0, 1e6])
def test_a_single_outlier_barely_moves_the_level(size):
    state = _settled()
    before = state.copy()
    _follow(np.full((1, 200), 100.0 + size), state=state)
    moved = np.abs(state[:, LEVEL] - before[:, LEVEL])
    assert moved.max() < 8.0 / 300  # what a few sigma weigh among 300 frames
    back = _follow(np.random.default_rng(5).normal(100.0, 1.0, (1, 200)), state=state)[-1]
    assert (back[:, STRUCK] == 0).all()


def test_outliers_that_are_not_in_a_row_are_no_step():
    levels = np.random.default_rng(6).normal(100.0, 1.0, (90, 200))
    levels[::3] = 1e4
    levels[1::3] = -1e4
    after = _follow(levels, state=_settled())[-1, :, LEVEL]
    assert np.abs(after - 100.0).max() < 2.0


@pytest.mark.parametrize(
    ("level", "variance", "usable"),
    [
        (np.nan, 1.0, True), (np.inf, 1.0, True), (-np.inf, 1.0, True), (90.0, 0.0, True), (90.0, -1.0, True),
        (90.0, np.nan, True), (90.0, 1.0, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("knows", [False, True])
def test_what_tells_nothing_leaves_the_state_alone(level, variance, usable, knows):
    state = _settled(particles=2) if knows else np.zeros((2, STATES))
    before = state.copy()
    follow_background(np.array([level, 100.0]), np.array([variance, 1.0]), np.array([usable, True]), MOST, state)
    np.testing.assert_array_equal(state[0], before[0])
    assert (state[1] != before[1]).any()


@pytest.mark.parametrize("slope", [0.001, 0.003, 0.01, 0.03])
def test_a_slow_ramp_is_followed_closer_than_one_frame_tells(slope):
    """In sigmas of a frame a frame. The lag is what the test for a lag cannot see: some of the level's own sigmas."""
    truth = 100.0 + slope * np.arange(1200)[:, None]
    states = _follow(truth + np.random.default_rng(7).normal(0.0, 1.0, (1200, 200)))[300:]
    error = states[:, :, LEVEL] - truth[300:]
    assert np.sqrt(np.mean(error**2)) < 1.0
    assert np.sqrt(np.mean(error**2 / states[:, :, VARIANCE])) < 6.5
    assert states[:, :, MEMORY].min() >= MEMORY_LEAST


def test_no_particles_at_all():
    follow_background(np.empty(0), np.empty(0), np.empty(0, bool), MOST, np.empty((0, STATES)))
