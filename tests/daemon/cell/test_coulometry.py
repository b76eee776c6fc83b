from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.cell.coulometry import Coulometer

HOUR = 3600.0


def naive_net_mah(samples: list[tuple[float, float]]) -> float:
    total = 0.0
    for (t0, i0), (t1, i1) in itertools.pairwise(samples):
        total += (t1 - t0) * (i0 + i1) / 2
    return total / HOUR


def counted(samples: list[tuple[float, float]], **options: float) -> Coulometer:
    meter = Coulometer(**options)
    for t_s, current_ma in samples:
        meter.add(t_s, current_ma)
    return meter


currents = st.floats(min_value=-100, max_value=100)
steps = st.floats(min_value=0, max_value=1e4)


@given(st.lists(st.tuples(steps, currents), max_size=50))
def test_equals_naive_sum_for_rising_time(increments: list[tuple[float, float]]) -> None:
    t_s, samples = 0.0, []
    for dt_s, current_ma in increments:
        t_s += dt_s
        samples.append((t_s, current_ma))
    meter = counted(samples)
    scale = meter.charged_mah + meter.discharged_mah
    assert math.isclose(meter.net_mah, naive_net_mah(samples), rel_tol=1e-9, abs_tol=1e-9 * (1 + scale))


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=50))
def test_any_stream_gives_finite_rising_counts(samples: list[tuple[float, float]]) -> None:
    samples = [(t, i) for t, i in samples if not (math.isfinite(t) and math.isfinite(i)) or max(abs(t), abs(i)) < 1e100]
    meter, before = Coulometer(), (0.0, 0.0)
    for t_s, current_ma in samples:
        meter.add(t_s, current_ma)
        now = (meter.charged_mah, meter.discharged_mah)
        assert all(math.isfinite(value) for value in now)
        assert now[0] >= before[0] and now[1] >= before[1]
        before = now


def test_constant_current() -> None:
    meter = counted([(0, 2.0), (HOUR, 2.0)])
    assert (meter.charged_mah, meter.discharged_mah, meter.net_mah) == (2.0, 0.0, 2.0)


def test_splits_where_the_current_turns() -> None:
    meter = counted([(0, 1.0), (HOUR, -1.0)])
    assert meter.charged_mah == pytest.approx(0.25)
    assert meter.discharged_mah == pytest.approx(0.25)


def test_duplicate_stamps_add_nothing_and_the_later_current_counts() -> None:
    meter = counted([(0, 1.0), (0, 3.0), (HOUR, 3.0)])
    assert meter.net_mah == pytest.approx(3.0)
    assert meter.duplicates == 1


def test_a_sample_out_of_order_is_left_out() -> None:
    meter = counted([(0, 1.0), (1800, 1.0), (1000, 99.0), (HOUR, 1.0)])
    assert meter.net_mah == pytest.approx(1.0)
    assert meter.reversals == 1


def test_counting_goes_on_after_the_clock_was_set_back() -> None:
    meter = counted([(10_000, 1.0), (10_000 + HOUR, 1.0), (5, 1.0), (5 + HOUR, 1.0), (5 + 2 * HOUR, 1.0)])
    assert meter.net_mah == pytest.approx(3.0)
    assert meter.reversals == 1


def test_gap_is_bridged_and_counted() -> None:
    meter = counted([(0, 1.0), (1, 1.0), (HOUR, 1.0)], max_gap_s=10)
    assert meter.net_mah == pytest.approx(1.0)
    assert (meter.gaps, meter.gap_s) == (1, HOUR - 1)


def test_values_that_are_not_finite_are_left_out() -> None:
    meter = counted([(0, 1.0), (math.nan, 1.0), (1800, math.nan), (1800, math.inf), (HOUR, 1.0)])
    assert meter.net_mah == pytest.approx(1.0)
    assert meter.rejected == 3


def test_interruption_does_not_count() -> None:
    meter = counted([(0, 1.0), (HOUR, 1.0)])
    meter.interrupt()
    meter.add(10 * HOUR, 1.0)
    meter.add(11 * HOUR, 1.0)
    assert meter.net_mah == pytest.approx(2.0)


def test_each_way_of_each_cycle() -> None:
    meter = Coulometer()
    for t_s, current_ma, cycle in [(0, 1.0, 0), (1, 1.0, 0), (1, -2.0, 0), (2, -2.0, 0), (2, 3.0, 1), (3, 3.0, 1)]:
        meter.add(t_s * HOUR, current_ma, cycle)
    assert [(c.cycle, c.charge_mah, c.discharge_mah) for c in meter.cycles] == [(0, 1.0, 2.0), (1, 3.0, 0.0)]
    assert meter.largest_mah == 4.0
