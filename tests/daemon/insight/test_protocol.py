from __future__ import annotations

import math

import numpy as np
import pytest

from daemon.insight.protocol import HalfFacts, conditions, halves, without_record
from tests.daemon.insight.runs import no_record, plain_cell


def facts(*rates, half="charge", capacity=1.0, passed=1.0):
    current, known = capacity or 1, math.nan if capacity is None else 1.0
    return [HalfFacts(k, half, rate * current, rate * known, passed) for k, rate in enumerate(rates)]


def test_halves_have_the_records_current():
    found = halves(plain_cell(1, cycles=2, c_rate=0.5))
    order = [(0, "charge"), (0, "discharge"), (1, "charge"), (1, "discharge")]
    assert [(half.cycle, half.half) for half in found] == order
    assert [half.c_rate for half in found] == pytest.approx([0.5] * 4, rel=0.02)
    assert [half.passed_mah for half in found] == pytest.approx([1.0] * 4, rel=0.02)


def test_without_record_or_capacity_it_is_not_known():
    bare = halves(plain_cell(1, echem=no_record()))
    assert all(math.isnan(half.current_ma) for half in bare) and len(bare) == 6
    no_capacity = halves(plain_cell(1, metadata={"capacity_mah": None}))
    assert all(math.isnan(half.c_rate) and half.current_ma > 0 for half in no_capacity)
    assert without_record([bare, no_capacity, []]) == [0]


def test_equal_rates_meet_whatever_the_capacity_and_order():
    shared = conditions([facts(0.1, 0.5, 0.5), facts(0.52, 0.5, 1.0, capacity=3.0)])
    assert [(each.half, each.cycles) for each in shared] == [("charge", {0: [1, 2], 1: [0, 1]})]
    assert shared[0].rate == pytest.approx(0.5) and shared[0].words == "charge at 0.5C"


def test_as_many_halves_of_each_the_first_ones():
    (shared,) = conditions([facts(*[0.5] * 9), facts(0.5, 0.5)])
    assert shared.cycles == {0: [0, 1], 1: [0, 1]}


def test_rates_that_differ_by_more_than_a_tenth_do_not_meet():
    assert conditions([facts(0.5), facts(0.6)]) == []
    assert len(conditions([facts(0.5), facts(0.54)])) == 1


def test_by_current_where_a_capacity_is_not_known():
    (shared,) = conditions([facts(0.5, capacity=None), facts(0.5)])
    assert not shared.by_c_rate and shared.words == "charge at 0.5 mA"


def test_kinds_do_not_mix_and_halves_cut_short_are_left_out():
    assert conditions([facts(0.5), facts(0.5, half="discharge")]) == []
    cut = [*facts(0.5), HalfFacts(1, "charge", 0.5, 0.5, 0.3)]
    (shared,) = conditions([cut, facts(0.5, 0.5)])
    assert shared.cycles[0] == [0]


def test_without_any_record_by_kind_alone():
    bare = [HalfFacts(k, "charge", math.nan, math.nan, math.nan) for k in range(3)]
    (shared,) = conditions([bare, bare[:2]])
    assert shared.cycles == {0: [0, 1], 1: [0, 1]} and math.isnan(shared.rate) and "unknown" in shared.words
    assert conditions([bare, facts(0.5)]) == [] and conditions([[], []]) == [] and conditions([]) == []


def test_samples_that_are_not_known_are_skipped():
    run = plain_cell(1, cycles=1)
    run.echem["current_ma"][::7] = np.nan
    assert [half.c_rate for half in halves(run)] == pytest.approx([0.5, 0.5], rel=0.05)
