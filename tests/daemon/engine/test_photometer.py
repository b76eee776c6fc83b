import numpy as np
import pytest

from daemon.engine.measures import MaskSet, ParticleFlag
from daemon.photometry.compile import compile_operator
from kernels.photometry import CORE, OUTER
from tests.measuring import Rig, mask_and_ring_bound, noise_of, operator_of, true_masks
from tests.scenes import PoissonScene


@pytest.fixture(scope="module")
def scene():
    return PoissonScene(seed=3, height=320, width=400, particles=30, radius_px=(7, 14))


@pytest.fixture(scope="module")
def operator(scene):
    return operator_of(scene)


@pytest.fixture(scope="module")
def static(scene, operator):
    mean = scene.mean_e()
    flux, sigma, drift = Rig(scene, operator).series(scene.expose(mean) for _ in range(120))
    return flux, sigma, drift


def test_noise_is_below_the_mask_and_ring_bound(scene, static):
    """A background followed through time costs next to nothing."""
    flux, _, _ = static
    ratio = flux.std(axis=0, ddof=1) / flux.mean(axis=0) / mask_and_ring_bound(scene)
    assert np.median(ratio) <= 0.95
    assert np.percentile(ratio, 95) <= 1.05


def test_reported_sigma_is_the_true_scatter(static):
    flux, sigma, _ = static
    ratio = sigma.mean(axis=0) / flux.std(axis=0, ddof=1)
    assert np.median(ratio) == pytest.approx(1.0, abs=0.06)


def test_flux_is_the_particles_own_light(scene, static):
    flux, _, _ = static
    truth = scene.level_e * scene.area_px
    assert np.median(np.abs(flux.mean(axis=0) / truth - 1)) < 0.02


def test_layers_are_quarters_that_add_up_to_the_flux(scene, operator):
    rig = Rig(scene, operator)
    measured, _, _ = rig.measure(scene.frame())
    np.testing.assert_allclose(measured[2].sum(axis=1), measured[0], rtol=1e-4)
    # the surface layer also holds the grown skirt; the three inner ones are a quarter of the area each
    quarter = scene.area_px / 4
    assert np.abs(operator.weight_sums[:, OUTER : CORE + 1] / quarter[:, None] - 1).max() < 0.1


def test_axial_bins_are_eighths_that_add_up_to_the_flux(scene, operator):
    measured, _, _ = Rig(scene, operator).measure(scene.frame())
    np.testing.assert_allclose(measured[7].sum(axis=1), measured[0], rtol=2e-3)
    inner = measured[7][:, 1:-1] / measured[0][:, None]  # the ends also hold the skirt, which is dark
    assert np.abs(inner - 1 / 8).max() < 0.04


def test_brightening_is_measured_and_illumination_is_not(scene, operator):
    rig = Rig(scene, operator)
    base, _, _ = rig.measure(scene.frame())
    brightness = np.ones(scene.count)
    brightness[::2] = 1.2
    brighter, _, _ = rig.measure(scene.frame(brightness=brightness))
    change = brighter[0] / base[0] - 1
    np.testing.assert_allclose(change, brightness - 1, atol=0.01)
    lamp, _, illumination = rig.measure(scene.expose(1.1 * scene.mean_e()))
    assert illumination == pytest.approx(1.1, rel=1e-3)
    np.testing.assert_allclose(lamp[0] / base[0], 1.0, atol=0.01)


def test_drift_moves_neither_flux_nor_centroid(scene, operator):
    rig = Rig(scene, operator)
    base = np.mean([rig.measure(scene.frame())[0][0] for _ in range(8)], axis=0)
    centroid = np.mean([rig.measure(scene.frame())[0][4] for _ in range(8)], axis=0)
    mean = scene.mean_e(drift=(0.4, -0.3))
    moved = [rig.measure(scene.expose(mean))[0] for _ in range(8)]
    assert np.abs(np.mean([m[0] for m in moved], axis=0) / base - 1).max() < 1.5e-3
    assert np.abs(np.mean([m[4] for m in moved], axis=0) - centroid).max() < 0.02


def test_an_unlit_part_of_the_frame_is_nan_and_its_backgrounds_stay(scene, operator):
    rig = Rig(scene, operator)
    rig.measure(scene.frame())
    before = rig.photometer._background.copy()
    shade = np.clip(1.2 - np.arange(scene.width) / 150.0, 0.0, 1.0)
    measures, shift, _ = rig.measure(scene.expose(scene.mean_e() * shade))
    unlit = ~(rig.photometer._gain > 0.01)
    assert unlit.any() and not unlit.all() and shift.known
    assert np.isnan(measures[0][unlit]).all() and np.isfinite(measures[0][~unlit]).all()
    np.testing.assert_array_equal(rig.photometer._background[unlit], before[unlit])


def test_saturated_pixels_flag_only_their_particle(scene, operator):
    dn = scene.frame()
    y, x = round(scene.y_px[0]), round(scene.x_px[0])
    dn[y, x] = 4095
    measured, _, _ = Rig(scene, operator).measure(dn)
    flagged = np.flatnonzero(measured[6] & ParticleFlag.SATURATED)
    assert flagged.tolist() == [0]


def test_a_particle_that_drifts_out_is_nan_and_says_so(scene):
    labels = np.zeros((120, 160), np.int32)
    labels[50:70, 60:80] = 1
    labels[17:30, 100:113] = 2
    rng = np.random.default_rng(0)
    image = np.where(labels > 0, 18_000.0, 6_000.0) + rng.normal(0, 5, labels.shape)
    masks = MaskSet(labels, np.array([1, 2]), np.array([59.5, 23.0]), np.array([69.5, 106.0]), {}, 1.0, None)
    operator = compile_operator(image.astype(np.float32), masks, noise_of(scene), 50)
    rig = Rig(scene, operator)
    moved = np.roll(image, -10, axis=0)
    dn = (moved / 8 + 64).astype(np.uint16)
    measured, shift, _ = rig.measure(dn)
    assert shift.y_px == pytest.approx(-10, abs=0.1)
    assert np.isfinite(measured[0]).tolist() == [True, False]
    assert (measured[6] & ParticleFlag.EDGE).tolist() == [0, ParticleFlag.EDGE]


def test_an_empty_mask_set_measures_nothing_without_failing(scene):
    masks = MaskSet(np.zeros((100, 100), np.int32), np.empty(0, int), np.empty(0), np.empty(0), {}, 1.5, None)
    operator = compile_operator(np.full((100, 100), 6000, np.float32), masks, noise_of(scene), 1)
    measured, shift, _ = Rig(scene, operator).measure(np.full((100, 100), 800, np.uint16))
    assert measured[0].shape == (0,)
    assert (shift.y_px, shift.x_px) == (0.0, 0.0)


def test_without_any_background_a_flux_is_unknown_and_not_guessed(scene):
    masks = true_masks(scene)
    masks.excluded = masks.labels == 0
    reference_e = ((scene.reference(50) - scene.dark_dn) * scene.gain_e_per_dn).astype(np.float32)
    operator = compile_operator(reference_e, masks, noise_of(scene), 50)
    assert operator.ring_poor.all()
    measured, shift, _ = Rig(scene, operator).measure(scene.frame((0.3, -0.2)))
    assert np.isnan(measured[0]).all() and np.isnan(measured[1]).all()
    assert (measured[6] & ParticleFlag.BAD_RING).all()
    assert (shift.y_px, shift.x_px) == pytest.approx((0.3, -0.2), abs=0.02)
