import numpy as np
import pytest

from daemon.photometry.anchors import LAG_SHARE, alike, alone, between, driven, folds, rest_anchor
from daemon.photometry.halves import Rest
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half, ramp


def test_folds_are_seen_in_the_driven_part_only() -> None:
    x = ramp(400, 0.0, 0.8)
    contrast = np.stack([0.2 * x, 0.2 * np.sin(1.2 * np.pi * x), 0.2 * x], axis=1)
    contrast[330:, 2] -= np.linspace(0, 0.05, 70)
    curves = make_curves(make_half(drive_s=0.8 * 3600), contrast, 1e-4)
    found = folds(curves, 1.0)
    assert found.turned.tolist() == [False, True, False]
    assert found.beyond.tolist() == [False, True, False]


def test_giving_back_between_the_ends_is_not_leaving_them() -> None:
    x = ramp(400, 0.0, 1.0)
    contrast = 0.2 * (x - 0.3 * np.exp(-(((x - 0.5) / 0.1) ** 2)))
    found = folds(make_curves(make_half(), contrast[:, None], 1e-4), 1.0)
    assert found.turned.tolist() == [True]
    assert found.beyond.tolist() == [False]


def test_a_rest_gives_an_anchor_when_it_settled() -> None:
    half = make_half(drive_s=2400)
    x = np.clip(np.linspace(0, 1.5, 600), 0, 1)
    rest = Rest(2400.0, 3600.0)
    settled = rest_anchor(make_curves(half, 0.2 * x[:, None], 1e-4), rest)
    assert settled is not None
    assert settled.charge_mah == pytest.approx(2400 / 3600)
    assert settled.contrast == pytest.approx([0.2], abs=1e-3)
    moving = 0.2 * np.linspace(0, 1, 600)[:, None]
    assert rest_anchor(make_curves(half, moving, 1e-4), rest) is None
    assert rest_anchor(make_curves(half, 0.2 * x[:, None], 1e-4), Rest(3560.0, 3600.0)) is None


def test_a_rest_with_the_voltage_still_moving_gives_none() -> None:
    half = make_half()
    curves = make_curves(half, np.zeros((600, 1)), 1e-4)
    assert rest_anchor(curves, Rest(2400.0, 3600.0)) is None


def test_a_particle_still_moving_is_left_out_of_the_anchor() -> None:
    half = make_half(drive_s=2400)
    x = np.clip(np.linspace(0, 1.5, 600), 0, 1)
    contrast = np.stack([0.2 * x, 0.2 * x, 0.2 * np.linspace(0, 1, 600)], axis=1)
    anchor = rest_anchor(make_curves(half, contrast, 1e-4), Rest(2400.0, 3600.0))
    assert anchor is not None
    assert np.isfinite(anchor.contrast).tolist() == [True, True, False]


def test_a_turn_too_small_for_a_fast_half_folds_in_a_slow_one() -> None:
    x = ramp(400, 0.0, 1.0)
    contrast = 0.2 * np.minimum(x, 1.9 - x) / 0.95
    curves = make_curves(make_half(), contrast[:, None], 1e-5)
    assert folds(curves, 0.05).turned.tolist() == [True]
    assert folds(curves, 5.0).turned.tolist() == [False]


def test_a_particle_that_still_moves_is_less_sure() -> None:
    half = make_half(drive_s=2400)
    x = np.clip(np.linspace(0, 1.5, 600), 0, 1)
    slow = 0.2 * x - 0.004 * np.exp(-np.linspace(0, 3600, 600) / 1200.0)
    anchor = rest_anchor(make_curves(half, np.stack([0.2 * x, slow], axis=1), 1e-5), Rest(2400.0, 3600.0))
    assert anchor is not None
    assert anchor.sigma[0] < 1e-5 < 1e-4 < anchor.sigma[1] < 1e-3


def half_of(sign: int, index: int, lag: float, current_ma: float = 1.0):
    """A charge from 0 to 1 mAh, or back, in which contrast stays behind by `lag`."""
    start = 0.0 if sign > 0 else 1.0
    half = make_half(index, sign, 0.0, 3600.0 / current_ma, current_ma=current_ma, start_mah=start)
    fraction = np.linspace(start, 1.0 - start, 640)
    return driven(make_curves(half, 0.2 * (fraction - sign * lag)[:, None]))


def test_stretches_follow_the_charge() -> None:
    drive = half_of(1, 0, 0.0, 0.05)
    assert drive is not None
    assert len(drive.charge_mah) == 32
    assert drive.values[:, 0, 0] == pytest.approx(0.2 * drive.charge_mah, abs=1e-6)
    anchors = alone(drive, 0.05)
    assert [anchor.rest for anchor in anchors] == [False] * 32
    assert anchors[3].lag[0] == pytest.approx(0.005 * 0.2, rel=0.05)


def test_charge_and_discharge_together_take_the_lag_out() -> None:
    one, other = half_of(1, 0, 0.03), half_of(-1, 1, 0.03)
    assert one is not None and other is not None
    assert alike(one, other) and not alike(one, one)
    anchors = [anchor for anchor in between(one, other) if np.isfinite(anchor.contrast[0])]
    assert len(anchors) >= 30
    assert [a.contrast[0] for a in anchors] == pytest.approx([0.2 * a.charge_mah for a in anchors], abs=1e-5)
    assert [a.lag[0] for a in anchors] == pytest.approx([LAG_SHARE * 0.2 * 0.03] * len(anchors), rel=0.01)


def test_halves_of_other_currents_are_not_alike() -> None:
    one, other = half_of(1, 0, 0.0, 1.0), half_of(-1, 1, 0.0, 5.0)
    assert one is not None and other is not None
    assert not alike(one, other)
