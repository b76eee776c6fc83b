import numpy as np
import pytest

from hw.camera.u3v.continuity import BlockIds, Repeats


@pytest.mark.parametrize("first, numbers", [(0, [0, 1, 4]), (1, [1, 2, 5]), (57, [0, 1, 4])])
def test_numbers_begin_anew_and_keep_their_gaps(first, numbers):
    ids = BlockIds(100.0)
    assert [ids.next(first + step, 0.01 * step) for step in (0, 1, 4)] == numbers


def test_after_an_interruption_the_time_tells_what_was_missed():
    ids = BlockIds(100.0)
    assert ids.next(0, 0.0) == 0 and ids.next(1, 0.01) == 1
    ids.interrupted()
    assert ids.next(0, 0.51) == 51 and ids.next(1, 0.52) == 52 and ids.reckoned == 49
    ids.interrupted()
    assert ids.next(9, 0.52) == 53  # never the same twice
    assert ids.reckoned == 49


def test_a_picture_that_repeats_is_timed_and_a_new_one_ends_it():
    repeats, rng = Repeats(), np.random.default_rng(1)
    one, other = (rng.integers(0, 256, 1000, np.uint8) for _ in range(2))
    assert [repeats.seen(picture, t_s) for t_s, picture in enumerate((one, one, one, other, one))] == [0, 1, 2, 0, 0]


def test_saturated_and_dark_pictures_do_not_count_and_sizes_may_change():
    repeats = Repeats()
    for t_s, level in enumerate((0, 0, 255, 255)):
        assert repeats.seen(np.full(500, level, np.uint8), t_s) == 0
    ramp = np.arange(300, dtype=np.uint8)
    assert repeats.seen(ramp, 5.0) == 0 and repeats.seen(ramp, 6.0) == 1.0
    assert repeats.seen(np.arange(200, dtype=np.uint8), 7.0) == 0
