from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from daemon.insight.estimates import Estimate
from daemon.insight.random_effects import (
    cell_sd_for_nothing,
    cells_needed,
    detectable,
    difference,
    grouped,
    power_of,
)


def cells(values, sigma=0.01):
    return [Estimate(value, sigma, math.inf, 300) for value in values]


def test_with_equal_cells_it_is_the_t_test_of_their_means():
    a, b = [0.1, 0.3, 0.2], [0.5, 0.2, 0.6, 0.4]
    found = grouped([cells(a), cells(b)])
    shift = difference(found.means[1], found.means[0])
    expected = stats.ttest_ind(b, a)
    assert shift.free == 5 and shift.p == pytest.approx(expected.pvalue, rel=1e-6)
    interval = expected.confidence_interval(0.99)
    assert shift.interval(0.99) == pytest.approx((interval.low, interval.high), rel=1e-6)
    pooled = (np.var(a, ddof=1) * 2 + np.var(b, ddof=1) * 3) / 5
    assert found.cell_sd == pytest.approx(math.sqrt(pooled - 0.01**2), rel=1e-6)


def test_cells_that_agree_by_chance_are_not_surer_than_their_particles():
    found = grouped([cells([0.2, 0.2, 0.2], 0.05), cells([0.3, 0.3, 0.3], 0.05)])
    assert found.cell_sd == 0
    assert difference(found.means[1], found.means[0]).sigma == pytest.approx(0.05 * math.sqrt(2 / 3))


def test_a_cell_with_few_particles_counts_for_less():
    found = grouped([[*cells([0.0, 0.02, 0.01]), Estimate(0.5, 0.5, math.inf, 5)], cells([0.0, 0.01])])
    assert abs(found.means[0].value - 0.01) < 0.005


def test_one_cell_borrows_the_others_spread():
    found = grouped([cells([0.0]), cells([0.1, 0.3])])
    shift = difference(found.means[1], found.means[0])
    assert shift.free == 1 and shift.sigma == pytest.approx(math.sqrt(0.02 * 1.5), rel=1e-3)


def test_one_cell_each_knows_nothing_of_cells():
    found = grouped([cells([0.0]), cells([1.0])])
    assert found.free == 0 and math.isnan(found.cell_sd) and all(math.isnan(mean.sigma) for mean in found.means)


def test_what_is_not_known_is_left_out():
    nothing = Estimate(math.nan, math.nan, math.inf, 0)
    found = grouped([[nothing, *cells([1.0, 1.2])], [nothing]])
    assert found.means[0].count == 2 and math.isnan(found.means[1].value) and found.free == 1


@pytest.mark.parametrize(("free", "shift"), [(1, 5.0), (4, 3.0), (30, 3.5)])
def test_power_is_that_of_the_non_central_t(free, shift):
    t = stats.t.ppf(0.995, free)
    expected = stats.nct.sf(t, free, shift) + stats.nct.cdf(-t, free, shift)
    assert power_of(shift * 0.2, 0.2, free, 0.01) == pytest.approx(expected, abs=1e-4)
    assert power_of(0.0, 0.2, free, 0.01) == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("free", [1, 3, 20, math.inf])
def test_what_is_detectable_has_power_nine_tenths(free):
    least = detectable(0.3, free, 0.01)
    assert power_of(least, 0.3, free, 0.01) == pytest.approx(0.9, abs=1e-6)
    assert math.isnan(detectable(math.nan, free, 0.01))


def test_cells_needed():
    few, many = cells_needed(0.14, 0.023, 0.02, 0.01), cells_needed(0.14, 0.023, 0.1, 0.01)
    assert 2 < few < many
    sigma = math.sqrt(2 / few * (0.023**2 + 0.02**2))
    assert power_of(0.14, sigma, 2 * few - 2, 0.01) >= 0.9
    assert cells_needed(0.01, 0.023, 0.5, 0.01, most=20) is None


def test_the_spread_of_cells_that_makes_it_nothing():
    found = Estimate(0.14, 0.033, math.inf, 600)
    cell_sd = cell_sd_for_nothing(found, 0.01)
    wide = Estimate(0.14, math.hypot(0.033, math.sqrt(2) * cell_sd), math.inf, 600)
    assert wide.p == pytest.approx(0.01) and cell_sd_for_nothing(Estimate(0.01, 0.033, math.inf, 600), 0.01) == 0
