"""Axes of outlines, the drift left over, and gradients and shifts of parts whose truth is known."""

import numpy as np
import pytest

from daemon.engine.measures import MaskSet
from daemon.photometry.axial import SHAPE_PX, Axes, AxialRows, end_weights, left_over, quarters
from daemon.photometry.derive import SocTable

PSF = 1.5
CURVE = {"kind": "monotone", "contrast_knots": [0.0, 0.2], "soc_knots": [0.0, 1.0], "soc_sigma": 0.0}
STILL = np.zeros((3, 5))


def masks_of(shapes: list[tuple[float, float, float]]) -> MaskSet:
    """Ellipses of (semi-major, semi-minor, degrees from the x axis downwards)."""
    size = 100
    labels = np.zeros((size, size * len(shapes)), np.int32)
    y, x = np.indices((size, size)) - size / 2.0
    for i, (a, b, degrees) in enumerate(shapes):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        inside = ((x * c + y * s) / a) ** 2 + ((y * c - x * s) / b) ** 2 <= 1.0
        labels[:, i * size : (i + 1) * size][inside] = i + 1
    place = np.arange(len(shapes)) * 1.0
    return MaskSet(labels, np.arange(1, len(shapes) + 1), place, place, {}, PSF, None)


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 150.0])
def test_the_axis_is_that_of_the_outline_and_points_down(degrees):
    axes = Axes.of(masks_of([(25, 8, degrees)]))
    assert axes.why[0] == ""
    down, right = axes.direction[0]
    assert np.hypot(down, right) == pytest.approx(1.0)
    assert down > 0 or (abs(down) < 1e-6 and right > 0)
    turned = (np.degrees(np.arctan2(down, right)) - degrees + 90) % 180 - 90
    assert abs(turned) < 1.0
    assert axes.length_px[0] == pytest.approx(51, abs=2)
    np.testing.assert_allclose(axes.share[0].sum(axis=1), 1.0)
    # light that moves to the last end leaves the first
    assert axes.slip[0, 0] < -0.03
    assert axes.slip[0, 3] > 0.03
    np.testing.assert_allclose(axes.slip[0, 1:3], 0.0, atol=0.01)


def test_round_and_short_ones_say_so():
    axes = Axes.of(masks_of([(12, 11, 20.0), (5, 2.5, 0.0), (1, 1, 0.0), (20, 6, 70.0)]))
    assert axes.why.tolist() == ["round", "short", "short", ""]
    assert axes.rods.tolist() == [False, False, False, True]


def test_particles_that_come_later_leave_the_first_ones_alone():
    few, many = masks_of([(20, 6, 70.0)]), masks_of([(20, 6, 70.0), (12, 12, 0.0)])
    first = Axes.of(few)
    both = Axes.of(many, first)
    assert both.why.tolist() == ["", "round"]
    np.testing.assert_array_equal(both.direction[0], first.direction[0])
    assert len(Axes.of(masks_of([(12, 12, 0.0)]), None).why) == 1


def test_mixed_ends_are_restored():
    axes = Axes.of(masks_of([(16, 8, 0.0)]))
    true = np.array([-0.06, -0.01, 0.01, 0.07])
    ends = end_weights(axes.share)[0] @ (axes.share[0] @ true)
    assert ends == pytest.approx(true[[0, -1]], abs=2e-3)
    assert abs((axes.share[0] @ true)[0] - true[0]) > 2e-3


def test_drift_left_over_is_read_across_the_axes():
    rng = np.random.default_rng(3)
    angle = rng.uniform(0, np.pi, 40)
    across = np.stack([np.cos(angle), -np.sin(angle)], axis=1)
    sigma = np.full(40, 2e-3)
    moved = across @ [0.05, -0.03] + rng.normal(0, 2e-3, 40)
    moved[:3] += 0.5  # cracked
    moved[3] = np.nan
    drift, more = left_over(moved, across, sigma, np.zeros(40, int), np.zeros(1))
    spread = np.sqrt(drift[[2, 4]])
    assert np.abs((drift[:2] - [0.05, -0.03]) / spread).max() < 4.0
    assert spread.max() < 1e-3
    assert abs(more[0]) < 4e-6


def test_without_particles_drift_is_as_unknown_as_registration_leaves_it():
    drift, more = left_over(np.empty(0), np.empty((0, 2)), np.empty(0), np.empty(0, int), np.full(2, SHAPE_PX**2))
    np.testing.assert_allclose(drift, [0, 0, 0.01, 0, 0.01])
    assert np.isnan(more).all()
    one = left_over(np.array([0.0]), np.array([[1.0, 0.0]]), np.array([1e-3]), np.array([0]), np.zeros(1))[0]
    assert one[2] < 1e-5 < one[4]  # across it is known, along it is not


