import numpy as np

from daemon.photometry.activity import ACTIVE, DEAD, PARTIAL, Activity, binned_range, layer_gain, noise_range
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half, ramp

RATIO = np.full((20, 4), 2.0)


def electrode(swings: list[float], points: int = 400) -> np.ndarray:
    return ramp(points, 0.0, 1.0)[:, None] * np.array(swings)


def judge(*halves: np.ndarray, sigma: float = 1e-3, layers: np.ndarray | None = None) -> Activity:
    activity = Activity(halves[0].shape[1])
    for index, contrast in enumerate(halves):
        half = make_half(index, 1 - 2 * (index % 2), 3600.0 * index, 3600.0 * (index + 1))
        activity.add(make_curves(half, contrast, sigma, layers, seed=index), RATIO[: contrast.shape[1]])
    return activity


def test_nothing_is_judged_before_a_half_ended() -> None:
    activity = Activity(3)
    assert not activity.judged
    assert (activity.states == ACTIVE).all()


def test_a_swing_of_three_percent_is_active_and_none_is_dead() -> None:
    charge = electrode([0.2] * 8 + [0.03] * 4 + [0.0] * 8)
    states = judge(charge, charge[::-1]).states
    assert (states[:12] == ACTIVE).all()
    assert (states[12:] == DEAD).all()


def test_slow_drift_of_a_dead_particle_is_not_life() -> None:
    charge = electrode([0.2] * 8 + [0.004])
    assert judge(charge, sigma=1e-4).states[8] == DEAD


def test_dead_needs_the_whole_cycle() -> None:
    charge, discharge = electrode([0.2] * 8 + [0.0]), electrode([0.2] * 9)[::-1]
    assert judge(charge).states[8] == DEAD
    assert judge(charge, discharge).states[8] == ACTIVE


def test_a_still_ensemble_tells_nothing() -> None:
    assert not judge(electrode([0.0] * 9)).judged


def test_a_particle_out_of_sight_keeps_its_state() -> None:
    charge = electrode([0.2] * 9)
    charge[:, 8] = np.nan
    assert judge(charge).states[8] == ACTIVE


def test_a_layer_that_stays_behind_makes_partial() -> None:
    charge = electrode([0.2] * 9)
    layers = np.repeat(charge[:, :, None], 4, axis=2)
    layers[:, 8, 3] = 0.0
    states = judge(charge, layers=layers).states
    assert states[8] == PARTIAL
    assert (states[:8] == ACTIVE).all()


def test_noise_alone_seldom_reaches_its_range() -> None:
    noise = np.random.default_rng(0).normal(0.0, 1.0, (200, 2000))
    above = binned_range(noise) > noise_range(np.ones(2000), 200)
    assert above.mean() < 0.01
    assert np.median(binned_range(noise)) > 0.4 * noise_range(np.ones(1), 200)[0]


def test_ranges_of_few_points_and_of_nothing() -> None:
    assert binned_range(np.array([[0.0, np.nan], [2.0, np.nan]]))[0] == 2.0
    assert np.isnan(binned_range(np.full((5, 1), np.nan))).all()


def test_a_dead_particle_that_drifts_is_dead_after_a_whole_cycle() -> None:
    charge = electrode([0.2] * 8 + [0.0])
    drift = np.linspace(0.0, 0.03, 400)
    charge[:, 8] = drift
    discharge = electrode([0.2] * 9)[::-1].copy()
    discharge[:, 8] = 0.03 + drift
    assert judge(charge).states[8] == ACTIVE
    assert judge(charge, discharge).states[8] == DEAD


def test_three_percent_live_beside_ninety() -> None:
    charge = electrode([0.9] * 8 + [0.03])
    assert judge(charge, charge[::-1]).states[8] == ACTIVE


def test_a_layer_s_gain_is_its_share_of_the_particle_s_swing() -> None:
    charge = electrode([0.1] * 3)
    layers = np.repeat(charge[:, :, None], 4, axis=2) * np.array([1.2, 1.0, 1.0, 0.1])
    layers += np.random.default_rng(0).normal(0, 2e-3, layers.shape)
    gain, sigma = layer_gain(make_curves(make_half(), charge, 1e-3, layers), np.full((3, 4), 2e-3))
    assert np.abs(gain - np.array([1.2, 1.0, 1.0, 0.1])).max() < 4 * sigma.max()
    assert sigma.max() < 0.01
