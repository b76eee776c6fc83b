from __future__ import annotations

import math

import numpy as np
import pytest

from daemon.insight.hazard import HazardModel, martingale_residuals, refusal
from daemon.insight.spatial import Field


def model(seed, beta=0.7, count=200, end=20.0, rate=0.03, clusters=0.0):
    """Failures with a hazard ratio of exp(beta) a standard deviation of the first of two columns."""
    rng = np.random.default_rng(seed)
    columns, place = rng.normal(size=(count, 2)), rng.uniform(0, 100, (2, count))
    shared = clusters * np.sin(place[0] / 8) * np.sin(place[1] / 8)
    when = np.ceil(rng.exponential(1 / (rate * np.exp(beta * columns[:, 0] + shared))))
    duration, failed = np.minimum(when, end), when < end
    return HazardModel(duration, failed, Field(*place)), columns, duration, failed, place


def test_the_planted_ratio_is_found_beside_another_property():
    found = [fitted.estimate(columns[:, ::-1]) for fitted, columns, *_ in (model(seed) for seed in range(4))]
    assert np.mean([each.value for each in found]) == pytest.approx(0.7, abs=0.12)
    assert all(abs(each.value - 0.7) < 3 * each.sigma and each.sigma < 0.2 for each in found)


def test_few_failures_are_held_by_a_ridge():
    fitted, columns, _, failed, _ = model(3, beta=2.0, rate=0.0005, count=150)
    assert 5 <= failed.sum() < 20
    one = fitted.estimate(columns)
    assert abs(one.value) < 2.5 and one.sigma < 1.0
    first, field = np.arange(60) < 6, Field(*np.random.default_rng(1).uniform(0, 9, (2, 60)))
    held = HazardModel(np.where(first, 1.0, 9.0), first, field).estimate(np.where(first, 3.0, -0.3)[:, None])
    assert 0 < held.value < 3 and math.isfinite(held.sigma)


def test_without_failures_there_is_a_reason():
    duration = np.full(50, 8.0)
    assert refusal(duration, np.arange(50) < 4).startswith("4 of 50 particles failed")
    assert "one half" in refusal(duration, np.arange(50) < 20)
    assert refusal(np.where(np.arange(50) < 20, 2.0, 8.0), np.arange(50) < 20) == ""


def test_failures_that_cluster_widen_the_interval():
    wide, narrow = [], []
    for seed in range(3):
        for clusters, into in ((3.0, wide), (0.0, narrow)):
            fitted, _, _, _, place = model(seed, clusters=clusters)
            into.append(fitted.clustering(np.sin(place[0] / 8)[:, None], 0))
    assert min(wide) > max(narrow) >= 1.0 and max(narrow) < 1.2


def test_a_ratio_that_changes_over_the_run_is_told():
    rng = np.random.default_rng(5)
    count = 400
    column = rng.normal(size=count)
    early = rng.exponential(1 / (0.05 * np.exp(1.2 * column)))
    late = 10 + rng.exponential(1 / (0.05 * np.exp(-1.2 * column)))
    when = np.ceil(np.where(early < 10, early, late))
    changing = HazardModel(np.minimum(when, 30), when < 30, Field(*rng.uniform(0, 100, (2, count))))
    assert changing.changes_over_time(column[:, None])[0] < 1e-3
    fitted, columns, *_ = model(6)
    assert all(p > 1e-3 for p in fitted.changes_over_time(columns))
    assert 0.6 < fitted.concordance(columns) < 0.9
    few, columns, *_ = model(3, rate=0.0003, count=150)
    assert np.isnan(few.changes_over_time(columns)).all()


def test_martingale_residuals_are_what_failed_too_much():
    duration, failed = np.array([1.0, 2.0, 2.0, 3.0]), np.array([True, True, False, True])
    hazard = np.array([1 / 4, 1 / 4 + 1 / 3, 1 / 4 + 1 / 3, 1 / 4 + 1 / 3 + 1])
    np.testing.assert_allclose(martingale_residuals(duration, failed), failed - hazard)
    assert martingale_residuals(duration, failed).sum() == pytest.approx(0)
