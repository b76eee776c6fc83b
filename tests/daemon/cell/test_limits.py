from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.cell.limits import check_sample, check_set_current, check_set_voltage, nearest_limit, stopped, tighten
from daemon.errors import ExperimentError, ExperimentReason
from daemon.recipe import CellLimits
from hw.potentiostat.contract import CellMode, CellSample
from tests.daemon.cell.fake import INFO

LIMITS = CellLimits(min_voltage_v=2.5, max_voltage_v=4.3, max_current_ma=5.0)
GOOD = CellSample(device_t_s=10.0, host_t_s=100.0, voltage_v=3.7, current_ma=1.0, mode=CellMode.GALVANOSTATIC)


def breach_of(sample: CellSample, now_s: float = 100.0, limits: CellLimits = LIMITS) -> str | None:
    found = check_sample(sample, limits, INFO, now_s, 2.0)
    return found.limit if found else None


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, None),
        ({"voltage_v": 4.3}, None),
        ({"voltage_v": 4.3 + 1e-9}, "max_voltage_v"),
        ({"voltage_v": 2.5}, None),
        ({"voltage_v": 2.499999}, "min_voltage_v"),
        ({"current_ma": 5.0}, None),
        ({"current_ma": 5.001}, "max_current_ma"),
        ({"current_ma": -5.001}, "max_current_ma"),
        ({"voltage_v": math.nan}, "voltage_v"),
        ({"voltage_v": -math.inf}, "voltage_v"),
        ({"current_ma": math.nan}, "current_ma"),
        ({"current_ma": math.inf}, "current_ma"),
        ({"device_t_s": math.nan}, "device_t_s"),
        ({"host_t_s": math.inf}, "host_t_s"),
        ({"host_t_s": 97.9}, "sample_deadline_s"),
        ({"host_t_s": 98.1}, None),
        ({"host_t_s": 102.0}, "host_t_s"),
    ],
)
def test_each_limit(changes: dict[str, float], limit: str | None) -> None:
    assert breach_of(replace(GOOD, **changes)) == limit


def test_breach_tells_value_and_bound() -> None:
    breach = check_sample(replace(GOOD, voltage_v=4.4), LIMITS, INFO, 100.0, 2.0)
    assert breach is not None
    assert (breach.value, breach.bound) == (4.4, 4.3)
    assert str(breach) == "max_voltage_v = 4.3 was passed: 4.4"


def test_device_range_is_a_limit() -> None:
    wide = CellLimits(min_voltage_v=-100, max_voltage_v=100, max_current_ma=1000)
    assert breach_of(replace(GOOD, voltage_v=5.2), limits=wide) is None, "a little beyond the range is still read"
    assert breach_of(replace(GOOD, voltage_v=5.3), limits=wide) == "the potentiostat's highest voltage"
    assert breach_of(replace(GOOD, voltage_v=-0.3), limits=wide) == "the potentiostat's lowest voltage"
    assert breach_of(replace(GOOD, current_ma=-21.1), limits=wide) == "the potentiostat's largest current"


@given(st.floats(), st.floats(), st.floats(), st.floats())
def test_no_breach_means_clearly_inside(voltage_v: float, current_ma: float, t_s: float, host_t_s: float) -> None:
    sample = CellSample(t_s, host_t_s, voltage_v, current_ma, CellMode.OFF)
    if breach_of(sample) is None:
        assert 2.5 <= voltage_v <= 4.3
        assert -5 <= current_ma <= 5
        assert 98 <= host_t_s <= 101
        assert math.isfinite(t_s)


