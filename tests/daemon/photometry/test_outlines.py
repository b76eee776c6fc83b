import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from daemon.photometry.edits import rasterised
from daemon.photometry.outlines import outline, outlines_of


@given(arrays(bool, (9, 11), elements=st.booleans(), fill=st.nothing()))
@settings(deadline=None, max_examples=300)
def test_drawing_an_outline_gives_its_pixels_again(mask) -> None:
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    for number in range(1, count + 1):
        whole = ndimage.binary_fill_holes(pieces == number)
        np.testing.assert_array_equal(rasterised(outline(whole), mask.shape), whole)


def test_a_rectangle_has_four_corners_between_pixels() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:5, 1:7] = True
    assert outline(mask) == [(1.5, 0.5), (1.5, 6.5), (4.5, 6.5), (4.5, 0.5)]


def test_pixels_at_the_frames_edge_have_an_outline_too() -> None:
    assert outline(np.ones((1, 1), bool)) == [(-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5)]


@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_touch_at_a_corner_are_one_outline(turned: bool) -> None:
    mask = np.eye(3, dtype=bool)
    mask = mask[:, ::-1] if turned else mask
    corners = outline(mask)
    assert len(corners) == 12
    np.testing.assert_array_equal(rasterised(corners, mask.shape), mask)


def test_every_label_that_has_pixels_is_outlined_in_the_frame() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[3:6, 4:9], labels[10:15, 20:25] = 1, 3
    found = outlines_of(labels)
    assert set(found) == {1, 3}
    assert found[3][0] == [9.5, 19.5]
    assert outlines_of(np.zeros((4, 4), np.int32)) == {}
