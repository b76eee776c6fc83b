import numpy as np
import pytest

from daemon.photometry.slices import completed
from daemon.photometry.soc import Calibrator, Window, phase_spread
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half


def test_phase_spread_tells_a_mosaic_from_particles_alike() -> None:
    low, high, dead = np.zeros(20), np.full(20, 0.2), np.zeros(20, bool)
    mosaic = np.repeat([0.0, 0.2], 10)
    alike = np.linspace(0.08, 0.12, 20)
    sigma = np.full(20, 1e-3)
    assert phase_spread(mosaic, sigma, low, high, dead) == pytest.approx(1.0)
    assert phase_spread(alike, sigma, low, high, dead) < 0.15
    alike[:3] = -0.3
    assert phase_spread(alike, sigma, low, high, dead) < 0.2
    assert np.isnan(phase_spread(mosaic[:5], sigma[:5], low[:5], high[:5], dead[:5]))
    assert np.isnan(phase_spread(np.full(20, 0.19), sigma, low, high, dead))


def test_window_is_the_first_full_half_and_grows_only_with_a_larger_one() -> None:
    calibrator = Calibrator(1, 1.0)
    contrast = np.linspace(0, 0.2, 100)[:, None]
    calibrator.add(make_curves(make_half(0, 1, end_s=180.0), contrast))
    assert calibrator.window is None
    calibrator.add(make_curves(make_half(1, 1, start_mah=0.06), contrast))
    # charge that flowed before the half's first sample is the half's
    assert calibrator.window == Window(pytest.approx(0.05), pytest.approx(1.06))
    calibrator.add(make_curves(make_half(2, -1, start_mah=1.06, end_s=3700.0), contrast))
    assert calibrator.window.capacity_mah == pytest.approx(1.01)
    calibrator.add(make_curves(make_half(3, 1, start_mah=0.03, end_s=4400.0), contrast))
    assert calibrator.window.capacity_mah == pytest.approx(4400 / 3600, abs=3e-3)


def test_only_slow_halves_are_believed_throughout() -> None:
    contrast = 0.2 * np.linspace(0, 1, 320)[:, None]
    kinds = {}
    for name, hours in (("fast", 1.0), ("slow", 20.0)):
        calibrator = Calibrator(1, 1.0)
        calibrator.add(make_curves(make_half(end_s=3600.0 * hours, current_ma=1.0 / hours), contrast, 1e-4))
        kinds[name] = completed(calibrator.rows(np.array([1]), np.zeros(1, bool), np.ones((1, 4))))[0]
    assert kinds["slow"]["kind"] == "monotone"
    assert kinds["fast"]["kind"] == "end_members"
    assert np.isnan(kinds["fast"]["soc_sigma"])


def test_before_a_window_there_is_none_and_dead_stay_none() -> None:
    calibrator = Calibrator(2, 1.0)
    ratio = np.ones((2, 4))
    assert {row["kind"] for row in completed(calibrator.rows(np.arange(2), np.zeros(2, bool), ratio))} == {"none"}
    calibrator.add(make_curves(make_half(), 0.2 * np.linspace(0, 1, 100)[:, None] * np.ones(2), 1e-4))
    rows = completed(calibrator.rows(np.arange(2), np.array([True, False]), ratio))
    assert [row["kind"] for row in rows] == ["none", "end_members"]
