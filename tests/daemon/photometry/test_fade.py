from dataclasses import replace

import numpy as np
import pytest

from daemon.photometry.cycles import CycleBook, HalfMeasures
from daemon.photometry.fade import FADE, LAG, MIN_POPULATION, HealthBook, fitted_slopes
from daemon.photometry.likeness import Likeness
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half, ramp

COUNT = 20
LEFT = np.repeat([[2.0], [6.0], [13.0]], COUNT, axis=1)


def template() -> tuple[HalfMeasures, HalfMeasures]:
    book = CycleBook(np.arange(COUNT), np.ones(COUNT))
    x = 0.2 * np.repeat(ramp(200, 0, 1)[:, None], COUNT, axis=1)
    first = book.add(make_curves(make_half(0, 1), x, 1e-5), np.ones(COUNT, bool))
    return first, book.add(make_curves(make_half(1, -1, 3600.0, 7200.0), x[::-1], 1e-5), np.ones(COUNT, bool))


CHARGE, DISCHARGE = template()


def feed(book: HealthBook, cycle: int, gain: np.ndarray, lag: np.ndarray, alive: np.ndarray | None = None,
         light: np.ndarray | float = 0.0, only_second: bool = False):  # fmt: skip
    """One cycle whose curves are known to 2e-3: (P,) sizes, lags in swings, and moves of contrast."""
    rng = np.random.default_rng(cycle)
    last = None
    for half, sign in ((CHARGE, 1.0), (DISCHARGE, -1.0)):
        noise, way = rng.normal(0, 2e-3, (2, COUNT)), np.full(COUNT, 0.2 * sign)
        before = only_second and half is CHARGE
        size, moved = (1.0, 0.0) if before else (gain, light)
        likeness = Likeness(
            size + noise[0], np.full(COUNT, 2e-3), moved + 0.2 * (noise[1] - sign * lag), np.full(COUNT, 4e-4), way
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
    assert 5 < health.departed[3] <= 13


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


def stepped(light: float) -> float:
    """The worst score of a particle that loses 15 % of its curve at once, its contrasts moving by `light`."""
    book, worst = HealthBook(COUNT), 0.0
    for cycle in range(20):
        after = (np.arange(COUNT) == 2) & (cycle > 10)
        health = feed(book, cycle, np.where(after, 0.85, 1.0), np.zeros(COUNT), light=np.where(after, light, 0.0))
        worst = max(worst, np.nan_to_num(health.risk_score[2]))
    return worst


def test_a_step_that_nobody_saw_is_none_either() -> None:
    assert stepped(-0.15) < 3.4


def test_a_part_that_follows_no_more_is_a_loss() -> None:
    assert stepped(-0.15 * 0.1) > 5


def test_a_step_between_charge_and_discharge_leaves_its_cycle_out() -> None:
    book = HealthBook(COUNT)
    for cycle in range(20):
        light = np.where((np.arange(COUNT) == 2) & (cycle > 10), -0.1, 0.0)
        health = feed(book, cycle, 1.0 + light, np.zeros(COUNT), light=light, only_second=cycle == 11)
        assert health.fresh[2] == (cycle != 11)
    assert health.risk_score[2] < 3.4
    assert health.retention[2] == pytest.approx(1.0, abs=0.01)


def test_a_lag_that_jumps_is_left_out_once_and_believed_when_it_lasts() -> None:
    book, fresh = HealthBook(COUNT), []
    for cycle in range(20):
        lag = np.where((np.arange(COUNT) == 2) & ((cycle == 9) | (cycle >= 14)), 0.2, 0.0)
        fresh.append(bool(feed(book, cycle, np.ones(COUNT), lag).fresh[2]))
    assert [cycle for cycle, known in enumerate(fresh) if not known] == [9, 14]


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
    row = aged(12, {3: 0.01}).rows(np.arange(COUNT), np.full(COUNT, 0.1), np.zeros(COUNT, bool), LEFT)[3]
    assert (row["particle_id"], row["cycle"], row["warned"], row["failed"]) == (3, 11, 0, 0)
    assert (row["lead_lo_cycles"], row["lead_cycles"], row["lead_hi_cycles"]) == (2.0, 6.0, 13.0)
    assert row["loss_trend"] > 3 * row["loss_trend_sigma"] > 0


def test_slopes_of_gaps_and_of_too_few() -> None:
    x = np.arange(8.0)[:, None, None] * np.array([0.1, 0.2, 0.3])[:, None]
    x[3, 0] = np.nan
    x[3:, 2] = np.nan
    slope, sigma = fitted_slopes(x, np.full(x.shape, 0.01))
    assert slope[:2, 0] == pytest.approx([0.1, 0.2])
    assert np.isnan(slope[2, 0]) and np.isnan(sigma[2, 0])
