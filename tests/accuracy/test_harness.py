"""The measuring itself: scenes, cameras, peers and statistics are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from tests.accuracy.effort import QUICK
from tests.accuracy.page import page
from tests.accuracy.plain import PlainPhotometry, rings
from tests.accuracy.registration import cramer_rao_px
from tests.accuracy.stability import allan_deviation
from tests.accuracy.subject import match
from tests.bench.figures import Figure, at_least, at_most, between
from tests.disturbed import Disturbances, Exposer, Stage
from tests.scenes import PoissonScene


@pytest.fixture(scope="module")
def scene() -> PoissonScene:
    return PoissonScene(seed=78, height=120, width=150, particles=4, radius_px=(5, 10))


def test_a_stage_renders_as_the_scene_does(scene):
    brightness = np.array([1.3, 1.0, 1.3, 1.0])
    stage = Stage(scene, brightness > 1)
    np.testing.assert_allclose(
        stage.mean_e((0.3, -1.7), brightness=(1.3,)), scene.mean_e((0.3, -1.7), brightness), rtol=1e-9
    )
    np.testing.assert_allclose(stage.mean_e(illumination=1.2), 1.2 * stage.mean_e(), rtol=1e-12)


def test_blur_adds_to_the_variance_of_the_psf(scene):
    blurred = Stage(scene).mean_e(blur_px2=2.0**2 - scene.psf_sigma_px**2)
    sharper = scene.mean_e(blur=2.0)
    # the scene leaves its smooth background as sharp as it is
    assert np.abs(blurred - sharper).max() < 2e-3 * scene.background_e
    assert np.abs(blurred - scene.mean_e()).max() > 0.05 * scene.background_e


def test_gradients_are_those_of_the_mean(scene):
    stage = Stage(scene)
    gradient_y, gradient_x = stage.gradients()
    step = 1e-3
    np.testing.assert_allclose((stage.mean_e((-step, 0)) - stage.mean_e((step, 0))) / (2 * step), gradient_y, atol=0.01)
    np.testing.assert_allclose((stage.mean_e((0, -step)) - stage.mean_e((0, step))) / (2 * step), gradient_x, atol=0.01)


@pytest.mark.parametrize("exposures", [1, 20])
def test_a_summed_frame_has_the_noise_of_its_exposures(scene, exposures):
    expose, mean_e = Exposer(scene, exposures), np.full((60, 60), 12_000.0)
    electrons = np.array(
        [(expose(mean_e) - expose.dark_dn) * expose.gain_e_per_dn / exposures for _ in range(20)], float
    )
    variance = (12_000.0 + scene.read_noise_e**2 + scene.gain_e_per_dn**2 / 12) / exposures
    assert electrons.mean() == pytest.approx(12_000.0, rel=2e-4)
    assert electrons.var() == pytest.approx(variance, rel=0.03)


def test_a_reference_has_the_noise_of_its_frames_and_no_more(scene):
    expose, mean_e = Exposer(scene), np.full((80, 80), 12_000.0)
    level_e = (expose.mean_dn(mean_e, 25) - expose.dark_dn) * expose.gain_e_per_dn
    assert level_e.var() == pytest.approx(12_054.0 / 25, rel=0.08)


def test_noiseless_frames_differ_by_rounding_only(scene):
    expose, mean_e = Exposer(scene), scene.mean_e()
    frames = [(expose.noiseless(mean_e) - expose.dark_dn) * expose.gain_e_per_dn - mean_e for _ in range(20)]
    assert np.abs(frames).max() <= scene.gain_e_per_dn
    assert np.abs(np.mean(frames)) < 0.05


def test_disturbances_are_as_large_as_announced():
    many = [Disturbances.draw(seed, 600.0, 20) for seed in range(12)]
    assert len(many[0]) == 3000
    drift_nm = np.concatenate([96 * (one.drift_px - one.drift_px.mean(axis=0)) for one in many])
    # 20 nm, and a walk of 100 nm in an hour seen for ten minutes: 17 nm more
    assert drift_nm.std() == pytest.approx(26.0, rel=0.2)
    assert np.mean([one.blur_px2.mean() for one in many]) == pytest.approx(0.09, rel=0.5)
    ends = np.array([one.illumination[-100:].mean() - one.illumination[:100].mean() for one in many])
    assert ends.mean() == pytest.approx(-0.005 * (1 - np.exp(-1)), abs=1.5e-3)


def test_one_disturbance_alone_holds_the_others():
    both = Disturbances.draw(3, 10.0, 20)
    drift = both.only("drift")
    assert np.array_equal(drift.drift_px, both.drift_px)
    assert np.ptp(drift.blur_px2) == 0 and np.ptp(drift.illumination) == 0
    assert not np.ptp(both.only("none").drift_px, axis=0).any() and len(both.only("none")) == len(both)


def test_the_allan_deviation_of_white_noise_and_of_a_ramp():
    rng = np.random.default_rng(4)
    white = rng.normal(0, 1, (40_000, 3))
    for m in (1, 10, 100):
        np.testing.assert_allclose(allan_deviation(white, m), 1 / np.sqrt(m), rtol=0.12)
    ramp = np.arange(500.0)[:, None]
    assert allan_deviation(ramp, 10)[0] == pytest.approx(10 / np.sqrt(2))


def test_the_bound_of_a_drift_falls_with_light(scene):
    bright = PoissonScene(
        seed=78, height=120, width=150, particles=4, radius_px=(5, 10), particle_e=(36e3, 56e3), background_e=24e3
    )
    ratio = cramer_rao_px(Stage(bright)) / cramer_rao_px(Stage(scene))
    np.testing.assert_allclose(ratio, 0.5, rtol=0.1)


def test_rings_keep_off_particles():
    labels = np.zeros((40, 60), int)
    labels[15:25, 15:25], labels[15:25, 29:39] = 1, 2
    ring = rings(labels, 2)
    assert set(np.unique(ring)) == {0, 1, 2}
    assert not ring[15:25, 25:29].any(), "between neighbours there is no background"
    assert ring[20, 11] == 1 and ring[20, 13] == 0 and ring[20, 9] == 0


def test_plain_photometry_sums_above_the_ring_and_follows_a_shift(scene):
    mean_e, labels = scene.mean_e(), scene.labels()
    plain = PlainPhotometry(mean_e, labels, 0.0)
    flux, drift = plain(np.rint(mean_e).astype(np.uint16))
    assert np.abs(drift).max() == 0
    truth = [(mean_e[labels == i + 1] - mean_e[rings(labels, 4) == i + 1].mean()).sum() for i in range(4)]
    np.testing.assert_allclose(flux, truth, rtol=1e-3)
    moved, drift = plain(np.rint(scene.mean_e((2.0, -3.0))).astype(np.uint16))
    np.testing.assert_allclose(drift, (2.0, -3.0), atol=0.11)
    np.testing.assert_allclose(moved, flux, rtol=0.02)


def test_matching_takes_the_nearest_and_nothing_far(scene):
    y, x = scene.y_px[::-1] + 0.2, scene.x_px[::-1] - 0.3
    assert match(scene, np.append(y, 2.0), np.append(x, 2.0)).tolist() == [3, 2, 1, 0, -1]


def test_the_page_shows_figures_beside_goals_and_peers():
    figures = [
        at_most("noise", 0.9, 0.95, plain="2.0"),
        at_most("  left over", 2e-4, 1e-4, digits=None),
        at_least("share", 0.6, 0.5, digits=2),
        between("slope", -0.5, -0.55, -0.45),
        Figure("bare", "1", ""),
    ]
    text = page([("Title", "Over {means_frames} exposures.", figures)], QUICK)
    assert "| noise | 0.90 | 2.0 | <= 0.95 | met |" in text
    assert "| &emsp;left over | 2.0e-04 |  | <= 0.0001 | **missed** |" in text
    assert "| share | 0.60 |  | >= 0.5 | met |" in text and "| slope | -0.500 |  | -0.55 to -0.45 | met |" in text
    assert "Over 100 exposures." in text and "1001, 1002" in text
