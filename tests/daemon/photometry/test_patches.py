import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from daemon.engine.measures import MaskSet
from daemon.photometry.patches import (
    EDGE_PX,
    RING_GAP_PX,
    RING_MARGIN_PX,
    RING_WIDTH_PX,
    Patch,
    along_axis,
    axial_bins,
    layers,
    smooth_step,
)

GROW_PX = 3.0
HEIGHT, WIDTH = 90, 120


def _patches(labels, excluded=None):
    count = labels.max()
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, np.arange(1, count + 1))).reshape(-1, 2)
    masks = MaskSet(labels, np.arange(count), centres[:, 0], centres[:, 1], {}, 1.5, None, excluded=excluded)
    occupied = (labels > 0) if excluded is None else (labels > 0) | excluded
    distance = ndimage.distance_transform_edt(~occupied)
    boxes = ndimage.find_objects(labels)
    return [Patch(masks, i, boxes[i], occupied, distance, GROW_PX) for i in range(count)]


def _disc(y, x, radius):
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.hypot(rows - y, columns - x) <= radius


def _labels(*shapes):
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    for number, shape in enumerate(shapes, 1):
        labels[shape & (labels == 0)] = number
    return labels


def _framed(patch, plane):
    frame = np.zeros((HEIGHT, WIDTH), plane.dtype)
    frame[patch.window] = plane
    return frame


def _blob(seed):
    """Any connected shape of at least 40 pixels, away from the frame's edge."""
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH)), 3.0)
    rough[:22], rough[-22:], rough[:, :22], rough[:, -22:] = -1, -1, -1, -1
    parts, _ = ndimage.label(rough > 0.02)
    biggest = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    return biggest if biggest.sum() >= 40 else _disc(45, 60, 4)


def _rod(angle_deg, length_px=50.0, width_px=9.0):
    """A rod whose axis points `angle_deg` down from level."""
    y, x = np.mgrid[-40:41, -40:41]
    turn = np.deg2rad(angle_deg)
    along, across = y * np.sin(turn) + x * np.cos(turn), x * np.sin(turn) - y * np.cos(turn)
    return (np.abs(along) <= length_px / 2) & (np.abs(across) <= width_px / 2), along


def test_the_soft_edge_has_no_kinks_and_is_odd_about_its_middle():
    t = np.linspace(-0.5, 1.5, 2001)
    step = smooth_step(t)
    assert step.min() == 0.0 and step.max() == 1.0
    np.testing.assert_allclose(step + step[::-1], 1.0, atol=1e-12)
    assert np.abs(np.diff(step, 2)).max() < 1e-5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_layers_are_quarters_from_the_edge_inwards(seed):
    inside = _blob(seed)
    layer, depth = layers(inside), ndimage.distance_transform_edt(inside)
    area = np.bincount(layer[inside], minlength=4)
    assert np.ptp(area) <= 1
    assert (layer[~inside] == 0).all()
    for outer in range(3):
        assert depth[inside & (layer == outer)].max() <= depth[layer == outer + 1].min()


@pytest.mark.parametrize("inside", [np.zeros((5, 5), bool), np.eye(5, dtype=bool) & (np.arange(5) == 2)])
def test_layers_and_bins_of_next_to_nothing(inside):
    assert layers(inside).max() == 0
    bins = axial_bins(inside, along_axis(inside))
    assert bins.min() >= 0 and bins.max() <= 7


@pytest.mark.parametrize("angle_deg", [0, 90, 5, 30, 45, 77, 100, 135, 163, 172])
def test_axial_bins_are_eighths_along_a_rod_at_any_angle(angle_deg):
    inside, truth = _rod(angle_deg)
    along = along_axis(inside)
    np.testing.assert_allclose(along, truth, atol=0.6)  # a few pixels at its rim turn the axis by as much
    bins = axial_bins(inside, along)
    area = np.bincount(bins[inside], minlength=8)
    assert len(area) == 8
    # a level or upright rod has whole columns of equal place
    assert np.abs(area - inside.sum() / 8).max() <= 9
    middles = [truth[inside & (bins == k)].mean() for k in range(8)]
    np.testing.assert_allclose(middles, (np.arange(8) - 3.5) * 50.0 / 8, atol=1.0)


def test_the_axis_of_a_rod_points_down_the_image_or_else_to_the_right():
    level, upright = (along_axis(_rod(angle)[0]) for angle in (0, 90))
    assert level[40, 80] > 20 and level[40, 0] < -20
    assert upright[80, 40] > 20 and upright[0, 40] < -20


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_axial_bins_hold_no_more_than_an_eighth_and_a_line(seed):
    inside = _blob(seed)
    along = along_axis(inside)
    bins = axial_bins(inside, along)
    assert (np.diff(bins.ravel()[np.argsort(along, axis=None)]) >= 0).all()
    _, equal = np.unique(np.round(along[inside], 9), return_counts=True)
    area = np.bincount(bins[inside], minlength=8)
    assert np.abs(area - inside.sum() / 8).max() <= equal.max() + 1


