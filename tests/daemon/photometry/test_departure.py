import numpy as np
import pytest

from daemon.photometry.departure import MIN_CYCLES, Scale, departures

P, N, SIGMA = 60, 24, 0.002
SCALE = Scale(np.array([True, False]), np.full(2, 0.001), np.full(2, 1e-4), np.full(2, 1e-4))


def levels(seed: int, sigma: float = SIGMA) -> np.ndarray:
    """(N, P, 2) noise about lines of each particle's own slope."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, sigma, (N, P, 2)) + np.arange(N)[:, None, None] * rng.normal(0, 0.001, (P, 2))


def told(series: np.ndarray, group: np.ndarray | None = None):
    cycle = np.arange(len(series))
    group = np.zeros(series.shape, int) if group is None else group
    return departures(cycle, series, np.full(series.shape, SIGMA), group, SCALE)


RAMP = np.maximum(np.arange(N) - (N - 9), 0) * 0.01


def test_noise_departs_rarely() -> None:
    scores = np.concatenate([told(levels(seed)).score for seed in range(20)])
    assert np.mean(scores > 3.4) < 0.02
    assert np.median(scores) < 2


def test_what_leaves_its_line_is_found_with_its_size_and_age() -> None:
    series = levels(1)
    series[:, 4, 0] += RAMP
    found = told(series)
    assert found.score.argmax() == 4
    assert found.score[4] > 6
    assert found.sizes[4, 0] == pytest.approx(RAMP[-1], rel=0.25)
    assert 5 <= found.age_cycles[4] <= 13
    assert found.scores[4, 0] > abs(found.scores[4, 1])


def test_only_growth_alarms_where_it_is_one_sided() -> None:
    series = levels(2)
    series[:, 4, 0] -= RAMP
    series[:, 5, 1] -= RAMP
    found = told(series)
    assert found.score[4] < 3.4
    assert found.score[5] > 6


def test_offsets_of_rates_and_steps_are_no_departure() -> None:
    series, group = levels(3), np.zeros((N, P, 2), int)
    group[1::2] = 1
    series[1::2] += np.random.default_rng(4).normal(0, 0.05, (P, 2))
    group[15:, 7, 0] += 2
    series[15:, 7, 0] += 0.1
    series[:, 4, 0] += RAMP
    found = told(series, group)
    assert np.mean(found.score > 3.4) < 0.1
    assert found.score[7] < 3.4
    assert found.score.argmax() == 4


def test_what_moves_all_more_or_less_is_nobody_s() -> None:
    rng = np.random.default_rng(6)
    focus = 0.02 * np.sin(np.arange(N) * 0.8)
    series = levels(5) + focus[:, None, None] * rng.normal(0, 1, P)[:, None]
    series[:, 4, 0] += RAMP
    found = told(series)
    assert found.score.argmax() == 4
    assert found.score[4] > 5
    assert np.mean(found.score > 3.4) < 0.05


def test_three_in_ten_that_depart_do_not_hide_each_other() -> None:
    series = levels(7)
    series[:, : int(0.3 * P), 0] += RAMP[:, None]
    assert np.mean(told(series).score[: int(0.3 * P)] > 3.4) > 0.9


def test_gaps_too_few_cycles_and_unknown_particles() -> None:
    assert np.isnan(told(levels(8)[: MIN_CYCLES - 1]).score).all()
    series = levels(8)
    series[:, 4, 0] += RAMP
    series[[3, 10, 18], 4] = np.nan
    series[:, 5] = np.nan
    series[: N - 4, 6] = np.nan
    found = told(series)
    assert found.score[4] > 5
    assert np.isnan(found.score[[5, 6]]).all()
    assert np.isnan(told(np.full((N, P, 2), np.nan)).score).all()
