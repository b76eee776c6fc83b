import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from daemon.photometry import calibration
from daemon.photometry.calibration import end_members
from daemon.photometry.response import Anchors, responding
from daemon.photometry.slices import completed

FRACTIONS = np.linspace(0.0, 1.0, 13)
SIGMA = np.full(13, 1e-4)
NAN = float("nan")


def monotone(fraction: np.ndarray, contrast: np.ndarray, sigma: np.ndarray) -> dict | None:
    """The row of one particle from its own anchors alone."""
    order = np.argsort(fraction)
    columns = (contrast[order, None], sigma[order, None], np.zeros((len(order), 1)))
    anchors = Anchors(fraction[order], *columns, -1 - np.arange(len(order)))
    (row,) = calibration.monotone(anchors, completed(responding(anchors, 1)), [0])
    return row


def read(row: dict, contrast: float, column: str = "soc_knots") -> float:
    return float(np.interp(contrast, row["contrast_knots"], row[column]))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_monotone_curve_inverts_a_bent_response(sign: float) -> None:
    row = monotone(FRACTIONS, sign * 0.2 * FRACTIONS**1.5, SIGMA)
    assert row is not None
    assert row["kind"] == "monotone"
    assert np.all(np.diff(row["contrast_knots"]) > 0)
    for fraction in (0.1, 0.33, 0.5, 0.8):
        assert read(row, sign * 0.2 * fraction**1.5) == pytest.approx(fraction, abs=0.004)
    assert row["soc_sigma"] < 0.01


def test_scattered_anchors_widen_the_curve() -> None:
    rng = np.random.default_rng(2)
    f = np.linspace(0, 1, 40)
    row = monotone(f, 0.2 * (f + rng.normal(0, 0.03, 40)), np.full(40, 1e-4))
    assert row is not None
    assert 0.01 < row["soc_sigma"] < 0.06


def test_a_response_that_turns_back_is_folded() -> None:
    row = monotone(FRACTIONS, 0.2 * np.sin(np.pi * 1.2 * FRACTIONS), SIGMA)
    assert row is not None
    assert row["kind"] == "folded"


def test_a_flat_part_is_less_sure_than_a_steep_one() -> None:
    f = np.linspace(0, 1, 41)
    rng = np.random.default_rng(4)
    row = monotone(f, 0.1 * (f**3 + 0.15 * f) + rng.normal(0, 5e-4, 41), np.full(41, 5e-4))
    assert row is not None
    assert row["kind"] == "monotone"
    assert read(row, 0.003, "soc_sigma_knots") > 2.0 * read(row, 0.1, "soc_sigma_knots")
    assert row["soc_sigma"] == pytest.approx(np.sqrt(np.mean(np.square(row["soc_sigma_knots"]))), rel=1e-3)


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
    row = monotone(FRACTIONS, np.random.default_rng(7).normal(0, 1e-4, 13), SIGMA)
    assert row is not None
    assert row["kind"] == "none"
    assert monotone(FRACTIONS, np.zeros(13), SIGMA) is None


@settings(deadline=None, max_examples=40)
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
