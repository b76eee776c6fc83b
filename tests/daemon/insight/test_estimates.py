from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from daemon.insight.estimates import Estimate, normal_scores, standardised


def test_p_and_interval_are_those_of_t():
    found = Estimate(2.0, 0.5, 5, 7)
    assert found.p == pytest.approx(2 * stats.t.sf(4.0, 5))
    lo, hi = found.interval(0.9)
    assert (hi - 2.0) / 0.5 == pytest.approx(stats.t.ppf(0.95, 5)) and lo == pytest.approx(4.0 - hi)
    assert Estimate(1.96, 1.0, math.inf, 3).p == pytest.approx(0.05, abs=1e-4)
    assert math.isnan(Estimate(0.0, math.nan, math.inf, 0).p)


def test_scores_are_by_rank_alone():
    values = np.array([3.0, np.nan, -1.0, 1e9, 3.0])
    scores = normal_scores(values)
    assert np.isnan(scores[1]) and scores[0] == scores[4]
    assert scores[2] < scores[0] < scores[3] < 1.0
    np.testing.assert_array_equal(normal_scores(np.exp(values / 1e9)), scores)
    assert np.isnan(normal_scores(np.full(3, np.nan))).all()


def test_standardised():
    np.testing.assert_allclose(standardised(np.array([1.0, 3.0, np.nan])), [-1.0, 1.0, np.nan])
    assert np.isnan(standardised(np.array([2.0, 2.0]))).all() and np.isnan(standardised(np.array([np.nan]))).all()
