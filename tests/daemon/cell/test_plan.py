from __future__ import annotations

import math
from dataclasses import replace

import pytest

from daemon.cell.plan import GUARD_S, plan_experiment
from daemon.config import CellSettings
from daemon.errors import ExperimentError, ExperimentReason
from daemon.recipe import CellLimits, ExperimentSpec
from tests.daemon.cell.fake import INFO

CELL = CellSettings(capacity_mah=2.0, limits=CellLimits(min_voltage_v=2.5, max_voltage_v=4.3, max_current_ma=5.0))


def spec(*steps: str, **more: object) -> ExperimentSpec:
    return ExperimentSpec(steps=list(steps), **more)  # type: ignore[arg-type]


def refused(*steps: str, cell: CellSettings = CELL, **more: object) -> ExperimentError:
    with pytest.raises(ExperimentError) as caught:
        plan_experiment(spec(*steps, **more), cell, INFO)
    return caught.value


def test_resolves_rates_and_signs() -> None:
    steps = ("Charge at 1C until 4.2 V", "Hold at 4.2 V until C/20", "Discharge at C/2 for 1 hour")
    plan = plan_experiment(spec(*steps, cycles=3), CELL, INFO)
    charge, hold, discharge = plan.steps
    assert (charge.current_ma, charge.end_voltage_v, charge.direction) == (2.0, 4.2, 1)
    assert (hold.voltage_v, hold.end_current_ma, hold.direction) == (4.2, 0.1, 0)
    assert (discharge.current_ma, discharge.end_time_s, discharge.direction) == (-1.0, 3600.0, -1)
    assert plan.cycles == 3
    assert plan.hold_current_ma == pytest.approx(0.95 * 5.0)


def test_capacity_of_experiment_then_settings_then_device() -> None:
    text = "Charge at 1C for 1 s"
    assert plan_experiment(spec(text, capacity_mah=1.5), CELL, INFO).steps[0].current_ma == 1.5
    assert plan_experiment(spec(text), CELL, INFO).steps[0].current_ma == 2.0
    bare = CELL.model_copy(update={"capacity_mah": None})
    assert plan_experiment(spec(text), bare, INFO).steps[0].current_ma == INFO.capacity_mah
    with pytest.raises(ExperimentError) as caught:
        plan_experiment(spec(text), bare, replace(INFO, capacity_mah=None))
    assert caught.value.reason is ExperimentReason.NO_CAPACITY
    assert "step 1" in caught.value.detail


def test_hold_bound_respects_the_device() -> None:
    small = replace(INFO, max_current_ma=1.0)
    assert plan_experiment(spec("Rest for 1 s"), CELL, small).hold_current_ma == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ("Charge at 3C for 1 hour", "6 mA is not below the limit max_current_ma = 5 mA"),
        ("Charge at 5 mA for 1 hour", "not below the limit max_current_ma"),
        ("Discharge at 9 mA for 1 hour", "9 mA is not below"),
        ("Charge at 1C until 4.4 V", "4.4 V is not below the limit max_voltage_v = 4.3 V"),
        ("Charge at 1C until 4.3 V", "not below the limit max_voltage_v"),
        ("Discharge at 1C until 2.4 V", "2.4 V is not above the limit min_voltage_v = 2.5 V"),
        ("Hold at 4.5 V for 1 hour", "not below the limit max_voltage_v"),
        ("Hold at 2 V for 1 hour", "not above the limit min_voltage_v"),
    ],
)
def test_refuses_what_limits_forbid(step: str, says: str) -> None:
    error = refused("Rest for 1 s", step)
    assert error.reason is ExperimentReason.OUTSIDE_LIMITS
    assert "step 2" in error.detail and says in error.detail


def test_limits_of_the_experiment_count() -> None:
    error = refused("Charge at 1C until 4.2 V", limits=CellLimits(max_voltage_v=4.1, max_current_ma=5.0))
    assert "4.1" in error.detail
    error = refused("Charge at 1C until 4.2 V", limits=CellLimits(max_voltage_v=4.4, max_current_ma=5.0))
    assert "wider than the configured" in error.detail


def test_refuses_what_the_device_cannot() -> None:
    wide = CellSettings(capacity_mah=2.0, limits=CellLimits(min_voltage_v=-9, max_voltage_v=9, max_current_ma=1000))
    assert "potentiostat's 20 mA" in refused("Charge at 25 mA for 1 s", cell=wide).detail
    assert "outside the potentiostat's range" in refused("Hold at 6 V for 1 s", cell=wide).detail


def test_refuses_ends_that_limits_forbid() -> None:
    capped = CELL.model_copy(update={"limits": CellLimits(max_time_s=100.0, max_capacity_mah=1.0)})
    assert "max_time_s" in refused("Rest for 100 s", cell=capped).detail
    assert "max_capacity_mah" in refused("Charge at 1C until 1 mAh", cell=capped).detail
    assert plan_experiment(spec("Charge at 1C for 200 s or until 4.2 V"), capped, INFO).steps


def test_rates_that_come_to_nothing_or_infinity() -> None:
    tiny = CELL.model_copy(update={"capacity_mah": 1e-300})
    assert refused("Charge at C/1e100 for 1 s", cell=tiny).reason is ExperimentReason.BAD_VALUE
    huge = CELL.model_copy(update={"capacity_mah": 1e300})
    assert refused("Charge at 1e100 C for 1 s", cell=huge).reason is ExperimentReason.BAD_VALUE


def test_steps_without_time_are_guarded() -> None:
    plan = plan_experiment(
        spec(
            "Charge at C/2 until 4.2 V",
            "Hold at 4.2 V until C/20",
            "Discharge at 1C until 0.1 mAh",
            "Charge at 1C for 9 hours or until 4.2 V",
        ),
        CELL,
        INFO,
    )
    assert [step.guard_s for step in plan.steps] == [4 * 3600.0, GUARD_S, math.inf, math.inf]
    unknown = CELL.model_copy(update={"capacity_mah": None})
    bare = plan_experiment(spec("Charge at 1 mA until 4.2 V"), unknown, replace(INFO, capacity_mah=None))
    assert bare.steps[0].guard_s == GUARD_S
