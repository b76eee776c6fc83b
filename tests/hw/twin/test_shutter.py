import pytest

from hw.twin import shutter as module
from hw.twin.shutter import IMAGE_BUFFER_MB, Shutter


class Clock:
    """`time` that passes only by sleeping, or by setting `now_s`."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch):
    one = Clock()
    monkeypatch.setattr(module, "time", one)
    return one


@pytest.fixture
def shutter(clock):
    """A hundred frames a second, eight of them in the buffer."""
    one = Shutter(100.0, 8e-3, 1000)
    one.start()
    return one


def test_the_buffer_is_the_cameras_memory_in_whole_frames():
    assert Shutter(100.0, IMAGE_BUFFER_MB, 960 * 600 * 2).buffered == 111
    assert Shutter(100.0, 1.0, 5_000_000).buffered == 1


def test_frames_drawn_late_are_kept_for_a_time_at_most():
    one = Shutter(100.0, IMAGE_BUFFER_MB, 1000, longest_s=0.5)
    assert one.buffered == 50
    one.frame_rate_hz = 1.0
    assert one.buffered == 1


def test_frames_come_at_their_rate(shutter, clock):
    found = [shutter.next(clock.now_s + 1) for _ in range(5)]
    assert [block for block, _ in found] == [0, 1, 2, 3, 4]
    assert [due_s for _, due_s in found] == pytest.approx([1000.01, 1000.02, 1000.03, 1000.04, 1000.05])
    assert clock.now_s == pytest.approx(1000.05)


def test_a_wait_ends_at_its_deadline_and_loses_nothing(shutter, clock):
    assert shutter.next(clock.now_s + 0.004) is None
    assert clock.now_s == pytest.approx(1000.004)
    assert shutter.next(clock.now_s + 1)[0] == 0


@pytest.mark.parametrize("late, first", [(8, 0), (9, 1), (50, 42)])
def test_a_late_host_finds_what_the_buffer_holds(shutter, clock, late, first):
    clock.now_s += late / 100 + 0.001  # `late` frames were read out
    found = [shutter.next(clock.now_s)[0] for _ in range(late - first)]
    assert found == list(range(first, late))
    assert shutter.next(clock.now_s) is None


def test_a_new_rate_goes_on_from_the_last_frame(shutter, clock):
    for _ in range(10):
        shutter.next(clock.now_s + 1)
    shutter.frame_rate_hz = 50.0
    assert shutter.next(clock.now_s + 1) == (10, pytest.approx(1000.12))


def test_block_ids_start_anew(shutter, clock):
    shutter.next(clock.now_s + 1)
    clock.now_s += 5.0
    shutter.start()
    assert shutter.next(clock.now_s + 1) == (0, pytest.approx(clock.now_s))
