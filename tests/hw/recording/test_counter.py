"""What row 0 of the times says of frames that were never recorded, and when it is not believed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.recording import open_recording
from hw.recording.counter import block_ids
from tests.hw.recording.builders import movie, write_h5

NAME = "row 0"


def ids(counter, places=None, t_s=None):
    """(numbers, notes)."""
    counter = np.asarray(counter, float)
    places = np.arange(len(counter)) if places is None else np.asarray(places)
    notes = []
    return block_ids(counter, places, t_s, NAME, notes).tolist(), notes


def test_jumps_are_lost_frames():
    found, notes = ids([7, 8, 9, 13, 14, 16, 17])
    assert found == [7, 8, 9, 13, 14, 16, 17]
    assert notes == ["row 0 taken as the camera's frame counter: 4 frames lost in 2 gaps"]


def test_a_whole_counter_needs_no_words():
    assert ids([3, 4, 5, 6]) == ([3, 4, 5, 6], [])
    assert ids([3]) == ([3], [])


def test_frames_left_out_of_the_file_are_none_of_the_cameras():
    found, notes = ids([0, 1, 4, 5, 9], places=[0, 1, 4, 5, 6])
    assert found == [0, 1, 4, 5, 9] and "3 frames lost in 1 gaps" in notes[0]


@pytest.mark.parametrize(
    "counter",
    [[0, 10, 20, 30, 40], [0.5, 1.5, 2.5, 3.5], [0, 1, np.nan, 3], [0, 1, np.inf, 3], [5, 5, 5, 5], [0, 900],
     [4, 3, 2, 1], [2.0**60, 2.0**60 + 4096, 2.0**60 + 8192], [0.0, 0.05, 0.1, 0.15]],
)  # fmt: skip
def test_what_is_no_counter_is_not_taken_for_one(counter):
    found, notes = ids(counter)
    assert found == list(range(len(counter)))
    assert len(notes) == 1 and notes[0].endswith("frames that the camera lost are not known")


def test_a_counter_that_begins_anew_goes_on():
    found, notes = ids([90, 91, 92, 0, 1, 4, 5, 6, 7])
    assert found == [90, 91, 92, 93, 94, 97, 98, 99, 100]
    assert "begins anew 1 times" in notes[0] and "2 frames lost in 1 gaps" in notes[1]


def test_a_jump_that_the_times_have_no_room_for_was_none():
    t_s = 0.01 * np.array([0, 1, 2, 6, 7, 8, 9, 10, 11])
    found, notes = ids([0, 1, 2, 6, 7, 10**9, 10**9 + 1, 10**9 + 2, 10**9 + 3], t_s=t_s)
    assert found == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    assert "begins anew 1 times" in notes[0] and "3 frames lost in 1 gaps" in notes[1]


def test_without_a_counter_there_are_places():
    assert block_ids(None, np.array([2, 3, 5]), None, NAME, []).tolist() == [2, 3, 5]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 10**6))
def test_every_loss_is_counted_while_most_frames_come(lost, first):
    counter = first + np.cumsum(1 + np.array(lost))
    found, _ = ids(counter, t_s=0.1 * counter)
    steps = counter[1:] - counter[:-1]
    if 2 * np.count_nonzero(steps == 1) >= len(steps):
        assert found == counter.tolist()
    else:
        assert found == list(range(len(lost)))


@given(st.lists(st.floats(), min_size=1, max_size=40))
def test_whatever_row_0_holds_the_numbers_rise(counter):
    t_s = np.arange(len(counter)) * 0.1
    for times in (None, t_s):
        found, _ = ids(counter, t_s=times)
        assert len(found) == len(counter) and all(b > a for a, b in pairwise(found))


def recorded(tmp_path, timing, **options):
    path = write_h5(tmp_path / "r.h5", movie(), camera_timing=timing)
    with open_recording(path, options) as recording:
        return recording


def test_row_0_of_the_times_is_read(tmp_path):
    counter = np.arange(20.0) + 2.0 * (np.arange(20) >= 8)
    recording = recorded(tmp_path, np.stack([counter, 0.01 * counter]))
    assert recording.block_id.tolist() == counter.astype(int).tolist()
    assert recording.frame_index.tolist() == list(range(20)) and recording.faults == []
    assert "row 0 of 'camera_timing' taken as the camera's frame counter: 2 frames lost in 1 gaps" in recording.notes


def test_frames_without_a_time_keep_the_count_right(tmp_path):
    counter = np.arange(20.0) + 2.0 * (np.arange(20) >= 8)
    timing = np.stack([counter, 0.01 * counter])
    timing[:, [4, 5]] = np.nan
    recording = recorded(tmp_path, timing)
    expected = np.delete(counter, [4, 5]).astype(int)
    assert recording.block_id.tolist() == expected.tolist() and recording.frames == 18


@pytest.mark.parametrize("timing", [0.01 * np.arange(20), 0.01 * np.arange(20)[None]])
def test_times_alone_are_no_counter(tmp_path, timing):
    recording = recorded(tmp_path, timing)
    assert recording.block_id.tolist() == list(range(20)) and not [n for n in recording.notes if "counter" in n]


def test_losses_are_known_with_a_given_interval_too(tmp_path):
    counter = np.arange(20.0) + 2.0 * (np.arange(20) >= 8)
    recording = recorded(tmp_path, np.stack([counter, 0 * counter]), frame_interval_s=0.5)
    assert recording.block_id[-1] == 21 and recording.t_s[-1] == pytest.approx(9.5)
