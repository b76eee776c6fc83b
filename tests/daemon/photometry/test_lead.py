import numpy as np
import pytest

from daemon.photometry.lead import PRIOR_MEDIAN_CYCLES, SHAPE, LeadBook

NONE = np.zeros(4, bool)


def mask(*places: int) -> np.ndarray:
    return np.isin(np.arange(4), places)


def test_only_those_warned_of_have_a_time() -> None:
    book = LeadBook(4)
    book.add(10, mask(1), NONE)
    low, middle, high = book.left(10)
    assert middle[1] == pytest.approx(PRIOR_MEDIAN_CYCLES)
    assert 1 < low[1] < middle[1] < high[1] < 20
    assert np.isnan(middle[[0, 2, 3]]).all()


def test_the_time_shrinks_as_cycles_pass_but_by_less_than_they_do() -> None:
    book = LeadBook(4)
    book.add(10, mask(1), NONE)
    assert book.left(10)[1, 1] - 3 < book.left(13)[1, 1] < book.left(10)[1, 1]


def test_failures_teach_and_so_do_those_that_live_on() -> None:
    soon, late = LeadBook(4), LeadBook(4)
    for book in (soon, late):
        book.add(10, mask(0, 1, 2), NONE)
    soon.add(12, NONE, mask(0, 1))
    late.add(22, NONE, mask(0, 1))
    for book in (soon, late):
        book.add(30, mask(3), NONE)
        assert np.isnan(book.left(30)[1, 0])
    assert soon.left(30)[1, 3] < PRIOR_MEDIAN_CYCLES < late.left(30)[1, 3]
    living = LeadBook(4)
    living.add(10, mask(0, 1, 2), NONE)
    living.add(18, mask(3), NONE)
    assert living.left(18)[1, 3] > PRIOR_MEDIAN_CYCLES


def test_what_outlives_them_all_has_no_time() -> None:
    book = LeadBook(4)
    book.add(10, mask(1), NONE)
    assert np.isnan(book.left(40)[:, 1]).all()


def test_many_failures_are_believed_and_covered() -> None:
    rng = np.random.default_rng(5)
    lasted = np.ceil(12.0 * rng.weibull(SHAPE, 400)).astype(int)
    book = LeadBook(400)
    book.add(0, np.arange(400) < 399, np.zeros(400, bool))
    for cycle in range(1, lasted.max() + 1):
        book.add(cycle, np.zeros(400, bool), lasted <= cycle)
    book.add(100, np.arange(400) == 399, np.zeros(400, bool))
    low, middle, high = book.left(100)[:, 399]
    assert middle == pytest.approx(np.median(lasted), rel=0.15)
    assert np.mean((lasted >= low) & (lasted <= high)) == pytest.approx(0.9, abs=0.05)


def test_it_goes_on_with_more_particles() -> None:
    book = LeadBook(2)
    book.add(3, np.array([True, False]), np.zeros(2, bool))
    book.grow(4)
    book.add(4, mask(3), NONE)
    assert np.isfinite(book.left(4)[1]).tolist() == [True, False, False, True]
