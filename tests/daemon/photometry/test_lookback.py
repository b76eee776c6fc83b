from __future__ import annotations

import numpy as np
import pytest

from daemon.photometry.contrast import ContrastMaker
from daemon.photometry.fracture import FEATURES
from daemon.photometry.lookback import FRAMES, Lookback
from tests.daemon.photometry.synthetic import Movie

SIGMA = 1e-3


def filled(contrast: np.ndarray, centroid_px: np.ndarray | None = None, **about) -> Lookback:
    """The lookback after a movie at 100 frames/s, in which the light's centres lie at (T, P, 2) px."""
    movie = Movie(0.01 * np.arange(len(contrast)), contrast, sigma=SIGMA, **about)
    maker, lookback = ContrastMaker(contrast.shape[1], 10**9), Lookback(contrast.shape[1])
    for batch in movie.batches(50):
        batch.axial_flux_e = np.repeat(batch.flux_e[:, :, None] / 8, 8, axis=2)
        if centroid_px is not None:
            frames = np.rint(100 * batch.t_s).astype(int)
            batch.centroid_y_px, batch.centroid_x_px = np.moveaxis(centroid_px[frames].astype(np.float32), 2, 0)
        for part in maker.add(batch):
            for k, t_s in enumerate(part.batch.t_s):
                lookback.add(part, k, float(t_s))
    return lookback


def test_a_step_of_a_moving_trace_is_sized_within_its_sigma():
    t = np.arange(1200)
    contrast = np.zeros((1200, 30)) + 2e-6 * t[:, None] * np.arange(30)
    contrast[900:, :3] += 2 * SIGMA
    lookback = filled(contrast)
    found = [lookback.step(i, 9.0 + 0.02, []) for i in range(3)]
    pulls = np.array([(step.size - 2 * SIGMA) / step.sigma for step in found])
    assert np.abs(pulls).max() < 4.0
    assert np.median([step.sigma for step in found]) < 0.15 * SIGMA
    assert np.median([abs(step.t_s - 9.0) for step in found]) <= 0.03


def test_what_all_share_is_taken_off_but_not_what_one_does():
    rng = np.random.default_rng(3)
    light = np.cumsum(rng.normal(0, 2e-4, 1000))
    contrast = np.repeat(light[:, None], 40, axis=1)
    contrast[500:, 0] -= 0.3
    lookback = filled(contrast)
    _, quiet = lookback.trace(5)
    _, broken = lookback.trace(0)
    assert np.std(quiet) == pytest.approx(SIGMA, rel=0.15)
    assert broken[600:].mean() - broken[:400].mean() == pytest.approx(-0.3, abs=0.01)
    assert quiet[600:].mean() - quiet[:400].mean() == pytest.approx(0.0, abs=6e-4)


def test_a_step_is_sized_in_contrast_however_bright_all_are_by_then():
    contrast = np.zeros((1200, 40)) + np.linspace(0, 0.5, 1200)[:, None]
    contrast[900:, 3] += 20 * SIGMA
    step = filled(contrast).step(3, 9.0, [])
    assert step is not None and step.size == pytest.approx(20 * SIGMA, abs=4 * step.sigma)


def test_earlier_steps_are_fitted_beside():
    contrast = np.zeros((1200, 25))
    contrast[700:, 3] += 8 * SIGMA
    contrast[900:, 3] += 4 * SIGMA
    lookback = filled(contrast)
    beside = lookback.step(3, 9.0, [7.0])
    assert beside is not None and beside.size == pytest.approx(4 * SIGMA, abs=4 * beside.sigma)


def test_changes_of_parts_and_the_spread_of_all():
    contrast = np.zeros((400, 25))
    contrast[300:, 2] -= 0.1
    lookback = filled(contrast)
    change = lookback.change(2, 3.0, 20, radius_px=10.0)
    np.testing.assert_allclose(change[:8], -0.1 / 8, atol=1e-3)
    np.testing.assert_allclose(change[8:12], -0.1 / 4, atol=2e-3)
    assert np.isnan(lookback.change(2, 4.5, 20, 10.0)).all(), "no frame after it"
    each, spread = lookback.spread(3.0, 10)
    assert each[2] == pytest.approx(-0.1, abs=2e-3) and spread < SIGMA
    assert np.isfinite(lookback.before(2, 3.0)).all() and np.isfinite(lookback.latest(2, 3.9)).all()


def test_parts_that_go_on_changing_are_told_from_such_that_came_and_stayed():
    contrast = np.zeros((400, 25))
    contrast[300:, 2] -= 0.1
    contrast[260:300, 3] -= np.linspace(0, 0.1, 40)
    contrast[300:, 3] -= 0.1
    contrast[300:340, 4] -= np.linspace(0, 0.1, 40)
    lookback = filled(contrast)
    sizes = {}
    for index in (2, 3, 4):
        halves, noise = lookback.going_on(index, 3.0, 20, 10.0)
        assert halves.shape == (2, FEATURES) and 0 < noise < 1e-4
        sizes[index] = np.abs(halves[:, :8].sum(axis=1))
    assert sizes[2].max() < 3e-3 and sizes[3][0] > 0.015 > sizes[3][1] and sizes[4][1] > 0.015 > sizes[4][0]
    assert np.isnan(lookback.going_on(2, 3.98, 20, 10.0)[1]), "too few frames since"


def test_what_is_not_known_is_nan_or_none():
    contrast = np.zeros((FRAMES + 200, 3))
    contrast[:, 1] = np.nan
    lookback = filled(contrast)
    assert len(lookback.trace(0)[0]) == FRAMES and len(lookback.trace(1)[0]) == 0
    assert lookback.step(1, 5.0, []) is None and lookback.step(0, -3.0, []) is None
    lookback.grow(5)
    assert lookback.step(4, 11.0, []) is None
    assert np.isnan(lookback.change(4, 11.0, 20, 8.0)).all() and len(lookback.latest(4, 0.0)) == FEATURES
    assert np.isnan(Lookback(0).spread(0.0, 10)[1])


def test_early_parts_are_not_the_last_ones_and_the_newest_are():
    contrast = np.zeros((400, 25))
    contrast[280:300, 2] -= 0.05
    contrast[300:, 2] -= 0.1
    lookback = filled(contrast)
    assert lookback.before(2, 3.0)[:8].sum() == pytest.approx(0.95e6, rel=1e-3)
    assert lookback.early(2, 3.0)[:8].sum() == pytest.approx(1e6, rel=1e-3)
    assert lookback.newest(2, 10)[:8].sum() == pytest.approx(0.9e6, rel=1e-3)
    assert np.isnan(lookback.early(2, 2.0)).all(), "no frame before it is kept"


@pytest.mark.parametrize("particles", [5, 400])
def test_places_of_the_light_are_means_over_what_is_recent(particles):
    places = np.zeros((300, particles, 2)) + np.array([0.2, -0.1])
    places[250:] += np.arange(particles)[:, None] * np.array([1e-3, 0.0])
    contrast = np.zeros((300, particles)) + 0.3
    found = filled(contrast, places).centroids(2.5)
    assert found.shape == (particles, 2)
    np.testing.assert_allclose(found[:, 0], 0.2 + 1e-3 * np.arange(particles), atol=1e-5)
    np.testing.assert_allclose(found[:, 1], -0.1, atol=1e-5)


def test_places_of_the_light_that_are_not_known_are_nan():
    assert np.isnan(filled(np.zeros((50, 3))).centroids(99.0)).all()
    assert np.isnan(Lookback(3).centroids(0.0)).all()
