"""Ways through particles: outlines finer than pixels, and what layers and bins see of a front."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from daemon.engine.measures import MaskSet
from daemon.photometry.fronts_geometry import AXIAL, CORE, FINE, GRID, Geometry, outline, places
from daemon.photometry.slices import completed
from tests.interiors import InteriorScene
from tests.measuring import Rig, operator_of, true_masks

FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)


@pytest.fixture(scope="module")
def scene() -> InteriorScene:
    return InteriorScene(
        seed=81, height=200, width=240, particles=5, radius_px=(8, 13), order=("core",) * 5, elongation=(1.4, 1.8),
        gap_px=12, irregularity=0.05,
    )  # fmt: skip


@pytest.fixture(scope="module")
def geometry(scene) -> Geometry:
    found = Geometry(true_masks(scene), scene.reference(50))
    completed(found.need(np.ones(scene.count, bool)))
    return found


def _place_errors(geometry, scene, way):
    grid = np.linspace(0, 1, GRID + 1)
    made = geometry.ways[way]
    return np.array([
        [
            np.interp(share, made.passed[i], grid * made.length_px[i]) - one.position_px(share)
            for share in FRACTIONS
        ]
        for i, one in enumerate(scene.interiors)
    ])  # fmt: skip


def test_depths_are_those_of_the_true_outline(geometry, scene):
    assert geometry.sharp.all()
    assert np.sqrt(np.mean(_place_errors(geometry, scene, CORE) ** 2)) < 0.05


def test_a_mask_alone_tells_them_to_some_tenths_of_a_pixel(scene):
    coarse = Geometry(true_masks(scene), None)
    coarse.work(100)
    assert not coarse.sharp.any()
    errors = _place_errors(coarse, scene, CORE)
    assert 0.02 < np.sqrt(np.mean(errors**2)) < 0.3


def test_distances_begin_at_the_upper_end():
    scene = InteriorScene(
        seed=82, height=200, width=240, particles=5, radius_px=(8, 13), order="axial", elongation=(1.4, 1.8), gap_px=12,
        irregularity=0.05,
    )  # fmt: skip
    geometry = Geometry(true_masks(scene), scene.reference(50))
    completed(geometry.need(np.ones(scene.count, bool)))
    assert np.sqrt(np.mean(_place_errors(geometry, scene, AXIAL) ** 2)) < 0.1


def test_responses_are_what_bins_and_layers_show(geometry, scene):
    """Noiseless frames of fronts at known places, measured by the engine itself."""
    rig = Rig(scene, operator_of(scene))
    still = [one.front(-5.0) for one in scene.interiors]
    whole = [one.front(99.0) for one in scene.interiors]
    # one alone: fronts in all at once look like a blur to the engine
    half = [scene.interiors[0].front(scene.interiors[0].position_px(0.5)), *still[1:]]
    whole[1:] = still[1:]
    layers = []
    for insides in (still, half, whole):
        mean_e = scene.interior_e([1 + 0.1 * inside for inside in insides])
        dn = np.rint(mean_e / scene.gain_e_per_dn + scene.dark_dn).astype(np.uint16)
        layers.append(rig.measure(dn)[0][2])
    seen = (layers[1] - layers[0]) / (layers[2] - layers[0])
    way = geometry.ways[CORE]
    at = scene.interiors[0].position_px(0.5) / way.length_px[0] * GRID
    wanted = [np.interp(at, np.arange(GRID + 1), way.response[0, :, k]) for k in range(4)]
    # and one alone still a little: what is left has the look of a blur
    left, blur = seen[0] - wanted, way.nuisance[0, 0]
    assert np.abs(left - blur * (left @ blur) / (blur @ blur)).max() < 0.03
    assert np.abs(left).max() < 0.12


def test_tables_run_from_nothing_to_everything(geometry):
    for way in geometry.ways:
        np.testing.assert_allclose(way.response[:, 0], 0.0)
        np.testing.assert_allclose(way.response[:, -1], 1.0, rtol=1e-5)
        assert (np.diff(way.response, axis=1) >= 0).all() and (np.diff(way.passed, axis=1) >= 0).all()
        np.testing.assert_allclose(way.drift[:, [0, -1]], 0.0, atol=1e-6)


def test_particles_are_made_once_and_a_few_at_a_time(scene):
    made = Geometry(true_masks(scene), None)
    made.work(2)
    assert np.isfinite(made.ways[CORE].length_px).tolist() == [True, True, False, False, False]
    wanted = np.zeros(scene.count, bool)
    wanted[4] = True
    completed(made.need(wanted))
    assert np.isfinite(made.ways[CORE].length_px).tolist() == [True, True, False, False, True]
    made.work(100)
    assert np.isfinite(made.ways[CORE].length_px).all()


def test_removed_and_tiny_particles_have_no_ways(scene):
    masks = true_masks(scene)
    active = np.ones(scene.count, bool)
    active[1] = False
    labels = np.where(masks.labels == 2, 0, masks.labels)
    y, x = np.nonzero(labels == 3)
    labels[y[5:], x[5:]] = 0
    made = Geometry(replace(masks, labels=labels, active=active), scene.reference(50))
    made.work(100)
    completed(made.need(np.ones(scene.count, bool)))
    assert np.isnan(made.ways[AXIAL].length_px).tolist() == [False, True, True, False, False]


def test_a_particle_that_the_reference_does_not_show_keeps_its_masks_outline(scene):
    masks, reference = true_masks(scene), scene.reference(50)
    y, x = np.nonzero(masks.labels == 1)
    around = slice(y.min() - 8, y.max() + 9), slice(x.min() - 8, x.max() + 9)
    reference[around] = np.median(reference)
    made = Geometry(masks, reference)
    made.work(100)
    assert made.sharp.tolist() == [False, True, True, True, True]
    assert np.isfinite(made.ways[CORE].length_px).all()


def test_no_particles_at_all():
    nothing = MaskSet(np.zeros((30, 40), np.int32), np.empty(0, np.int64), np.empty(0), np.empty(0), {}, 1.5, None)
    made = Geometry(nothing, None)
    made.work(3)
    completed(made.need(np.zeros(0, bool)))
    assert made.ways[CORE].length_px.shape == (0,)


def test_an_outline_of_a_given_area_has_it():
    mask = np.zeros((20, 24), bool)
    mask[5:15, 6:18] = True
    inside = outline(mask.astype(float), np.ones_like(mask), np.zeros_like(mask), 1.5, 120)
    assert inside.sum() == pytest.approx(120 * FINE**2, rel=0.01)
    along = np.broadcast_to(np.arange(24.0), (20, 24))
    depth, forth, axis = places(inside, along)
    np.testing.assert_allclose(np.abs(axis), [0.0, 1.0], atol=0.01)
    assert axis[1] > 0 and forth[inside].min() < 0.1 and 11.0 < forth[inside].max() < 13.5
    assert 4.0 < depth.max() < 5.6
