import numpy as np
import pytest

from daemon.photometry.anchors import folds, rest_anchor, slow_anchors
from daemon.photometry.halves import Rest
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half, ramp


def test_folds_are_seen_in_the_driven_part_only() -> None:
    x = ramp(400, 0.0, 0.8)
    contrast = np.stack([0.2 * x, 0.2 * np.sin(1.2 * np.pi * x), 0.2 * x], axis=1)
    contrast[330:, 2] -= np.linspace(0, 0.05, 70)
    curves = make_curves(make_half(drive_s=0.8 * 3600), contrast, 1e-4)
    found = folds(curves)
    assert found.turned.tolist() == [False, True, False]
    assert found.beyond.tolist() == [False, True, False]


def test_giving_back_between_the_ends_is_not_leaving_them() -> None:
    x = ramp(400, 0.0, 1.0)
    contrast = 0.2 * (x - 0.3 * np.exp(-(((x - 0.5) / 0.1) ** 2)))
    found = folds(make_curves(make_half(), contrast[:, None], 1e-4))
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


def test_slow_anchors_follow_the_charge() -> None:
    anchors = slow_anchors(make_curves(make_half(), 0.2 * np.linspace(0, 1, 320)[:, None]))
    assert len(anchors) == 32
    assert [anchor.contrast[0] for anchor in anchors] == pytest.approx([0.2 * anchor.charge_mah for anchor in anchors])
