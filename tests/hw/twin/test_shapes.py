import numpy as np
import pytest
from scipy.ndimage import label

from hw.twin.sample import BOUND, make_sample
from hw.twin.shapes import blur_taps, make_shape, part_stack
from tests.hw.twin.conftest import options_of

SAMPLE = make_sample(options_of(particles=40, height_px=300, width_px=400))
TWO_PHASE = make_sample(options_of(particles=40, height_px=300, width_px=400, material="lfp"))
SHAPES = [make_shape(SAMPLE, i, 1.5) for i in range(40)]


def test_outlines_are_whole_and_of_about_the_discs_area():
    for i, shape in enumerate(SHAPES):
        assert label(shape.coverage >= 0.5)[1] == 1
        assert shape.area_px == pytest.approx(np.pi * SAMPLE.radius_px[i] ** 2, rel=0.12)


def test_outlines_differ_and_stay_within_their_bound():
    roundness = []
    for i, shape in enumerate(SHAPES):
        y, x = np.nonzero(shape.coverage > 0.01)
        reach = np.hypot(y + shape.top - SAMPLE.y_px[i], x + shape.left - SAMPLE.x_px[i])
        assert reach.max() <= BOUND * SAMPLE.radius_px[i] + 1
        roundness.append(shape.area_px / (np.pi * reach.max() ** 2))
    assert np.std(roundness) > 0.02


def test_the_order_map_is_uniform_over_the_area():
    for shape in SHAPES:
        inside = shape.coverage > 0
        weights, _ = np.histogram(shape.order[inside], bins=4, range=(0, 1), weights=shape.coverage[inside])
        np.testing.assert_allclose(weights / shape.area_px, 0.25, atol=0.02)


def test_a_core_shrinks_from_the_edge():
    shape = SHAPES[0]
    edge, core = (shape.order < 0.2) & (shape.coverage > 0), shape.order > 0.8
    y, x = np.mgrid[0 : shape.order.shape[0], 0 : shape.order.shape[1]]
    far = np.hypot(y + shape.top - SAMPLE.y_px[0], x + shape.left - SAMPLE.x_px[0])
    assert far[edge].mean() > 1.5 * far[core].mean()


def test_front_positions_rise_from_the_edge_to_the_depth():
    for shape in SHAPES:
        places = [shape.front_px(u) for u in np.linspace(-0.1, 1.1, 30)]
        assert (np.diff(places) >= 0).all() and places[0] == 0.5
        assert 0.5 < places[-1] / np.sqrt(shape.area_px / np.pi) < 1.1


def test_waves_cross_along_the_major_axis():
    waves = [(i, s) for i in range(40) if (s := make_shape(TWO_PHASE, i, 1.5)).axial]
    assert 8 < len(waves) < 32
    for _, shape in waves:
        y, x = np.nonzero(shape.coverage >= 0.5)
        axis = np.linalg.svd(np.stack([y - y.mean(), x - x.mean()]), full_matrices=False)[0][:, 0]
        along = axis[0] * y + axis[1] * x
        assert abs(np.corrcoef(along, shape.order[y, x])[0, 1]) > 0.9
        assert shape.front_px(0.0) == pytest.approx(0, abs=1e-9)
        assert shape.front_px(1.0) == pytest.approx(np.ptp(along), rel=0.15)


def test_solid_solutions_have_no_waves():
    assert not any(shape.axial for shape in SHAPES)


@pytest.mark.parametrize("sigma", [0.6, 1.5, 3.0])
def test_blur_taps_have_their_width(sigma):
    taps = blur_taps(sigma)
    at = np.arange(len(taps)) - len(taps) // 2
    assert len(taps) % 2 == 1 and taps.sum() == pytest.approx(1, abs=1e-6)
    assert (taps * at**2).sum() == pytest.approx(sigma**2 + 1 / 12, rel=0.02)  # a pixel's own width comes on top


def test_parts_sum_to_the_particle_and_share_its_area():
    shape = SHAPES[3]
    stack = part_stack(SAMPLE, shape, 3, 1.5, 8, 0, 0.0)
    assert stack.sum() == pytest.approx(shape.area_px, rel=1e-4)  # texture has mean 1
    sharp = part_stack(SAMPLE, shape, 3, 0.02, 8, 0, 0.0)
    np.testing.assert_allclose(sharp.sum(axis=0), shape.coverage * shape.texture, atol=1e-5)
    areas = (sharp / shape.texture).sum(axis=(1, 2)) / shape.area_px
    np.testing.assert_allclose(areas, 1 / 8, atol=0.03)


def test_a_crack_darkens_a_line_and_moves_the_fragment():
    shape = SHAPES[3]
    whole, broken, closed = (
        part_stack(SAMPLE, shape, 3, 1.5, 8, n, line).sum(axis=0) for n, line in ((0, 0), (1, 1.0), (1, 0.0))
    )
    assert 0.7 < broken.sum() / whole.sum() < 0.995
    assert closed.sum() == pytest.approx(whole.sum(), rel=0.05) and np.abs(closed - whole).max() > 0.05
    assert (whole - broken).max() > 0.2
    np.testing.assert_allclose(broken[0], 0, atol=1e-3)  # nothing reaches the patch's rim
