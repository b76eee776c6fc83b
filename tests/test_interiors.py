"""Scenes with interiors: the same particles as without, and fronts that stand where they are said to."""

from __future__ import annotations

import numpy as np
import pytest

from tests.interiors import BEYOND_EDGE, InteriorScene, order_coordinate
from tests.scenes import PAD_PX

ORDERS = ("core", "axial", "axial_back", "mixed")


@pytest.fixture(scope="module", params=ORDERS)
def scene(request) -> InteriorScene:
    return InteriorScene(
        seed=71, height=150, width=200, particles=3, radius_px=(8, 12), order=request.param, elongation=(1.3, 1.8)
    )


def test_an_even_inside_is_a_plain_particle(scene):
    even = [np.ones(len(one.order_px)) for one in scene.interiors]
    np.testing.assert_allclose(scene.interior_e(even), scene.mean_e(), rtol=1e-12)


def test_light_follows_the_transformed_fraction(scene):
    level = np.array([scene.fronts_e(np.full(scene.count, at), 0.5).sum() for at in (-1.0, 4.0, 100.0)])
    gained = (level - level[0]) / (0.5 * (scene.level_e * scene.area_px).sum())
    fractions = [one.fraction(one.front(4.0)) for one in scene.interiors]
    weights = scene.level_e * scene.area_px
    np.testing.assert_allclose(gained, [0.0, fractions @ weights / weights.sum(), 1.0], atol=2e-3)


def test_positions_and_fractions_are_inverse(scene):
    for one in scene.interiors:
        for fraction in (0.1, 0.5, 0.9):
            assert one.fraction(one.front(one.position_px(fraction))) == pytest.approx(fraction, abs=2e-3)
            assert one.fraction(one.front(one.position_px(fraction), 0.5)) == pytest.approx(fraction, abs=0.03)


def test_a_front_advances_by_its_length_times_its_way(scene):
    for one in scene.interiors:
        middle = one.position_px(0.5)
        gained = one.fraction(one.front(middle + 0.25)) - one.fraction(one.front(middle - 0.25))
        assert gained * one.area_px.sum() / 0.5 == pytest.approx(one.length_of_front_px(middle), rel=0.1)


def test_profiles_take_the_rank_from_the_surface():
    scene = InteriorScene(seed=72, height=120, width=150, particles=2, radius_px=(8, 12))
    shell = scene.profiles_e(lambda i, rank: (rank < 0.25).astype(float), 1.0) - scene.mean_e()
    labels = scene.labels()
    for i, (rows, columns, _) in enumerate(scene._patches):
        y, x = round(scene.y_px[i]), round(scene.x_px[i])
        assert shell[labels == i + 1].sum() > 0
        assert shell[y, x] < 0.05 * scene.level_e[i], "the core is dark"
        assert rows.start >= PAD_PX and columns.start >= PAD_PX


def test_coordinates_begin_at_the_outline():
    inside = np.zeros((40, 60), bool)
    inside[10:30, 10:50] = True
    depth = order_coordinate(inside, "core")
    forth, back = (order_coordinate(inside, order) for order in ("axial", "axial_back"))
    assert depth[10, 30] == depth[29, 30] == 1 - BEYOND_EDGE and depth[19, 30] == 10 - BEYOND_EDGE
    np.testing.assert_allclose(forth[20, 10:50], np.arange(40) + 0.5)
    np.testing.assert_allclose(forth[inside] + back[inside], 40.0)


def test_depths_below_a_round_outline_are_true_in_the_mean():
    y, x = np.meshgrid(np.arange(120.0), np.arange(120.0), indexing="ij")
    true = 50.3 - np.hypot(y - 59.6, x - 60.2)
    inside = true > 0
    ring = (true > 4) & (true < 30)
    error = (order_coordinate(inside, "core") - true)[ring]
    assert abs(error.mean()) < 0.1  # of a pixel of the fine grid
