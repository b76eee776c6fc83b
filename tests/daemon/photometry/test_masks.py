from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from daemon.engine.measures import NoiseModel
from daemon.errors import RunError, RunReason
from daemon.photometry.masks import FALLBACK_PSF_SIGMA_PX, find_particles
from daemon.recipe import MaskSettings
from tests.scenes import PoissonScene

FOOTAGE = Path(__file__).parents[2] / "data" / "bulk_water.tif"
SHAPE = (240, 320)


def noise_of(scene):
    return NoiseModel(scene.gain_e_per_dn, scene.read_noise_e, scene.dark_dn)


def found_in(scene, frames=50, reference=None, **settings):
    reference = scene.reference(frames) if reference is None else reference
    return find_particles(reference, noise_of(scene), frames, MaskSettings(**settings), 96.0)


def matched(scene, masks, within_px=3.0):
    """(true index, found index) of particles and masks closer than `within_px`."""
    away, found = cKDTree(np.column_stack([masks.y_px, masks.x_px])).query(np.column_stack([scene.y_px, scene.x_px]))
    true = np.flatnonzero(away < within_px)
    return true, found[true]


def recall_and_precision(scene, masks):
    true, found = matched(scene, masks)
    return len(true) / scene.count, len(set(found)) / masks.count


SCENES = {
    "the reference figure": {"height": 600, "width": 960, "particles": 300, "radius_px": (5, 12)},
    "uneven light": {"unevenness": 0.5, "height": 480, "width": 640, "particles": 80},
    "static grain": {"texture_e": 400.0},
    "faint particles": {"particle_e": (300.0, 600.0)},
    "sharp optics": {"psf_sigma_px": 1.0},
    "blurred optics": {"psf_sigma_px": 2.2},
    "odd outlines": {"irregularity": 0.16, "height": 480, "width": 640, "particles": 80},
}


@pytest.mark.parametrize("name", SCENES)
def test_separate_particles_are_found(name):
    scene = PoissonScene(seed=21, **SCENES[name])
    recall, precision = recall_and_precision(scene, found_in(scene))
    assert recall >= 0.97
    assert precision >= 0.97


def test_one_frame_is_enough_for_bright_particles():
    scene = PoissonScene(seed=22)
    assert recall_and_precision(scene, found_in(scene, frames=1)) == (1.0, 1.0)


@pytest.mark.parametrize("psf_sigma_px", [1.0, 1.5, 2.0])
def test_area_is_that_of_the_particle_not_of_its_image(psf_sigma_px):
    scene = PoissonScene(seed=23, psf_sigma_px=psf_sigma_px, height=480, width=640, particles=80)
    masks = found_in(scene)
    true, found = matched(scene, masks)
    ratio = masks.table["area_px"][found] / scene.area_px[true]
    assert np.median(ratio) == pytest.approx(1, abs=0.02)
    assert np.mean(np.abs(ratio - 1) < 0.05) >= 0.95


@pytest.mark.parametrize("psf_sigma_px", [1.0, 1.5, 2.0])
def test_blur_is_measured(psf_sigma_px):
    scene = PoissonScene(seed=24, psf_sigma_px=psf_sigma_px)
    assert found_in(scene).psf_sigma_px == pytest.approx(psf_sigma_px, rel=0.06)


def test_given_blur_is_used_and_none_measurable_falls_back():
    assert found_in(PoissonScene(seed=24), psf_sigma_px=1.7).psf_sigma_px == 1.7
    faint = PoissonScene(seed=24, particle_e=(250.0, 300.0))
    assert found_in(faint, frames=2).psf_sigma_px == FALLBACK_PSF_SIGMA_PX


def test_brightness_is_what_the_particle_scatters():
    scene = PoissonScene(seed=25)
    masks = found_in(scene)
    true, found = matched(scene, masks)
    scattered_e = scene.level_e[true] * scene.area_px[true]
    np.testing.assert_allclose(masks.table["brightness_e"][found], scattered_e, rtol=0.02)


def test_touching_particles_are_mostly_split():
    scene = PoissonScene(seed=26, height=600, width=960, particles=60, touching_pairs=60)
    masks = found_in(scene)
    recall, precision = recall_and_precision(scene, masks)
    assert recall >= 0.8
    assert precision >= 0.9
    together = found_in(scene, split_touching=False)
    assert together.count <= 0.6 * scene.count


