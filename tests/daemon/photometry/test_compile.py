import numpy as np
import pytest

from daemon.engine.operator import MARGIN_PX, Operator
from tests.measuring import Rig, operator_of
from tests.scenes import PoissonScene


@pytest.fixture(scope="module")
def scene():
    return PoissonScene(seed=12, height=240, width=300, particles=14, touching_pairs=3)


@pytest.fixture(scope="module")
def operator(scene):
    return operator_of(scene)


def test_touching_particles_share_pixels_and_no_pixel_counts_twice(scene, operator):
    total = np.zeros(scene.height * scene.width)
    np.add.at(total, operator.index, operator.weights[0])
    np.add.at(total, operator.inner_index, 1.0)
    assert total.max() < 1.02
    labels = scene.labels().reshape(-1)
    assert np.median(total[labels > 0]) == 1.0
    assert total[labels > 0].min() > 0.9


def test_touching_particles_keep_their_flux_when_the_integer_shift_changes(scene, operator):
    """Half a pixel to either side of a change of the index offset the masks bend by 0.6 px in opposite directions."""
    rig = Rig(scene, operator)
    fluxes = []
    for drift in ((0.0, 0.58), (0.0, 0.62)):
        mean = scene.mean_e(drift=drift)
        fluxes.append(np.mean([rig.measure(scene.expose(mean))[0][0] for _ in range(12)], axis=0))
    assert np.abs(fluxes[1] / fluxes[0] - 1).max() < 0.006


def test_rings_hold_no_particles_light(scene, operator):
    labels = scene.labels().reshape(-1)
    assert (labels[operator.ring_index] == 0).all()


def test_masks_reach_beyond_the_blur(scene, operator):
    area = operator.weight_sums[:, 0].reshape(-1, 4).sum(axis=1)
    assert (area > 1.3 * scene.area_px).mean() > 0.9


def test_registration_and_illumination_stay_inside_when_the_scene_drifts(scene, operator):
    for index in (operator.plane_index, operator.shift_index):
        y, x = np.divmod(index, scene.width)
        assert y.min() >= MARGIN_PX and y.max() < scene.height - MARGIN_PX
        assert x.min() >= MARGIN_PX and x.max() < scene.width - MARGIN_PX


def test_functionals_ignore_every_particles_brightness():
    scene = PoissonScene(seed=13, height=240, width=300, particles=14)
    operator = operator_of(scene)
    bright = scene.mean_e(brightness=np.random.default_rng(0).uniform(0.5, 2.0, scene.count)).reshape(-1)
    plain = scene.mean_e().reshape(-1)
    change = operator.shift_weights[:2] @ (bright - plain)[operator.shift_index]
    one_pixel = np.abs(operator.shift_series[:, 0]).max()
    assert np.abs(change / one_pixel).max() < 0.01


def test_the_operator_survives_the_wire(operator):
    again = Operator.from_arrays(operator.arrays())
    for name, array in operator.arrays().items():
        np.testing.assert_array_equal(np.asarray(getattr(again, name)), array)
    assert again.particles == operator.particles
