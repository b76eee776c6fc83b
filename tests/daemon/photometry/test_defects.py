import numpy as np
import pytest

from daemon.photometry.defects import find_defects, find_hot, repair
from tests.measuring import Rig, noise_of, operator_of
from tests.scenes import PoissonScene


@pytest.fixture(scope="module")
def scene():
    return PoissonScene(seed=21, height=240, width=300, particles=16)


def _reference_e(scene, frames=50):
    return ((scene.reference(frames) - scene.dark_dn) * scene.gain_e_per_dn).astype(np.float32)


def test_hot_and_dead_pixels_are_found_wherever_they_lie(scene):
    image = _reference_e(scene)
    rng = np.random.default_rng(0)
    y, x = rng.integers(2, 238, 30), rng.integers(2, 298, 30)
    image[y[:15], x[:15]] = 32_000
    image[y[15:], x[15:]] = 10
    want = np.unique(y * 300 + x)
    np.testing.assert_array_equal(find_defects(image, noise_of(scene), 50), want)


@pytest.mark.parametrize("psf_sigma_px", [0.8, 1.5, 2.5])
@pytest.mark.parametrize("frames", [1, 50])
def test_a_sound_sensor_has_none(psf_sigma_px, frames):
    scene = PoissonScene(seed=22, height=240, width=300, particles=16, psf_sigma_px=psf_sigma_px, texture_e=150)
    assert len(find_defects(_reference_e(scene, frames), noise_of(scene), frames)) == 0


def test_a_scene_of_specks_is_not_a_broken_sensor(scene):
    rng = np.random.default_rng(1)
    image = np.where(rng.random((240, 300)) < 0.02, 30_000, 6_000).astype(np.float32)
    assert len(find_defects(image, noise_of(scene), 50)) == 0


def test_repaired_pixels_follow_their_neighbours():
    image = np.add.outer(np.arange(10.0), np.arange(10.0))
    broken = image.copy()
    broken[4, 5] = 1e6
    repair(broken, np.array([45]))
    np.testing.assert_allclose(broken, image)


def test_a_hot_pixel_at_a_masks_edge_moves_no_flux_when_the_scene_drifts(scene):
    operator = operator_of(scene)
    y, x = round(scene.y_px[0]), round(scene.x_px[0] + scene.radii_px[0] + 4)
    operator.defects = np.array([y * scene.width + x], np.int32)
    rig = Rig(scene, operator)
    fluxes = []
    for drift in ((0.0, 0.0), (0.0, 0.5), (0.0, 1.4)):
        frames = []
        for _ in range(6):
            dn = scene.frame(drift)
            dn[y, x] = 4000
            frames.append(rig.measure(dn)[0][0][0])
        fluxes.append(np.mean(frames))
    assert np.ptp(fluxes) / fluxes[0] < 0.004


def test_hot_pixels_are_found_in_the_dark_frame_too(scene):
    """Their level is subtracted, so the reference no longer shows them; their noise stays."""
    rng = np.random.default_rng(3)
    dark = rng.normal(64, 0.5, (240, 300)).astype(np.float32)
    y, x = rng.integers(2, 238, 20), rng.integers(2, 298, 20)
    dark[y, x] += rng.uniform(60, 900, 20).astype(np.float32)
    np.testing.assert_array_equal(find_hot(dark, noise_of(scene)), np.unique(y * 300 + x))


def test_a_dark_frames_own_pattern_is_no_defect(scene):
    rng = np.random.default_rng(4)
    columns = rng.normal(0, 3, 300)
    dark = (64 + columns + rng.normal(0, 2.0, (240, 300)) + np.linspace(0, 40, 240)[:, None]).astype(np.float32)
    assert len(find_hot(dark, noise_of(scene))) == 0
    assert len(find_hot(np.full((240, 300), 64, np.float32), noise_of(scene))) == 0
