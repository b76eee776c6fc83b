import numpy as np
import pytest

from tests.measuring import Rig, operator_of, shift_bound
from tests.scenes import PoissonScene


@pytest.fixture(scope="module")
def scene():
    return PoissonScene(seed=5, height=320, width=400, particles=30, radius_px=(7, 14))


@pytest.fixture(scope="module")
def operator(scene):
    return operator_of(scene)


def _errors(scene, operator, drifts):
    _, _, found = Rig(scene, operator).series(scene.frame(tuple(drift)) for drift in drifts)
    return found - drifts


def test_error_is_within_the_cramer_rao_bound_of_a_reference_as_noisy_as_a_frame(scene, operator):
    drifts = np.random.default_rng(0).uniform(-0.5, 0.5, (60, 2))
    error = _errors(scene, operator, drifts)
    assert (np.sqrt((error**2).mean(axis=0)) <= np.sqrt(2) * shift_bound(scene)).all()


def test_sign_a_particle_appears_at_its_place_plus_drift(scene, operator):
    (error,) = _errors(scene, operator, np.array([[2.0, -3.0]]))
    assert np.abs(error).max() < 0.01


@pytest.mark.parametrize("drift", [(0.0, 0.0), (0.59, 0.59), (0.61, -0.61), (1.5, 0.0), (6.3, -7.7), (11.0, 11.0)])
def test_jumps_within_the_margin_are_found(scene, operator, drift):
    (error,) = _errors(scene, operator, np.array([drift]))
    assert np.abs(error).max() < 0.01


def test_a_walk_is_followed_through_many_pixels(scene, operator):
    steps = np.linspace(0, 9, 40)
    error = _errors(scene, operator, np.column_stack([steps, -0.7 * steps]))
    assert np.abs(error).max() < 0.01


def test_brightening_by_half_is_not_motion(scene, operator):
    rig = Rig(scene, operator)
    brightness = np.random.default_rng(1).uniform(1.0, 1.5, scene.count)
    _, shift, _ = rig.measure(scene.frame(brightness=brightness))
    assert max(abs(shift.y_px), abs(shift.x_px)) < 0.01


@pytest.mark.parametrize("drift", [(0.5, -0.4), (-0.58, 0.58), (3.55, 2.45)])
def test_a_shift_is_no_larger_for_brighter_particles(scene, operator, drift):
    rig = Rig(scene, operator)
    brightness = np.random.default_rng(2).uniform(1.2, 1.5, scene.count)
    _, shift, _ = rig.measure(scene.frame(drift, brightness=brightness))
    assert (shift.y_px, shift.x_px) == pytest.approx(drift, abs=0.015)


@pytest.mark.parametrize("drift", [(0.5, -0.4), (-0.58, 0.58), (0.62, 0.0)])
def test_a_shift_is_not_blur(scene, operator, drift):
    _, shift, _ = Rig(scene, operator).measure(scene.frame(drift))
    assert abs(shift.blur_px2) < 0.05


def test_blur_is_measured_as_variance(scene, operator):
    rig = Rig(scene, operator)
    _, sharp, _ = rig.measure(scene.frame())
    _, blurred, _ = rig.measure(scene.frame(blur=1.7))
    assert abs(sharp.blur_px2) < 0.03
    assert blurred.blur_px2 == pytest.approx(1.7**2 - 1.5**2, rel=0.1)


def test_a_scene_beyond_the_margin_is_unknown_and_keeps_the_last_shift(scene, operator):
    rig = Rig(scene, operator)
    rig.measure(scene.frame((1.0, 1.0)))
    _, shift, _ = rig.measure(np.full((scene.height, scene.width), 800, np.uint16))
    assert not shift.known
    assert (shift.y_px, shift.x_px) == pytest.approx((1.0, 1.0), abs=0.02)


def test_a_lost_drift_is_taken_over_as_the_last_good_one(scene, operator):
    before, after = Rig(scene, operator), Rig(scene, operator)
    before.measure(scene.frame((1.0, 1.0)))
    before.measure(np.full((scene.height, scene.width), 800, np.uint16))
    after.registration.go_on_from(before.registration)
    after.registration.usable = False  # nothing that could find it again
    measured, shift, _ = after.measure(scene.frame((1.0, 1.0)))
    assert shift.known and np.isfinite(measured[0]).all()
    assert (shift.y_px, shift.x_px) == pytest.approx((1.0, 1.0), abs=0.02)