def test_a_lone_particle_has_all_of_its_skirt():
    (patch,) = _patches(_labels(_disc(45, 60, 8)))
    outside = ndimage.distance_transform_edt(~_disc(45, 60, 8))
    mask = _framed(patch, patch.mask)
    assert (mask[outside <= GROW_PX] == 1.0).all()
    assert (mask[outside >= GROW_PX + EDGE_PX] == 0.0).all()
    assert (mask[(outside > GROW_PX + 0.2) & (outside < GROW_PX + EDGE_PX - 0.2)] % 1.0 > 0.0).all()
    assert patch.centre == pytest.approx((45, 60))


@settings(max_examples=40, deadline=None)
@given(st.floats(10, 16), st.floats(0, 2 * np.pi), st.floats(4, 9))
def test_shares_of_touching_masks_add_to_one(apart, angle, radius):
    labels = _labels(_disc(45, 60, 7), _disc(45 + apart * np.sin(angle), 60 + apart * np.cos(angle), radius))
    one, two = (_framed(patch, patch.mask) for patch in _patches(labels))
    both = one + two
    nearest = [ndimage.distance_transform_edt(labels != number) for number in (1, 2)]
    within = np.maximum(*nearest) <= GROW_PX
    np.testing.assert_allclose(both[within | (labels > 0)], 1.0, atol=1e-12)
    assert both.max() <= 1.0 + 1e-12
    assert (one[labels == 1] > two[labels == 1]).mean() > 0.95


def test_the_border_between_touching_particles_is_soft():
    """A mask's edge bends by its gradient: a step would pass a drifting neighbour's light on pixel by pixel."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    left = (np.abs(rows - 45) < 10) & (columns >= 45) & (columns < 60)
    right = (np.abs(rows - 45) < 10) & (columns >= 60) & (columns < 75)
    one, two = (_framed(patch, patch.mask)[45] for patch in _patches(_labels(left, right)))
    assert 0.5 < one[59] < 1.0 and 0.0 < one[60] < 0.5
    np.testing.assert_allclose(one + two, np.where((columns[45] >= 42) & (columns[45] <= 77), 1.0, one + two))
    np.testing.assert_allclose(two[60], one[59])


def test_light_of_no_particle_takes_its_share_too():
    shape, foreign = _disc(45, 60, 8), _disc(45, 79, 8)
    (patch,) = _patches(_labels(shape), excluded=foreign)
    mask = _framed(patch, patch.mask)
    assert mask[45, 66] == 1.0
    assert 0.0 < mask[45, 69] < 1.0
    assert mask[foreign].max() == 0.0


def test_rings_are_free_of_everybody_and_keep_off_the_frames_edge():
    labels = _labels(_disc(30, 40, 9), _disc(30, 64, 8), _disc(70, 14, 6))
    distance = ndimage.distance_transform_edt(labels == 0)
    for number, patch in enumerate(_patches(labels), 1):
        ring = _framed(patch, patch.ring)
        outside = ndimage.distance_transform_edt(labels != number)
        near = GROW_PX + EDGE_PX + RING_GAP_PX
        assert ring.any()
        assert distance[ring].min() > near - 0.5
        assert outside[ring].min() > near and outside[ring].max() <= near + RING_WIDTH_PX
        rows, columns = np.nonzero(ring)
        assert rows.min() >= RING_MARGIN_PX and rows.max() < HEIGHT - RING_MARGIN_PX
        assert columns.min() >= RING_MARGIN_PX and columns.max() < WIDTH - RING_MARGIN_PX


@pytest.mark.parametrize(("y", "x"), [(45, 60), (3, 60), (45, 2), (HEIGHT - 4, WIDTH - 3)])
def test_the_box_holds_mask_and_ring(y, x):
    (patch,) = _patches(_labels(_disc(y, x, 5)))
    rows, columns = np.nonzero(_framed(patch, (patch.mask > 0) | patch.ring))
    top, bottom, left, right = patch.box
    assert top <= rows.min() and bottom >= rows.max() and left <= columns.min() and right >= columns.max()
    assert min(top, left) >= 0 and bottom < HEIGHT and right < WIDTH
    assert patch.box[0] >= rows.min() - 1 and patch.box[3] <= columns.max() + 1
