import numpy as np

from daemon.photometry.likeness import Likeness
from daemon.photometry.rescaled import Scales, rescaled_within

KEY = (0, 1)


def like(gain: list[float], offset: list[float], sigma: float = 1e-4) -> Likeness:
    count = len(gain)
    return Likeness(np.array(gain), np.full(count, 1e-3), np.array(offset), np.full(count, sigma), np.full(count, 0.2))


def test_light_that_steps_within_a_cycle_scales_and_moves_alike() -> None:
    # cracked, out of contact, lagging, as before, unknown
    found = rescaled_within(
        like([1.0, 1.0, 1.0, 1.0, np.nan], [0.0, 0.0, 0.0, 0.0, np.nan]),
        like([0.9, 0.9, 1.0, 1.0, 1.0], [-0.1, -0.01, -0.03, 1e-3, 0.1]),
    )
    assert found.tolist() == [True, False, False, False, False]


def stepped(scales: Scales, gain: list[float], offset: list[float], segment: list[int] | None = None) -> list[bool]:
    halves = like(gain, offset), like(gain, offset)
    return scales.stepped(KEY, -np.log(gain), halves, np.array(segment or [0] * len(gain))).tolist()


def test_light_that_stepped_since_the_last_cycle_at_a_rate_is_found_once() -> None:
    scales = Scales(3)
    assert stepped(scales, [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]) == [False] * 3
    assert stepped(scales, [0.9, 0.9, 1.1], [-0.1, -0.01, 0.1]) == [True, False, True]
    assert stepped(scales, [0.9, 0.9, 1.1], [-0.1, -0.01, 0.1], [1, 0, 1]) == [False] * 3


def test_steps_already_known_are_not_found_again() -> None:
    scales = Scales(1)
    stepped(scales, [1.0], [0.0])
    assert stepped(scales, [0.9], [-0.1], [1]) == [False]


def test_gaps_keep_what_was_before() -> None:
    scales = Scales(1)
    stepped(scales, [1.0], [0.0])
    assert stepped(scales, [np.nan], [np.nan]) == [False]
    assert stepped(scales, [0.9], [-0.1]) == [True]


def test_it_goes_on_with_more_particles() -> None:
    scales = Scales(1)
    stepped(scales, [1.0], [0.0])
    scales.grow(2)
    assert stepped(scales, [0.9, 0.9], [-0.1, -0.1]) == [True, False]
