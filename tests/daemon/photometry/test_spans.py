import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.photometry.spans import GROUP_SPANS, cover, extent, quantise
from kernels.lanes import SPAN_PX

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def _windows(draw):
    """(support, y0, x0, frame shape): any pixels of any window, often at the frame's right edge."""
    frame_height, frame_width = draw(st.integers(1, 20)), draw(st.integers(SPAN_PX, 60))
    height, width = draw(st.integers(1, frame_height)), draw(st.integers(1, frame_width))
    x0 = draw(st.sampled_from([0, frame_width - width, (frame_width - width) // 2]))
    y0 = draw(st.sampled_from([0, frame_height - height]))
    rng = np.random.default_rng(draw(SEEDS))
    support = rng.random((height, width)) < draw(st.sampled_from([0.0, 0.03, 0.3, 1.0]))
    return support, y0, x0, (frame_height, frame_width)


@settings(max_examples=100, deadline=None)
@given(_windows())
def test_every_pixel_is_covered_exactly_once_and_inside_the_frame(window):
    support, y0, x0, (frame_height, frame_width) = window
    spans = cover(support, y0, x0, frame_width)
    assert len(spans.start) % GROUP_SPANS == 0
    assert (spans.start >= 0).all() and (spans.start + SPAN_PX <= frame_height * frame_width).all()
    assert (spans.start % frame_width <= frame_width - SPAN_PX).all()  # none runs on into the next line
    times = np.zeros(frame_height * frame_width, int)
    np.add.at(times, spans.index[spans.own.reshape(-1)], 1)
    assert times.max(initial=0) <= 1
    rows, columns = np.nonzero(support)
    assert (times[(rows + y0) * frame_width + columns + x0] == 1).all()


@settings(max_examples=40, deadline=None)
@given(_windows(), SEEDS)
def test_values_are_taken_from_the_pixels_they_stand_for(window, seed):
    support, y0, x0, (frame_height, frame_width) = window
    rng = np.random.default_rng(seed)
    plane = np.where(support, rng.uniform(1, 2, support.shape), 0.0)
    spans = cover(support, y0, x0, frame_width)
    order = spans.sorted_along(rng.normal(size=support.shape))
    frame = np.zeros((frame_height, frame_width))
    frame[y0 : y0 + support.shape[0], x0 : x0 + support.shape[1]] = plane
    for some in (spans, order):
        taken = some.take(plane)
        own = some.own.reshape(-1)
        np.testing.assert_array_equal(taken[own], frame.reshape(-1)[some.index[own]])
        assert (taken[~own] == 0.0).all()
        assert taken.sum() == pytest.approx(plane.sum())


def test_spans_are_few():
    """A row is read from its first to its last pixel and not more than one span beyond."""
    support = np.zeros((4, 40), bool)
    support[1, 3:20] = True
    support[2, 5] = True
    spans = cover(support, 10, 7, 100)
    used = spans.own.any(axis=1)
    assert spans.start[used].tolist() == [1110, 1118, 1126, 1212]
    assert used.tolist() == [True] * 4 + [False] * (-4 % GROUP_SPANS)


def test_sorting_puts_what_lies_together_together_and_padding_last():
    support = np.ones((6, 30), bool)
    coordinate = np.broadcast_to(np.arange(30.0), support.shape)
    spans = cover(support, 0, 0, 30).sorted_along(coordinate)
    used = spans.own.any(axis=1)
    assert (np.diff(spans.column[used][:, SPAN_PX // 2]) >= 0).all()
    assert (np.diff(used.astype(int)) <= 0).all()


def test_nothing_is_covered_by_nothing():
    spans = cover(np.zeros((3, 9), bool), 4, 5, 50)
    assert spans.start.size == 0
    assert spans.take(np.ones((3, 9))).size == 0


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 300), st.integers(0, 40), st.integers(0, 40))
def test_an_extent_leaves_out_only_zeros(seed, size, before, behind):
    row = np.random.default_rng(seed).integers(-2, 3, size)
    row[:before] = 0
    row[size - min(behind, size) :] = 0
    first, last = extent(row)
    assert 0 <= first <= last <= size
    assert not row[:first].any() and not row[last:].any()
    if row.any():
        used = np.flatnonzero(row)
        assert used[0] - first < 32 and last - used[-1] <= 32
    else:
        assert first == last


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 50), st.integers(0, 3))
def test_quantised_weights_are_within_half_a_step(seed, size, shares):
    rng = np.random.default_rng(seed)
    planes = rng.normal(0, 1, (5, size)) * 10.0 ** rng.integers(-6, 6, (5, 1))
    planes[:shares] = rng.uniform(0, 1, (shares, size))
    planes[4] = 0.0
    weights, scale = quantise(planes, shares)
    assert weights.dtype == np.int8
    assert (np.abs(weights.astype(int)) <= 127).all()
    assert (np.abs(weights * scale[:, None] - planes) <= 0.5001 * scale[:, None]).all()
    np.testing.assert_allclose(scale[:shares], 1 / 127)
    for row in range(shares, 4):
        assert not size or np.abs(weights[row]).max() == 127  # the byte is used to its end


def test_a_whole_share_stays_whole():
    weights, scale = quantise(np.array([[0.0, 0.5, 1.0]]), 1)
    assert weights.tolist() == [[0, 64, 127]]
    assert weights[0, 2] * scale[0] == pytest.approx(1.0)
