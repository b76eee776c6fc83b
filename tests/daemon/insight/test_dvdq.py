from __future__ import annotations

import numpy as np
import pytest

from daemon.insight.dvdq import LEAST_STEPS, MIN_SAMPLES, STIFFNESS, VoltageGrid, by_potential, suited_step_v

PEAK_V, WIDTH_V = 3.72, 0.03


def charge(volts, centre=PEAK_V):
    """Charge of a transition at one potential over a slope."""
    return 1.0 / (1.0 + np.exp(-(volts - centre) / WIDTH_V)) + 0.3 * (volts - 3.5)


def slope(volts, centre=PEAK_V):
    share = 1.0 / (1.0 + np.exp(-(volts - centre) / WIDTH_V))
    return share * (1.0 - share) / WIDTH_V + 0.3


@pytest.fixture
def volts():
    return np.linspace(3.5, 4.0, 900)


def test_the_derivative_of_a_smooth_curve_with_noise(volts):
    noise = 0.002
    y = charge(volts) + np.random.default_rng(5).normal(0, noise, len(volts))
    grid = VoltageGrid(volts)
    found = grid.differentiate(y, grid.stiffness(y), np.array(noise))
    inner = slice(4, -4)
    error = (found.slope - slope(found.voltage_v))[inner]
    plain = np.gradient(y, volts)
    assert np.sqrt(np.mean(error**2)) < 0.25
    assert np.sqrt(np.mean((plain - slope(volts)) ** 2)) > 10 * np.sqrt(np.mean(error**2))
    assert abs(found.peak_v - PEAK_V) < 0.006


def test_its_sigma_is_the_scatter_of_repeated_noise(volts):
    rng = np.random.default_rng(6)
    grid = VoltageGrid(volts)
    many = charge(volts)[:, None] + rng.normal(0, 0.01, (len(volts), 300))
    found = grid.differentiate(many, 10.0, np.full(300, 0.01))
    np.testing.assert_allclose(found.slope.std(axis=1), found.sigma[:, 0], rtol=0.25)


def test_series_share_the_grid_and_their_shift_is_told(volts):
    shifts = np.array([-0.02, 0.0, 0.05])
    y = np.stack([charge(volts, PEAK_V + shift) for shift in shifts], axis=1)
    grid = VoltageGrid(volts)
    peaks = grid.differentiate(y, 1.0, np.full(3, 1e-4)).peak_v
    np.testing.assert_allclose(peaks, PEAK_V + shifts, atol=0.004)


def test_a_discharge_gives_the_same_as_its_mirror(volts):
    grid, back = VoltageGrid(volts), VoltageGrid(volts[::-1])
    np.testing.assert_allclose(
        grid.differentiate(charge(volts), 1.0).slope, back.differentiate(charge(volts)[::-1], 1.0).slope, rtol=1e-6
    )


def test_noise_alone_has_no_peak(volts):
    grid = VoltageGrid(volts)
    flat = np.random.default_rng(7).normal(0, 0.01, (len(volts), 20))
    assert np.isnan(grid.differentiate(flat, 10.0, np.full(20, 0.01)).peak_v).all()


def test_gaps_leave_that_series_unknown_only(volts):
    y = np.stack([charge(volts)] * 2, axis=1)
    y[100, 0] = np.nan
    volts[200] = np.nan
    found = VoltageGrid(volts).differentiate(y, 1.0)
    assert np.isnan(found.slope[:, 0]).all() and np.isfinite(found.slope[:, 1]).all()
    assert np.isnan(found.peak_v[0]) and np.isfinite(found.peak_v[1])


def test_potentials_no_sample_had_are_bridged_not_torn():
    volts = np.concatenate([np.linspace(3.5, 3.6, 100), np.linspace(3.8, 3.9, 100)])
    found = VoltageGrid(volts).differentiate(2.0 * volts, 1.0)
    np.testing.assert_allclose(found.slope, 2.0, rtol=1e-3)


@pytest.mark.parametrize("volts", [np.full(200, 3.7), np.linspace(3.5, 4.0, MIN_SAMPLES - 1), np.full(50, np.nan)])
def test_too_little_to_differentiate_is_said(volts):
    with pytest.raises(ValueError, match=r"samples|moved"):
        VoltageGrid(volts)


def test_the_stiffness_is_that_of_cross_validation(volts):
    """The same as leaving every sample out in turn, its leverage taken as their mean."""
    rng, grid = np.random.default_rng(8), VoltageGrid(volts, 0.01)
    several = charge(volts)[:, None] + rng.normal(0, [1e-4, 0.01, 0.1], (len(volts), 3))
    scores = []
    for stiffness in STIFFNESS:
        fitted = np.linalg.solve(grid._normal + stiffness * grid._penalty, grid._basis.T)
        hat = grid._basis @ fitted
        scores.append(((several - hat @ several) ** 2).sum(axis=0) / (len(volts) - np.trace(hat)) ** 2)
    np.testing.assert_allclose(grid.stiffness(several), STIFFNESS[np.argmin(scores, axis=0)])
    assert (np.diff(grid.stiffness(several)) > 0).all(), "the more noise, the stiffer"


def test_the_shared_stiffness_resolves_no_less_than_some_steps_of_the_grid(volts):
    grid = VoltageGrid(volts)
    stiffness = grid.shared_stiffness(charge(volts), charge(volts)[:, None])
    assert LEAST_STEPS * grid.step_v <= grid.resolution_v(stiffness) < 3 * LEAST_STEPS * grid.step_v
    assert grid.resolution_v(1e4) > 2 * grid.resolution_v(stiffness)


@pytest.mark.parametrize("turned", [False, True])
def test_in_order_of_potential_a_turning_record_is_a_function_of_it(turned):
    """A plateau that dips first: passed charge over potential is never negative, and all of it is there."""
    t = np.linspace(0, 1, 2001)
    volts = 3.4 + 0.02 * t - 0.02 * np.exp(-(((t - 0.3) / 0.1) ** 2))
    volts = 6.8 - volts if turned else volts
    ordered, passed = by_potential(volts, t)
    assert (np.diff(ordered) >= 0).all() and (np.diff(passed) >= 0).all()
    assert passed[-1] == pytest.approx(1.0)
    middle = np.median((volts[1:] + volts[:-1]) / 2)
    assert np.interp(middle, ordered, passed) == pytest.approx(0.5, abs=0.01)


def test_unknown_potentials_and_values_lose_only_their_own_steps():
    volts, series = np.linspace(3.0, 4.0, 101), np.stack([np.linspace(0, 1, 101)] * 2, axis=1)
    volts[50], series[20, 1] = np.nan, np.nan
    ordered, summed = by_potential(volts, series)
    assert np.isnan(ordered[-2:]).all() and np.isfinite(ordered[:-2]).all()
    np.testing.assert_allclose(summed[-3], [0.98, 0.96])


def test_a_plateau_gets_a_finer_grid():
    slope_v, plateau_v = np.linspace(3.0, 4.0, 500), np.linspace(3.44, 3.45, 500)
    passed = np.linspace(0, 1, 500)
    assert suited_step_v(slope_v, passed) == pytest.approx(0.005)
    assert suited_step_v(plateau_v, passed) == pytest.approx(0.001)
    assert suited_step_v(plateau_v, np.zeros(500)) == pytest.approx(0.005)
