from dataclasses import replace

import numpy as np
import pytest

from daemon.photometry.likeness import LikenessBook, unknown_likeness
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half, ramp

COUNT = 12
MOVES = np.ones(COUNT, bool)


def half(gain: np.ndarray, behind: np.ndarray, stop: float = 1.0, sigma: float = 1e-4, seed: int = 0):
    """Ramps up to `stop` of the way; (P,) sizes and distances behind in swings of 0.2."""
    way = np.repeat((stop * ramp(300, 0, 1))[:, None], COUNT, axis=1)
    return make_curves(make_half(), 0.2 * gain * (way - behind * np.ones_like(way)), sigma, seed=seed)


def test_sizes_and_distances_come_back_beside_the_first_half() -> None:
    book = LikenessBook()
    even = half(np.ones(COUNT), np.zeros(COUNT))
    first = book.add(even, MOVES, 0)
    assert first.gain == pytest.approx(np.ones(COUNT), abs=2e-3)
    assert first.offset == pytest.approx(np.zeros(COUNT), abs=2e-4)
    gain, behind = np.ones(COUNT), np.zeros(COUNT)
    gain[3], behind[5] = 0.9, 0.04
    later = book.add(half(gain, behind, seed=1), MOVES, 0)
    assert later.gain == pytest.approx(gain, abs=3e-3)
    assert later.offset[5] == pytest.approx(-0.04 * 0.2, abs=3e-4)
    assert later.way == pytest.approx(np.full(COUNT, 0.2), rel=0.01)


def test_a_half_that_ends_earlier_is_no_loss() -> None:
    book = LikenessBook()
    book.add(half(np.ones(COUNT), np.zeros(COUNT)), MOVES, 0)
    short = book.add(half(np.ones(COUNT), np.zeros(COUNT), stop=0.8), MOVES, 0)
    assert short.gain == pytest.approx(np.ones(COUNT), abs=5e-3)


def test_sigma_is_what_the_gain_scatters_by() -> None:
    book = LikenessBook()
    book.add(half(np.ones(COUNT), np.zeros(COUNT), sigma=1e-6), MOVES, 0)
    likes = [book.add(half(np.ones(COUNT), np.zeros(COUNT), sigma=3e-3, seed=seed), MOVES, 0) for seed in range(20)]
    scatter = np.std([each.gain - np.median(each.gain) for each in likes])
    assert scatter == pytest.approx(np.mean([each.gain_sigma for each in likes]), rel=0.2)


def test_nothing_is_known_of_few_of_no_kind_and_of_particles_that_came_later() -> None:
    book, even = LikenessBook(), half(np.ones(COUNT), np.zeros(COUNT))
    assert np.isnan(book.add(even, MOVES, -1).gain).all()
    assert np.isnan(book.add(even, np.arange(COUNT) < 3, 0).gain).all()
    book.add(even, MOVES, 0)
    book.grow(COUNT + 1)
    wide = book.add(replace(even.grown(COUNT + 1)), np.ones(COUNT + 1, bool), 0)
    assert np.isnan(wide.gain[-1]) and np.isfinite(wide.gain[:-1]).all()
    assert np.isnan(unknown_likeness(2).gain).all()
