from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from daemon.engine.operator import MARGIN_PX, Operator
from daemon.engine.registration import Scene
from daemon.photometry import registering
from daemon.photometry.compile import compile_operator
from kernels.lanes import SPAN_PX
from kernels.photometry import AXIAL_BINS, SUMS
from tests.measuring import Rig, noise_of, operator_of, true_masks
from tests.scenes import PoissonScene


def pixels(span):
    """Every pixel of spans."""
    return (span[:, None] + np.arange(SPAN_PX)).reshape(-1)


def ring_pixels(operator):
    return pixels(operator.ring_span)[operator.ring_weights > 0]


def mask_of(operator, p):
    """Pixels and soft mask of one particle, as the kernels see them."""
    first, last = operator.mask_pointer[p : p + 2]
    weights = np.zeros(last - first)
    for k in range(AXIAL_BINS):
        begin, end = operator.weight_pointer[SUMS * p + k : SUMS * p + k + 2]
        start = operator.weight_first[SUMS * p + k] - first
        weights[start : start + end - begin] += operator.weights[begin:end] * operator.weight_scale[p, k]
    return pixels(operator.mask_span[first // SPAN_PX : last // SPAN_PX]), weights


@pytest.fixture(scope="module")
def scene():
    return PoissonScene(seed=12, height=240, width=300, particles=14, touching_pairs=3)


@pytest.fixture(scope="module")
def operator(scene):
    return operator_of(scene)


def test_touching_particles_share_pixels_and_no_pixel_counts_twice(scene, operator):
    total = np.zeros(scene.height * scene.width)
    for p in range(operator.particles):
        index, weights = mask_of(operator, p)
        np.add.at(total, index, weights)
    assert total.max() < 1.03
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
    assert (labels[ring_pixels(operator)] == 0).all()


def test_masks_reach_beyond_the_blur(scene, operator):
    area = operator.weight_sums[:, :AXIAL_BINS].sum(axis=1)
    assert (area > 1.3 * scene.area_px).mean() > 0.9


def test_registration_and_illumination_stay_inside_when_the_scene_drifts(scene, operator):
    for index in (pixels(operator.plane_span), operator.search_index):
        y, x = np.divmod(index, scene.width)
        assert y.min() >= MARGIN_PX and y.max() < scene.height - MARGIN_PX
        assert x.min() >= MARGIN_PX and x.max() < scene.width - MARGIN_PX


def test_functionals_ignore_every_particles_brightness():
    scene = PoissonScene(seed=13, height=240, width=300, particles=14)
    operator = operator_of(scene)
    frames = [scene.mean_e(brightness=b) for b in (1.0, np.random.default_rng(0).uniform(0.5, 2.0, scene.count))]
    rig = Rig(scene, operator)
    counts = [np.rint(mean / scene.gain_e_per_dn + scene.dark_dn).astype(np.uint16) for mean in frames]
    plain, bright = (rig.photometer.look(rig.collector.open(dn), 0, 0) for dn in counts)
    one_pixel = np.abs(Scene.of(operator, np.ones(scene.count, bool)).series[:2, :2]).max()
    assert np.abs((bright - plain)[:2] / one_pixel).max() < 0.01


def test_the_operator_survives_the_wire(operator):
    again = Operator.from_arrays(operator.arrays())
    for name, array in operator.arrays().items():
        np.testing.assert_array_equal(np.asarray(getattr(again, name)), array)
    assert again.particles == operator.particles


def test_light_of_what_is_no_particle_of_the_run_is_kept_out():
    """A bright thing at the frame's edge that is not measured: drift moves it over no ring and no mask."""
    scene = PoissonScene(seed=14, height=240, width=300, particles=14)
    masks = true_masks(scene)
    dropped = int(
        np.argmin(np.hypot(scene.y_px - scene.y_px[3], scene.x_px - scene.x_px[3]) + 1e6 * (np.arange(14) == 3))
    )
    masks.excluded = masks.labels == dropped + 1
    masks.labels = np.where(masks.excluded, 0, masks.labels)
    kept = np.setdiff1d(np.arange(14), [dropped])
    masks.labels = np.searchsorted(np.append(-1, kept), masks.labels - 1).astype(np.int32) * (masks.labels > 0)
    masks = replace(masks, particle_id=kept, y_px=scene.y_px[kept], x_px=scene.x_px[kept])
    reference_e = ((scene.reference(50) - scene.dark_dn) * scene.gain_e_per_dn).astype(np.float32)
    operator = compile_operator(reference_e, masks, noise_of(scene), 50)
    near = ndimage.binary_dilation(masks.excluded, iterations=4).reshape(-1)
    assert not near[ring_pixels(operator)].any()
    assert not near[pixels(operator.plane_span)].any()
    for p in range(operator.particles):
        index, weights = mask_of(operator, p)
        assert not masks.excluded.reshape(-1)[index[weights > 0.5]].any()


def test_of_many_particles_those_that_tell_little_of_the_drift_are_not_asked(monkeypatch, scene):
    few = operator_of(scene)
    monkeypatch.setattr(registering, "MANY", scene.count - 1)
    most = operator_of(scene)
    asked = np.abs(most.reference_shift[:, 3]) > 0
    assert 0 < asked.sum() < scene.count
    assert scene.radii_px[asked].mean() > scene.radii_px[~asked].mean()
    assert most.weights.size < few.weights.size
    drifts = np.random.default_rng(4).uniform(-0.5, 0.5, (30, 2))
    errors = [
        Rig(scene, operator).series(scene.frame(tuple(d)) for d in drifts)[2] - drifts for operator in (few, most)
    ]
    assert np.sqrt((errors[1] ** 2).mean()) < 1.5 * np.sqrt((errors[0] ** 2).mean())
