from __future__ import annotations

import pytest

from hw.twin.u3v.timing import Exposures


def exposures(buffered: int = 3, period_s: float = 1.0, exposure_s: float = 0.5) -> Exposures:
    one = Exposures(buffered, 10)
    one.period_s, one.exposure_s = period_s, exposure_s
    return one


def test_frames_come_one_a_period_after_the_first_exposure() -> None:
    one = exposures()
    assert one.due_s() is None and one.take(5.0) is None and not one.running
    one.start(100.0, None)
    assert one.due_s() == 101.0 and one.take(100.9) is None
    taken = [one.take(now_s) for now_s in (101.0, 102.0, 103.5)]
    assert [(frame.block_id, frame.due_s) for frame in taken if frame] == [(10, 101.0), (11, 102.0), (12, 103.0)]
    one.stop()
    assert one.take(200.0) is None and one.due_s() is None


@pytest.mark.parametrize("wait_s", [4.0, 50.0, 1e9])
def test_the_oldest_are_lost_beyond_the_buffer_and_all_are_accounted_for(wait_s: float) -> None:
    one = exposures(buffered=3)
    one.start(0.0, None)
    frames = [one.take(wait_s) for _ in range(3)]
    assert one.take(wait_s) is None
    blocks = [frame.block_id for frame in frames if frame]
    assert blocks == list(range(blocks[0], blocks[0] + 3)) and one.lost == blocks[0] - 10
    assert one.lost + 3 == pytest.approx(wait_s, abs=2)
    assert frames[2] is not None and wait_s - 1.5 <= frames[2].due_s <= wait_s


def test_a_number_of_frames_and_a_new_start() -> None:
    one = exposures(buffered=10)
    one.start(0.0, 2)
    assert one.take(9.0) is not None and one.take(9.0) is not None and one.take(99.0) is None
    assert not one.running
    one.start(200.0, None)
    frame = one.take(201.0)
    assert frame is not None and frame.block_id == 10


def test_triggers() -> None:
    one = exposures()
    one.triggered = True
    one.trigger(0.0, 0.0)  # not started
    one.start(0.0, None)
    assert one.due_s() is None and one.take(50.0) is None
    one.lines = 5
    one.trigger(60.0, 0.25)
    one.trigger(60.5, 0.25)  # within the frame before it
    assert one.missed_triggers == 1 and one.due_s() == 60.75 and one.take(60.7) is None
    frame = one.take(60.75)
    assert frame is not None and (frame.block_id, frame.lines) == (10, 5)
    one.trigger(61.3, 0.0)
    assert one.due_s() == pytest.approx(61.8)
    one.triggered = False
    one.forget(70.0)
    assert one.lost == 1 and one.due_s() == 71.0  # it runs freely again


def test_skipped_blocks_count_as_lost() -> None:
    one = exposures()
    one.start(0.0, None)
    one.skip(4)
    frame = one.take(1.0)
    assert frame is not None and frame.block_id == 14 and one.lost == 4
