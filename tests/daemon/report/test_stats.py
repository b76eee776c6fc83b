from __future__ import annotations

import numpy as np
import pytest

from daemon.report.stats import medians, rank_correlation, share_interval, spread


def test_the_medians_interval_covers_it():
    """Nominal 95 %, from order statistics, whatever the distribution."""
    rng = np.random.default_rng(3)
    draws = rng.lognormal(size=(2000, 40))
    found = [spread(row) for row in draws]
    covered = np.mean([each.median_lo <= 1.0 <= each.median_hi for each in found])
    assert 0.945 <= covered <= 0.99
    assert found[0].q05 < found[0].q25 < found[0].median < found[0].q75 < found[0].q95


def test_too_few_values_have_no_interval():
    few = spread(np.array([1.0, 2.0, np.nan, 3.0]))
    assert few.count == 3 and few.median == 2.0 and np.isnan(few.median_lo)
    assert spread(np.array([np.nan])).count == 0 and np.isnan(spread(np.empty(0)).median)


def test_shares():
    low, high = share_interval(0, 50)
    assert low == 0.0 and 0.05 < high < 0.1
    assert np.isnan(share_interval(0, 0)).all()


def test_rank_correlation_and_when_there_is_none():
    x = np.arange(50.0)
    y = x + np.random.default_rng(4).normal(0, 10, 50)
    rho, low, high, count = rank_correlation(x, y)
    assert count == 50 and 0.6 < low < rho < high < 1.0
    assert np.isnan(rank_correlation(x[:9], y[:9])[0])
    assert np.isnan(rank_correlation(x, np.zeros(50))[0])
    y[5] = np.nan
    assert rank_correlation(x, y)[3] == 49


def test_medians_of_columns():
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan], [2.0, 7.0, np.inf]])
    np.testing.assert_array_equal(medians(values), [2.0, 6.0, np.nan])
    np.testing.assert_array_equal(medians(values, 3), [2.0, np.nan, np.nan])
    assert medians(np.empty((0, 2))).tolist() == pytest.approx([np.nan] * 2, nan_ok=True)
