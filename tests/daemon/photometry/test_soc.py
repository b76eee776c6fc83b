import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from daemon.photometry.soc import Calibrator, Window, end_members, monotone, phase_spread
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half

FRACTIONS = np.linspace(0.0, 1.0, 13)
SIGMA = np.full(13, 1e-4)
NAN = float("nan")


def read(row: dict, contrast: float) -> float:
    return float(np.interp(contrast, row["contrast_knots"], row["soc_knots"]))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_monotone_curve_inverts_a_bent_response(sign: float) -> None:
    row = monotone(FRACTIONS, sign * 0.2 * FRACTIONS**1.5, SIGMA)
    assert row is not None
    assert row["kind"] == "monotone"
    assert np.all(np.diff(row["contrast_knots"]) > 0)
    for fraction in (0.1, 0.33, 0.5, 0.8):
        assert read(row, sign * 0.2 * fraction**1.5) == pytest.approx(fraction, abs=0.012)
    assert row["soc_sigma"] < 0.02


def test_scattered_anchors_widen_the_curve() -> None:
    rng = np.random.default_rng(2)
    f = np.linspace(0, 1, 40)
    row = monotone(f, 0.2 * (f + rng.normal(0, 0.03, 40)), np.full(40, 1e-4))
    assert row is not None
    assert 0.01 < row["soc_sigma"] < 0.06


def test_no_monotone_curve_is_forced_through_a_response_that_turns_back() -> None:
    assert monotone(FRACTIONS, 0.2 * np.sin(np.pi * 1.2 * FRACTIONS), SIGMA) is None


def test_anchors_that_disagree_between_charge_and_discharge_give_no_curve() -> None:
    f = np.r_[FRACTIONS, FRACTIONS]
    late = np.r_[0.2 * np.clip(FRACTIONS - 0.25, 0, 1), 0.2 * FRACTIONS]
    assert monotone(f, late, np.full(26, 1e-4)) is None


def test_a_wiggle_within_noise_is_smoothed() -> None:
    row = monotone(FRACTIONS, 0.2 * FRACTIONS + 0.004 * np.sin(20 * FRACTIONS), np.full(13, 3e-3))
    assert row is not None
    assert row["kind"] == "monotone"


@pytest.mark.parametrize(
    "fractions",
    [[0.0, 0.5, 1.0], [0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 0.02, 0.04, 0.5, 0.9, 0.95, 1.0], []],
    ids=["few", "end missing", "gap", "none"],
)
def test_anchors_that_do_not_span_give_no_curve(fractions: list[float]) -> None:
    f = np.array(fractions)
    assert monotone(f, 0.2 * f, np.full(len(f), 1e-4)) is None


def test_a_swing_within_noise_gives_none() -> None:
    row = monotone(FRACTIONS, np.zeros(13), SIGMA)
    assert row is not None
    assert row["kind"] == "none"


@given(
    f=arrays(float, 20, elements=st.floats(0, 1)),
    c=arrays(float, 20, elements=st.floats(-10, 10) | st.just(NAN)),
)
def test_any_anchors_give_rising_knots_or_none(f: np.ndarray, c: np.ndarray) -> None:
    row = monotone(f, c, np.full(20, 1e-3))
    if row is not None and row["kind"] == "monotone":
        assert np.all(np.diff(row["contrast_knots"]) > 0)
        assert np.isfinite(row["soc_knots"]).all()
        assert np.isfinite(row["soc_sigma"])


def test_end_members_need_a_span_beyond_noise() -> None:
    assert end_members(0.0, 0.2, 1e-3, NAN)["contrast_knots"] == [0.0, 0.2]
    assert end_members(0.0, -0.2, 1e-3, NAN)["soc_knots"] == [1.0, 0.0]
    assert end_members(0.0, 0.004, 1e-3, NAN)["kind"] == "none"
    assert end_members(NAN, 0.2, 1e-3, NAN)["kind"] == "none"


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
    calibrator.add(make_curves(make_half(1, 1), contrast))
    assert calibrator.window == Window(pytest.approx(0.0), pytest.approx(1.0))
    calibrator.add(make_curves(make_half(2, -1, start_mah=1.02, end_s=3700.0), contrast))
    assert calibrator.window.capacity_mah == pytest.approx(1.0)
    calibrator.add(make_curves(make_half(3, -1, start_mah=1.2, end_s=4400.0), contrast))
    assert calibrator.window.capacity_mah == pytest.approx(4400 / 3600)


def test_only_slow_halves_are_believed_throughout() -> None:
    contrast = 0.2 * np.linspace(0, 1, 320)[:, None]
    kinds = {}
    for name, hours in (("fast", 1.0), ("slow", 20.0)):
        calibrator = Calibrator(1, 1.0)
        calibrator.add(make_curves(make_half(end_s=3600.0 * hours, current_ma=1.0 / hours), contrast, 1e-4))
        kinds[name] = calibrator.rows(np.array([1]), np.zeros(1, bool), np.ones((1, 4)))[0]
    assert kinds["slow"]["kind"] == "monotone"
    assert kinds["fast"]["kind"] == "end_members"
    assert np.isnan(kinds["fast"]["soc_sigma"])


def test_before_a_window_there_is_none_and_dead_stay_none() -> None:
    calibrator = Calibrator(2, 1.0)
    ratio = np.ones((2, 4))
    assert {row["kind"] for row in calibrator.rows(np.arange(2), np.zeros(2, bool), ratio)} == {"none"}
    calibrator.add(make_curves(make_half(), 0.2 * np.linspace(0, 1, 100)[:, None] * np.ones(2), 1e-4))
    rows = calibrator.rows(np.arange(2), np.array([True, False]), ratio)
    assert [row["kind"] for row in rows] == ["none", "end_members"]