def test_labels_ids_and_table_belong_together():
    masks = found_in(PoissonScene(seed=27))
    assert masks.labels.shape == SHAPE
    assert masks.labels.dtype == np.int32
    assert masks.particle_id.tolist() == list(range(1, masks.count + 1))
    assert np.array_equal(np.unique(masks.labels), np.arange(masks.count + 1))
    assert np.array_equal(masks.table["area_px"], np.bincount(masks.labels.ravel())[1:])
    assert np.all(np.diff(masks.y_px) >= 0)
    middle = masks.labels[np.round(masks.y_px).astype(int), np.round(masks.x_px).astype(int)]
    assert np.array_equal(middle, masks.particle_id)


def test_ids_do_not_depend_on_the_noise():
    scene = PoissonScene(seed=28)
    first, again, noisier = found_in(scene), found_in(scene), found_in(scene, frames=10)
    for other in (again, noisier):
        assert other.count == first.count
        # particles whose centres are level to a tenth of a pixel may change places, no others
        np.testing.assert_allclose(other.y_px, first.y_px, atol=0.15)
        assert np.mean(np.abs(other.x_px - first.x_px) < 0.3) >= 0.9


def test_the_same_reference_gives_the_same_masks():
    scene = PoissonScene(seed=28)
    reference = scene.reference(50)
    first, again = found_in(scene, reference=reference), found_in(scene, reference=reference.copy())
    assert np.array_equal(first.labels, again.labels)


def test_particles_near_the_edge_are_left_out():
    scene = PoissonScene(seed=29, margin_px=-4.0, particles=40)
    for border_px in (0, 12, 30):
        masks = find_particles(scene.reference(50), noise_of(scene), 50, MaskSettings(), None, border_px=border_px)
        y, x = np.nonzero(masks.labels)
        assert min(y.min(), x.min()) >= border_px
        assert max(y.max() - SHAPE[0], x.max() - SHAPE[1]) < -border_px


def test_area_bounds():
    scene = PoissonScene(seed=30)
    areas = found_in(scene).table["area_px"]
    low, high = np.quantile(areas, [0.3, 0.7]).astype(int)
    bounded = found_in(scene, min_area_px=int(low), max_area_px=int(high)).table["area_px"]
    assert bounded.min() >= low
    assert bounded.max() <= high
    assert 0 < len(bounded) < len(areas)


def test_dark_particles():
    scene = PoissonScene(seed=31)
    turned = np.float32(2_000) - scene.reference(50)
    bright = found_in(scene)
    for polarity in ("dark", "both", "auto"):
        dark = found_in(scene, reference=turned, polarity=polarity)
        assert dark.count == bright.count
        assert np.all(dark.table["brightness_e"] < 0)
    assert refusal(turned, noise_of(scene), "bright").reason is RunReason.NO_PARTICLES


