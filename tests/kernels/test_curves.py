import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kernels.curves import invert, turn_back
from tests.kernels.naive_curves import naive_invert, naive_turns_back

AXIS = np.linspace(0.0, 1.0, 33)


def turned(mean: np.ndarray, sigma: np.ndarray, first: int = 0, last: int = -1) -> bool:
    last = last % len(mean)
    return bool(turn_back(mean[None], sigma[None], np.array([first]), np.array([last]), 0.02, 4.0)[0])


def responses(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rising, falling, wiggling and level ones."""
    rng = np.random.default_rng(seed)
    slope = rng.normal(0, 0.1, (40, 1))
    wiggle = rng.uniform(0, 0.05, (40, 1)) * np.sin(rng.uniform(1, 12, (40, 1)) * AXIS)
    mean = np.where(np.arange(40)[:, None] == 7, 0.1, slope * AXIS + wiggle + rng.normal(0, 1e-3, (40, 33)))
    return mean, rng.uniform(1e-4, 5e-3, (40, 33))


@pytest.mark.parametrize("seed", range(5))
def test_inverses_equal_their_naive_twin(seed: int) -> None:
    mean, sigma = responses(seed)
    found = invert(mean, sigma, AXIS, 17)
    for s in range(len(mean)):
        if s == 7:
            continue  # level: any place will do
        for got, want in zip(found, naive_invert(mean[s], sigma[s], AXIS, 17), strict=True):
            np.testing.assert_allclose(got[s], want, atol=2e-6)


@pytest.mark.parametrize("seed", range(5))
def test_turns_equal_their_naive_twin(seed: int) -> None:
    mean, sigma = responses(seed)
    want = [naive_turns_back(one, own, 0.02, 4.0) for one, own in zip(mean, sigma, strict=True)]
    places = np.zeros(len(mean), int)
    assert turn_back(mean, sigma, places, places + 32, 0.02, 4.0).tolist() == want
    assert any(want) and not all(want)


def test_a_turn_within_the_uncertainty_is_no_fold() -> None:
    mean = np.minimum(np.linspace(0, 1, 50), 0.9)
    mean[-5:] -= 0.03
    assert turned(mean, np.full(50, 1e-3))
    assert not turned(mean, np.full(50, 1e-2))
    assert not turned(np.zeros(50), np.zeros(50))


def test_only_the_samples_between_first_and_last_are_looked_at() -> None:
    mean = np.abs(AXIS - 0.5)
    assert turned(mean, np.full(33, 1e-3))
    assert not turned(mean, np.full(33, 1e-3), 16)
    assert not turned(mean, np.full(33, 1e-3), 0, 16)


def test_a_straight_response_is_inverted_exactly_and_its_deviation_is_over_the_slope() -> None:
    contrast, place, width = invert(np.array([0.2 * AXIS, -0.2 * AXIS]), np.full((2, 33), 1e-3), AXIS, 9)
    np.testing.assert_allclose(contrast[0], np.linspace(0, 0.2, 9), atol=1e-6)
    np.testing.assert_allclose(place, [np.linspace(0, 1, 9), np.linspace(1, 0, 9)], atol=1e-5)
    np.testing.assert_allclose(width[:, 1:-1], 5e-3, atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(arrays(float, (1, 33), elements=st.floats(-1e3, 1e3)))
def test_any_response_gives_contrasts_that_do_not_fall_and_places_within(mean: np.ndarray) -> None:
    contrast, place, width = invert(mean, np.full((1, 33), 0.1), AXIS, 17)
    assert (np.diff(contrast) >= 0).all()
    assert ((place >= 0) & (place <= 1) & (width >= 0) & (width <= 1)).all()
