import numpy as np
import pytest

from daemon.photometry.blocks import Block, History
from daemon.photometry.curves import first_crossing, half_curves
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half, ramp


def test_straight_ramps_pass_unchanged() -> None:
    curves = make_curves(make_half(), np.linspace(0.0, -0.2, 400)[:, None])
    assert curves.swing == pytest.approx([0.2])
    assert curves.start == pytest.approx([0.0], abs=1e-6)
    assert curves.farthest == pytest.approx([-0.2])


def test_crossings_are_found_between_points_in_either_direction() -> None:
    contrast = np.stack([np.linspace(0, 0.2, 50), np.linspace(0, -0.4, 50)], axis=1)
    curves = make_curves(make_half(), contrast)
    assert curves.crossing_s(curves.level(0.37)) == pytest.approx([0.37 * 3600] * 2, rel=1e-3)


def test_a_level_never_reached_or_passed_from_the_start_has_no_time() -> None:
    t_s = np.arange(5.0)
    signed = np.stack([np.full(5, -1.0), np.full(5, 1.0), np.array([-1, -1, 1, -1, 1.0])], axis=1)
    got = first_crossing(t_s, signed)
    assert np.isnan(got[:2]).all()
    assert got[2] == 1.5


def test_gaps_are_bridged_and_sparse_particles_are_not_known() -> None:
    contrast = np.repeat(ramp(100, 0.0, 1.0)[:, None], 3, axis=1)
    contrast[40:50, 0] = np.nan
    contrast[10:90, 1] = np.nan
    contrast[:, 2] = np.nan
    curves = make_curves(make_half(), contrast)
    assert curves.known.tolist() == [True, False, False]
    assert curves.swing[0] == pytest.approx(1.0)
    assert np.isnan(curves.swing[1:]).all()


def test_scatter_beyond_the_frames_noise_is_seen() -> None:
    rng = np.random.default_rng(5)
    contrast = np.linspace(0, 0.2, 500)[:, None] + rng.normal(0, 2e-3, (500, 1))
    assert make_curves(make_half(), contrast).block_sigma[0] == pytest.approx(2e-3, rel=0.2)


def test_the_frames_own_noise_is_not_taken_for_more_by_chance() -> None:
    found = make_curves(make_half(), np.repeat(np.linspace(0, 0.2, 100)[:, None], 400, axis=1), 1e-3).block_sigma
    assert found.min() >= 1e-3 * (1 - 1e-6)
    assert found.mean() < 1.03e-3  # the larger of two estimates of one noise would be 6 % too large


def test_too_few_points_give_nothing() -> None:
    history = History(1, 16)
    for k in range(3):
        history.append(Block(float(k), np.zeros((1, 5)), np.zeros(1)))
    assert half_curves(make_half(), history) is None
