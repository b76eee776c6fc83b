from __future__ import annotations

import math

import numpy as np
import pytest

from daemon.insight.cells import Cell, clustering, combined, inactive, location, log_rates, log_spread, retained
from daemon.insight.protocol import conditions
from tests.daemon.insight.runs import correlated, no_record, plain_cell


def cell(seed=1, **options):
    return Cell.of("A", "a", plain_cell(seed, **options))


def test_location_is_nearly_the_mean_and_knows_how_sure_it_is():
    rng = np.random.default_rng(1)
    found = [location(rng.normal(2.0, 0.4, 100)) for _ in range(400)]
    values, sigmas = np.array([(each.value, each.sigma) for each in found]).T
    assert values.mean() == pytest.approx(2.0, abs=0.01)
    assert values.std() == pytest.approx(0.04, rel=0.12) and sigmas.mean() == pytest.approx(values.std(), rel=0.1)
    strange = np.r_[rng.normal(2.0, 0.4, 100), 50.0, 60.0]
    assert location(strange).value == pytest.approx(2.0, abs=0.15)


def test_spread_is_the_standard_deviation_and_knows_how_sure_it_is():
    rng = np.random.default_rng(2)
    found = [log_spread(rng.normal(2.0, 0.4, 300)) for _ in range(400)]
    values, sigmas = np.array([(each.value, each.sigma) for each in found]).T
    assert np.exp(values.mean()) == pytest.approx(0.4, rel=0.01)
    assert values.std() == pytest.approx(1 / math.sqrt(600), rel=0.1)
    assert sigmas.mean() == pytest.approx(values.std(), rel=0.1)


def test_gini_is_what_its_definition_says():
    values = np.random.default_rng(3).normal(size=20)
    pairs = np.abs(values[:, None] - values)[np.triu_indices(20, 1)].mean()
    assert log_spread(values).value == pytest.approx(math.log(pairs * math.sqrt(math.pi) / 2))


@pytest.mark.parametrize("values", [[], [1.0], [math.nan] * 30, [1.0] * 9])
def test_too_few_are_not_known(values):
    for estimate in (location(np.array(values)), log_spread(np.array(values))):
        assert math.isnan(estimate.value) and math.isnan(estimate.sigma)


def test_values_that_are_all_the_same():
    assert location(np.ones(20)).value == 1.0 and math.isnan(log_spread(np.ones(20)).value)
    assert location(np.r_[np.ones(20), 5.0]).sigma > 0


def test_a_particle_known_in_the_slow_condition_only_is_not_slow():
    rng = np.random.default_rng(4)
    own = [rng.normal(0, 0.1, 40) for _ in range(2)]
    slow, fast = [each - 1.0 for each in own], [each + 1.0 for each in own]
    fast[0] = np.where(np.arange(40) < 10, np.nan, fast[0])
    joined = combined([slow, fast])
    assert abs(np.mean(joined[0][:10]) - np.mean(own[0][:10])) < 0.05
    np.testing.assert_allclose(joined[1], own[1], atol=0.05)


def test_inactive_are_those_that_are_not_lost():
    known = cell(dead=0.0, count=20)
    known.run.particles["state"][:5] = ["dead", "dead", "lost", "partial", "active"]
    assert inactive(known) == (2, 19)
    early = plain_cell(1, count=20)
    early.cycles.update({name: values[:0] for name, values in early.cycles.items()})
    assert inactive(Cell.of("A", "a", early)) is None, "no half has ended"
    bare = plain_cell(1, count=20, echem=no_record())
    bare.cycles.update({name: values[:0] for name, values in bare.cycles.items()})
    assert inactive(Cell.of("A", "a", bare)) is not None, "judged once, at the end"


def test_rates_and_retention_are_of_the_halves_shared():
    long, short = cell(1, cycles=5), cell(2, cycles=2)
    shared = conditions([long.halves, short.halves])
    expected = np.log(long.run.by_cycle("rate_per_h", "charge")[1][:2])
    np.testing.assert_allclose(log_rates(long, 0, shared[0]), np.median(expected, axis=0))
    assert np.nanmedian(retained(long, 0, shared)) == pytest.approx(0.99, abs=0.002), (
        "after the second cycle, not the fifth"
    )
    once = cell(3, cycles=1)
    assert np.isnan(retained(once, 0, conditions([once.halves, once.halves]))).all()


def test_neighbours_that_agree_count_for_fewer():
    one = cell(5, count=150)
    rng = np.random.default_rng(6)
    shared = correlated(rng, one.run.particles, 400.0) + 0.5 * rng.normal(size=150)
    assert clustering(one, shared) > 2
    assert clustering(one, rng.normal(size=150)) == 1.0 == clustering(one, np.full(150, np.nan))