def test_tighten_keeps_what_is_not_named() -> None:
    configured = CellLimits(min_voltage_v=2.8, max_voltage_v=4.2, max_current_ma=2.0, max_time_s=100.0)
    assert tighten(configured, None) == configured
    tight = tighten(configured, CellLimits(max_voltage_v=4.1))
    assert tight == configured.model_copy(update={"max_voltage_v": 4.1})
    assert tighten(configured, CellLimits(max_time_s=None)).max_time_s == 100.0
    assert tighten(configured, CellLimits(max_capacity_mah=3.0)).max_capacity_mah == 3.0


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ({"max_voltage_v": 4.21}, "max_voltage_v"),
        ({"min_voltage_v": 2.7}, "min_voltage_v"),
        ({"max_current_ma": 2.1}, "max_current_ma"),
        ({"max_time_s": 101.0}, "max_time_s"),
    ],
)
def test_tighten_refuses_wider(wanted: dict[str, float], name: str) -> None:
    configured = CellLimits(min_voltage_v=2.8, max_voltage_v=4.2, max_current_ma=2.0, max_time_s=100.0)
    with pytest.raises(ExperimentError, match=name) as caught:
        tighten(configured, CellLimits(**wanted))
    assert caught.value.reason is ExperimentReason.OUTSIDE_LIMITS


def test_tighten_refuses_an_empty_window() -> None:
    configured = CellLimits(min_voltage_v=4.0, max_voltage_v=4.2)
    with pytest.raises(ExperimentError, match="leave no room"):
        tighten(configured, CellLimits(max_voltage_v=3.9))


finite = st.floats(min_value=-10, max_value=10)


@given(finite, finite, finite, finite, st.floats(0.1, 10), st.floats(0.1, 10), st.none() | st.floats(1, 100))
def test_tightened_limits_are_never_wider(
    low: float, high: float, low2: float, high2: float, ma: float, ma2: float, seconds: float | None
) -> None:
    if low >= high or low2 >= high2:
        return
    configured = CellLimits(min_voltage_v=low, max_voltage_v=high, max_current_ma=ma, max_time_s=50.0)
    wanted = CellLimits(min_voltage_v=low2, max_voltage_v=high2, max_current_ma=ma2, max_time_s=seconds)
    try:
        tight = tighten(configured, wanted)
    except ExperimentError:
        return
    assert low <= tight.min_voltage_v < tight.max_voltage_v <= high
    assert tight.max_current_ma <= ma
    assert tight.max_time_s is not None and tight.max_time_s <= 50.0


def test_set_points() -> None:
    assert check_set_voltage(4.2, LIMITS, INFO) is None
    assert "max_voltage_v" in (check_set_voltage(4.3, LIMITS, INFO) or "")
    assert "min_voltage_v" in (check_set_voltage(2.5, LIMITS, INFO) or "")
    low_range = replace(INFO, max_voltage_v=3.0)
    assert "outside the potentiostat's range" in (check_set_voltage(4.2, LIMITS, low_range) or "")
    assert check_set_voltage(4.2, LIMITS, None) is None
    assert check_set_current(-4.9, LIMITS, INFO) is None
    assert "max_current_ma" in (check_set_current(-5.0, LIMITS, INFO) or "")
    assert "potentiostat's 1 mA" in (check_set_current(2.0, LIMITS, replace(INFO, max_current_ma=1.0)) or "")


def test_nearest_limit_explains_a_device_trip() -> None:
    assert nearest_limit(replace(GOOD, voltage_v=3.4), LIMITS) is None
    for changes, name in (
        ({"voltage_v": 4.29}, "max_voltage_v"),
        ({"voltage_v": 2.51}, "min_voltage_v"),
        ({"current_ma": -4.99}, "max_current_ma"),
    ):
        found = nearest_limit(replace(GOOD, **changes), LIMITS)
        assert found is not None and found.limit == name
        assert "by itself" in str(found)


def test_a_device_that_switched_off_by_itself_names_its_limit() -> None:
    assert stopped(GOOD) is None
    for said, value in (
        ("max_voltage_v = 4.2 was passed: 4.21", GOOD.voltage_v),
        ("max_current_ma = 5", GOOD.current_ma),
    ):
        breach = stopped(replace(GOOD, stopped_by=said))
        assert breach is not None and breach.limit == said.split(" ")[0] and breach.value == value
        assert str(breach) == f"the potentiostat switched off by itself: {said}"