def row(**changes) -> dict:
    further = {
        "direction": [0.0, 1.0], "base_px": [0.2, 0.1], "base_sigma_px": 0.0, "shift_ratio_px": 5.0,
        "base": [0.125] * 8, "weights": [[1, 0, 0, 0], [0, 0, 0, 1]], "slip": [-0.1, 0.1], "tilt_px": [0.0, 0.0],
        "ratio": 3.0, "even": [0.0, 0.0], "even_covariance": [0.0, 0.0, 0.0],
    }  # fmt: skip
    return {"particle_id": 1, "further": further | changes}


def bins_of(first: float, last: float, n: int = 3) -> np.ndarray:
    middle = (first + last) / 2.0
    parts = 0.125 * (1.0 + np.repeat([first, middle, middle, last], 2))
    return np.tile(parts, (n, 1, 1))


def test_a_gradient_is_the_difference_of_the_ends_and_its_sigma_their_noise():
    rows, table = AxialRows([row()]), SocTable({0: CURVE}, 1)
    gradient, sigma = rows.gradient(table, bins_of(0.08, 0.12), np.full((3, 1), 1e-3), STILL)
    assert gradient == pytest.approx(np.full((3, 1), 0.2))
    assert sigma == pytest.approx(np.full((3, 1), 5.0 * 3.0 * 1e-3))
    assert quarters(bins_of(0.08, 0.12))[0, 0, 0] == pytest.approx(0.27)


def test_drift_left_over_is_no_gradient():
    """Of a particle at 0.1 that drifts by 0.05 px along its axis."""
    rows, table = AxialRows([row()]), SocTable({0: CURVE}, 1)
    drift = np.tile([9.0, 0.05, 1.0, 0.0, 0.01**2], (3, 1))
    bins = bins_of(0.1 - 0.005 * 1.1, 0.1 + 0.005 * 1.1)
    gradient, sigma = rows.gradient(table, bins, np.full((3, 1), 1e-3), drift)
    assert gradient == pytest.approx(np.zeros((3, 1)), abs=1e-9)
    assert sigma == pytest.approx(np.full((3, 1), 5.0 * np.hypot(3e-3, 0.2 * 0.01)))


def test_ends_that_answer_unlike_are_no_gradient_where_that_is_known():
    uneven = row(even=[0.0, 0.1], even_covariance=[0.0, 0.0, 0.02**2])
    gradient, sigma = AxialRows([uneven]).gradient(
        SocTable({0: CURVE}, 1), bins_of(0.095, 0.105), np.full((3, 1), 0.0), STILL
    )
    assert gradient == pytest.approx(np.zeros((3, 1)), abs=1e-9)
    assert sigma == pytest.approx(np.full((3, 1), 5.0 * 0.02 * 0.1))


@pytest.mark.parametrize(
    ("rows", "curves"),
    [
        ([row()], {}),
        ([row()], {0: CURVE | {"kind": "folded"}}),
        ([row()], {0: CURVE | {"kind": "end_members", "soc_sigma": None}}),
        ([None], {0: CURVE}),
        ([{"particle_id": 1, "further": None}], {0: CURVE}),
        ([row(base=[None] * 8)], {0: CURVE}),
    ],
)
def test_what_is_not_known_is_nan(rows, curves):
    gradient, sigma = AxialRows(rows).gradient(SocTable(curves, 1), bins_of(0.1, 0.1), np.full((3, 1), 1e-3), STILL)
    assert np.isnan(gradient).all()
    assert np.isnan(sigma).all()


def test_a_shift_is_along_the_axis_without_drift_and_what_a_tilted_background_feigns():
    rows = AxialRows([row(tilt_px=[0.3, 0.1])])
    drift = np.tile([7.0, 0.04, 0.0, 0.0, 0.003**2], (3, 1))
    # 0.06 of its own; a background's dipole of 0.3 px counts for less when the particle is brighter
    centroid = np.tile([0.9, 0.1 + 0.04 + 0.06 - 0.3 * 0.25 / 1.25], (3, 1, 1))
    shift, sigma = rows.shift(centroid, np.full((3, 1), 0.25), np.full((3, 1), 1e-3), drift)
    assert shift == pytest.approx(np.full((3, 1), 0.06))
    assert sigma == pytest.approx(np.full((3, 1), np.sqrt((5e-3 / 1.25) ** 2 + 0.003**2 + (0.1 * 0.2) ** 2)))
    assert np.isnan(AxialRows([None]).shift(centroid, np.zeros((3, 1)), np.zeros((3, 1)), drift)[0]).all()