def test_both_polarities_at_once():
    scene = PoissonScene(seed=32)
    reference = scene.reference(50)
    reference[:, : SHAPE[1] // 2] = 2 * np.median(reference) - reference[:, : SHAPE[1] // 2]
    masks = found_in(scene, reference=reference, polarity="both")
    inside = np.abs(scene.x_px - SHAPE[1] / 2) > 20
    true, found = matched(scene, masks)
    assert set(np.flatnonzero(inside)) <= set(true)
    expected = np.where(scene.x_px[true] < SHAPE[1] / 2, -1, 1)
    assert np.array_equal(np.sign(masks.table["brightness_e"][found])[inside[true]], expected[inside[true]])


def test_nan_pixels_and_patches_are_survived():
    scene = PoissonScene(seed=33)
    reference = scene.reference(50)
    reference[::17, ::13] = np.nan
    reference[100:130, 40:90] = np.nan
    masks = found_in(scene, reference=reference)
    away = (np.abs(scene.y_px - 115) > 35) | (np.abs(scene.x_px - 65) > 45)
    true, _ = matched(scene, masks)
    assert len(set(np.flatnonzero(away)) - set(true)) <= 1
    assert np.isfinite(masks.table["brightness_e"]).all()


def test_saturated_particles_are_particles():
    scene = PoissonScene(seed=34)
    clipped = np.minimum(scene.reference(50), np.float32(1_500))
    assert recall_and_precision(scene, found_in(scene, reference=clipped)) == (1.0, 1.0)


def refusal(reference, noise=None, polarity="auto"):
    settings = MaskSettings(polarity=polarity)
    with pytest.raises(RunError) as error:
        find_particles(reference, noise or NoiseModel(8.0, 7.0, 64.0), 50, settings, None)
    return error.value


EMPTY = {
    "constant": np.full(SHAPE, 800.0, np.float32),
    "black": np.zeros(SHAPE, np.float32),
    "saturated": np.full(SHAPE, 4095.0, np.float32),
    "a slope": (np.indices(SHAPE)[1] * 10).astype(np.float32),
    "noise": np.random.default_rng(0).normal(800, 1.5, SHAPE).astype(np.float32),
    "noise beyond its model": np.random.default_rng(0).normal(800, 40, SHAPE).astype(np.float32),
    "smaller than a tile": np.full((5, 7), 800.0, np.float32),
    "not a number": np.full(SHAPE, np.nan, np.float32),
    "infinite": np.full(SHAPE, np.inf, np.float32),
    "no pixels": np.zeros((0, 0), np.float32),
    "not an image": np.zeros(100, np.float32),
}


@pytest.mark.parametrize("name", EMPTY)
def test_frames_without_particles_are_refused(name):
    error = refusal(EMPTY[name])
    assert error.reason is RunReason.NO_PARTICLES
    assert len(error.detail) > 30


def test_a_refusal_says_what_was_measured():
    scene = PoissonScene(seed=35)
    detail = refusal(np.float32(2_000) - scene.reference(50), noise_of(scene), "bright").detail
    assert "background" in detail
    assert "sigma" in detail
    darkest = float(detail.split("darkest ")[1].split(" ")[0])
    assert darkest < -100


def test_static_grain_alone_is_no_particle():
    scene = PoissonScene(seed=36, particles=0, texture_e=500.0)
    assert refusal(scene.reference(200), noise_of(scene)).reason is RunReason.NO_PARTICLES


def test_real_footage():
    """Bright-field latex spheres, in and out of focus: dark against the light."""
    tifffile = pytest.importorskip("tifffile")
    first = tifffile.imread(FOOTAGE, key=0).astype(np.float32)
    noise = NoiseModel(60.0, 10.0, 0.0, estimated=True)
    masks = find_particles(first, noise, 1, MaskSettings(polarity="dark", min_area_px=8), 351.0)
    assert 300 <= masks.count <= 800
    assert 10 <= np.median(masks.table["area_px"]) <= 60
    # a sphere in focus is 1 um wide and the blur adds as much again
    in_focus = masks.table["brightness_e"] < np.quantile(masks.table["brightness_e"], 0.2)
    assert 0.8 < np.median(masks.table["equivalent_diameter_um"][in_focus]) < 3.5


@pytest.mark.parametrize("core", ["dark", "bright", "off centre"])
def test_particles_in_two_phases_stay_whole(core):
    """A run may start in the middle of a charge, when surface and core differ."""
    scene = PoissonScene(seed=37, radius_px=(9.0, 14.0), particles=16, irregularity=0.08)
    y, x = np.indices(SHAPE)
    mean_e = scene.mean_e()
    for i in range(scene.count):
        shift = 0.35 * scene.radii_px[i] if core == "off centre" else 0.0
        away = np.hypot(y - scene.y_px[i] - shift, x - scene.x_px[i])
        inside = 0.5 * (1 - np.tanh((away - 0.55 * scene.radii_px[i]) / 1.5))
        mean_e += (0.4 if core == "bright" else -0.4) * scene.level_e[i] * inside
    reference = np.mean([scene.expose(mean_e) for _ in range(20)], axis=0).astype(np.float32)
    masks = found_in(scene, frames=20, reference=reference)
    assert masks.count == scene.count
    true, found = matched(scene, masks)
    assert len(true) == scene.count
    np.testing.assert_allclose(masks.table["area_px"][found], scene.area_px[true], rtol=0.16)
