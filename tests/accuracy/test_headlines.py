"""The headline figures on one small scene, with a margin: what a change of the engine must not lose.

The whole measurement is ``python -m tests.accuracy``; its goals are tighter than the limits here.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.accuracy.illumination import rms
from tests.accuracy.noise import median, scatter
from tests.accuracy.registration import cramer_rao_px
from tests.accuracy.subject import Subject
from tests.disturbed import Stage
from tests.scenes import PoissonScene

SEED = 77


@pytest.fixture(scope="module")
def scene() -> PoissonScene:
    return PoissonScene(seed=SEED, height=200, width=260, particles=12, radius_px=(5, 14))


@pytest.fixture(scope="module")
def subject(scene) -> Subject:
    return Subject(scene)


def test_every_particle_is_found_once(scene, subject):
    assert sorted(subject.which) == list(range(scene.count))


def test_static_noise_is_near_the_bound_and_reported_as_it_is(scene, subject):
    mean_e = scene.mean_e()
    series = subject.measure(subject.expose(mean_e) for _ in range(300))
    assert median(scatter(series.flux_e) / subject.bound) <= 0.95
    ratio = (series.sigma_e / series.flux_e).mean(axis=0) / scatter(series.flux_e)
    assert median(ratio) == pytest.approx(1.0, abs=0.05)


def test_a_step_of_the_lamp_leaves_nothing_in_dead_particles_while_the_others_brighten(scene):
    dead = np.arange(scene.count) % 3 == 0
    stage, subject, half = Stage(scene, ~dead), Subject(scene, exposures=10), 150
    swing = np.linspace(1.0, 1.2, 2 * half)
    series = subject.measure(
        subject.expose(stage.mean_e(illumination=1.01 if k >= half else 1.0, brightness=(swing[k],)))
        for k in range(2 * half)
    )
    contrast = series.contrast[:, subject.of_scene(dead) == 1.0]
    change = contrast[half:].mean(axis=0) - contrast[:half].mean(axis=0)
    noise = subject.bound[subject.of_scene(dead) == 1.0] * np.sqrt(2 / half)
    assert np.abs(change.mean()) <= 1e-4
    assert (np.abs(change) <= 1e-4 + 4 * noise).all()
    alive = series.contrast[:, subject.of_scene(dead) == 0.0]
    assert alive[-20:].mean() == pytest.approx(0.19, abs=0.02), "the ensemble did swing"


def test_registration_is_near_its_bound(scene, subject):
    stage, drifts = Stage(scene), np.random.default_rng([SEED, 1]).uniform(-0.5, 0.5, (60, 2))
    error = subject.measure([subject.expose(stage.mean_e(drift)) for drift in drifts]).drift_px - drifts
    assert rms(error / cramer_rao_px(stage)) <= 1.25


def test_brightening_is_not_motion(scene, subject):
    mean_e = Stage(scene, scene.x_px < scene.width / 2).mean_e(brightness=(1.5,))
    drift = subject.measure(subject.expose(mean_e) for _ in range(10)).drift_px.mean(axis=0)
    assert np.abs(drift).max() <= 0.01


def test_drift_and_focus_leave_little_in_the_flux(scene, subject):
    stage, expose = Stage(scene), subject.expose.noiseless
    drifts = np.random.default_rng([SEED, 2]).uniform(-0.5, 0.5, (20, 2))
    at_rest = [expose(stage.mean_e()) for _ in range(5)]
    flux = subject.measure([*at_rest, *(expose(stage.mean_e(drift)) for drift in drifts)]).flux_e
    assert rms(flux[5:] / flux[:5].mean(axis=0) - 1.0) <= 2e-4
    flux = subject.measure([*at_rest, *(expose(stage.mean_e(blur_px2=0.3)) for _ in range(5))]).flux_e
    assert median(np.abs(flux[5:].mean(axis=0) / flux[:5].mean(axis=0) - 1.0)) <= 2e-4
