from dataclasses import replace

import numpy as np
import pytest

from daemon.photometry.cycles import CycleBook, HalfMeasures
from daemon.photometry.fade import FADE, LAG, MIN_POPULATION, HealthBook, fitted_slopes, lead_cycles
from daemon.photometry.likeness import Likeness
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half, ramp

COUNT = 20


def template() -> tuple[HalfMeasures, HalfMeasures]:
    book = CycleBook(np.arange(COUNT), np.ones(COUNT))
    x = 0.2 * np.repeat(ramp(200, 0, 1)[:, None], COUNT, axis=1)
    first = book.add(make_curves(make_half(0, 1), x, 1e-5), np.ones(COUNT, bool))
    return first, book.add(make_curves(make_half(1, -1, 3600.0, 7200.0), x[::-1], 1e-5), np.ones(COUNT, bool))


CHARGE, DISCHARGE = template()


def feed(book: HealthBook, cycle: int, gain: np.ndarray, lag: np.ndarray, alive: np.ndarray | None = None):
    """One cycle whose curves are known to 2e-3: (P,) sizes and lags in swings."""
    rng = np.random.default_rng(cycle)
    last = None
    for half, sign in ((CHARGE, 1.0), (DISCHARGE, -1.0)):
        noise, way = rng.normal(0, 2e-3, (2, COUNT)), np.full(COUNT, 0.2 * sign)
        likeness = Likeness(
            gain + noise[0], np.full(COUNT, 2e-3), 0.2 * (noise[1] - sign * lag), np.full(COUNT, 4e-4), way
        )
        measures = replace(half, cycle=cycle, likeness=likeness, end_t_s=7200.0 * cycle)
        with np.errstate(all="ignore"):
            last = book.add(measures, np.ones(COUNT, bool) if alive is None else alive)
    return last


def aged(cycles: int, loss: dict[int, float], lag: dict[int, float] | None = None):
    """Health after `cycles` in which all fade by 0.1 % a cycle and some by their own share more, from cycle 8 on."""
    book, health = HealthBook(COUNT), None
    for cycle in range(cycles):
        later = max(cycle - 8, 0)
        gain, behind = np.full(COUNT, 0.999**cycle), np.zeros(COUNT)
        for index, share in loss.items():
            gain[index] *= 1.0 - share * later
        for index, share in (lag or {}).items():
            behind[index] += share * later
        health = feed(book, cycle, gain, behind)
    return health


def test_uniform_fade_is_nobody_s() -> None:
    health = aged(20, {})
    assert np.nanmax(health.risk_score) < 3.5
    assert health.retention == pytest.approx(np.ones(COUNT), abs=0.01)
    assert not health.failed.any()


def test_the_particle_that_loses_more_stands_out_with_its_loss() -> None:
    health = aged(20, {3: 0.01})
    assert health.risk_score.argmax() == 3
    assert health.risk_score[3] > 5
    assert health.scores[3, FADE] > abs(health.scores[3, LAG])
    assert health.trends[3, FADE] == pytest.approx(0.011, rel=0.2)
    assert health.retention[3] == pytest.approx(0.9, abs=0.02)
    assert 3 < health.lead_lo[3] <= health.lead_cycles[3] <= health.lead_hi[3]


def test_a_growing_lag_stands_out_alone() -> None:
    health = aged(20, {}, {5: 0.004})
    assert health.risk_score.argmax() == 5
    assert health.scores[5, LAG] > 5
    assert health.retention[5] == pytest.approx(1.0, abs=0.01)


def test_a_crack_is_a_step_and_no_trend() -> None:
    book = HealthBook(COUNT)
    for cycle in range(20):
        gain = np.ones(COUNT)
        gain[2] = 0.85 if cycle > 10 else 1.0
        if cycle == 10:
            book.step(2)
        health = feed(book, cycle, gain, np.zeros(COUNT))
        assert not health.fresh[2] or cycle != 10
    assert health.risk_score[2] < 3.5
    assert not health.failed[2]


def test_a_step_that_nobody_saw_is_none_either() -> None:
    book = HealthBook(COUNT)
    worst = 0.0
    for cycle in range(20):
        gain = np.where((np.arange(COUNT) == 2) & (cycle > 10), 0.85, 1.0)
        health = feed(book, cycle, gain, np.zeros(COUNT))
        worst = max(worst, np.nan_to_num(health.risk_score[2]))
    assert worst < 3.5


def test_dead_particles_have_failed_and_are_not_judged() -> None:
    book, alive = HealthBook(COUNT), np.arange(COUNT) != 4
    for cycle in range(6):
        health = feed(book, cycle, np.ones(COUNT), np.zeros(COUNT), alive)
    assert health.failed[4]
    assert np.isnan(health.risk_score[4])
    assert not health.failed[[0, 1, 2]].any()


def test_too_few_particles_tell_nothing() -> None:
    book = HealthBook(COUNT)
    assert feed(book, 0, np.ones(COUNT), np.zeros(COUNT), np.arange(COUNT) < MIN_POPULATION - 1) is None


def test_particles_that_came_later_begin_their_own_history() -> None:
    book = HealthBook(COUNT - 4)
    book.grow(COUNT)
    for cycle in range(8):
        health = feed(book, cycle, np.ones(COUNT), np.zeros(COUNT))
    assert len(health.risk_score) == COUNT
    assert np.isfinite(health.retention).all()


def test_rows_hold_what_is_known() -> None:
    row = aged(12, {3: 0.01}).rows(np.arange(COUNT), np.full(COUNT, 0.1), np.zeros(COUNT, bool))[3]
    assert (row["particle_id"], row["cycle"], row["warned"], row["failed"]) == (3, 11, 0, 0)
    assert row["loss_trend"] > 3 * row["loss_trend_sigma"] > 0


def test_slopes_of_gaps_and_of_too_few() -> None:
    x = np.arange(8.0)[:, None, None] * np.array([0.1, 0.2, 0.3])[:, None]
    x[3, 0] = np.nan
    x[3:, 2] = np.nan
    slope, sigma = fitted_slopes(x, np.full(x.shape, 0.01))
    assert slope[:2, 0] == pytest.approx([0.1, 0.2])
    assert np.isnan(slope[2, 0]) and np.isnan(sigma[2, 0])


def test_lead_is_when_the_loss_reaches_that_of_a_failed_particle() -> None:
    lost, slope = np.array([0.0, 0.0, 0.3, 0.0]), np.array([0.0223, 0.0223, 0.01, -0.01])
    middle, sooner, later = lead_cycles(lost, slope, np.full(4, 0.005), np.array([0.0223, 0.0, 0.01, 0.0]))
    assert middle[0] == pytest.approx(10, rel=0.01)
    assert middle[1] < middle[0]
    assert middle[2] == 0
    assert np.isinf(middle[3])
    assert (sooner <= middle).all() and (middle <= later).all()
