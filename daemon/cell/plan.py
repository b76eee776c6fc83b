"""From parsed steps to numbers: C-rates resolved, every set point checked against limits and device beforehand."""

from __future__ import annotations

import math
from dataclasses import dataclass

from daemon.cell.experiment import Action, Step, parse_experiment, step_name
from daemon.cell.limits import check_set_current, check_set_voltage, tighten
from daemon.config import CellSettings
from daemon.errors import ExperimentError, ExperimentReason
from daemon.recipe import CellLimits, ExperimentSpec
from hw.potentiostat.contract import PotentiostatInfo

HOLD_CURRENT_SHARE = 0.95  # of the limit: a hold at its bound must not trip on noise
GUARD_CAPACITIES = 2.0  # PyBaMM's own default: a C-rate step without 'for' lasts at most twice its nominal time
GUARD_S = 86_400.0  # and any other step at most a day


@dataclass(frozen=True)
class PlannedStep:
    """One step in numbers. Ends are None where there is none of the kind."""

    kind: Action
    text: str
    current_ma: float = 0.0
    """Set point of charge (> 0) and discharge (< 0)."""
    voltage_v: float = math.nan
    """Set point of a hold."""
    end_time_s: float | None = None
    end_voltage_v: float | None = None
    end_current_ma: float | None = None
    end_charge_mah: float | None = None
    guard_s: float = GUARD_S
    """Longest time of a step that is bounded neither by time nor by charge: passing it is a failure, not an end."""

    @property
    def direction(self) -> int:
        """1 for charge, -1 for discharge, 0 otherwise."""
        return {"charge": 1, "discharge": -1}.get(self.kind, 0)


@dataclass(frozen=True)
class Plan:
    """An experiment that may be run."""

    steps: tuple[PlannedStep, ...]
    cycles: int
    limits: CellLimits
    capacity_mah: float | None
    hold_current_ma: float
    """Bound of the current while a voltage is held."""


def plan_experiment(spec: ExperimentSpec, cell: CellSettings, info: PotentiostatInfo | None) -> Plan:
    """Parse, resolve and check `spec`. Without `info` the device's range is not checked.

    C-rates use the capacity of the experiment, else of the settings, else of the potentiostat. Raises
    `ExperimentError` for the first fault, naming the step.
    """
    limits = tighten(cell.limits, spec.limits)
    capacity_mah = spec.capacity_mah or cell.capacity_mah or (info.capacity_mah if info else None)
    steps = parse_experiment(spec.steps)
    planned = tuple(
        _planned(step, step_name(number, text), limits, capacity_mah, info)
        for number, (step, text) in enumerate(zip(steps, spec.steps, strict=True), start=1)
    )
    bound_ma = limits.max_current_ma if info is None else min(limits.max_current_ma, info.max_current_ma)
    return Plan(planned, spec.cycles, limits, capacity_mah, HOLD_CURRENT_SHARE * bound_ma)


def _planned(
    step: Step, name: str, limits: CellLimits, capacity_mah: float | None, info: PotentiostatInfo | None
) -> PlannedStep:
    magnitude_ma = 0.0 if step.current is None else _in_ma(step.current.in_ma(capacity_mah), name)
    end_ma = None if step.ends.current is None else _in_ma(step.ends.current.in_ma(capacity_mah), name)
    planned = PlannedStep(
        kind=step.kind,
        text=str(step),
        current_ma=-magnitude_ma if step.kind == "discharge" else magnitude_ma,
        voltage_v=math.nan if step.voltage_v is None else step.voltage_v,
        end_time_s=step.ends.duration_s,
        end_voltage_v=step.ends.voltage_v,
        end_current_ma=end_ma,
        end_charge_mah=step.ends.charge_mah,
        guard_s=_guard_s(step, magnitude_ma, capacity_mah),
    )
    _check(planned, name, limits, info)
    return planned


def _in_ma(current_ma: float | None, name: str) -> float:
    if current_ma is None:
        raise ExperimentError(ExperimentReason.NO_CAPACITY, f"{name}: a C-rate needs the cell's capacity")
    if not (math.isfinite(current_ma) and current_ma > 0):
        raise ExperimentError(ExperimentReason.BAD_VALUE, f"{name}: its current comes to {current_ma:g} mA")
    return current_ma


def _guard_s(step: Step, magnitude_ma: float, capacity_mah: float | None) -> float:
    bounded = step.ends.duration_s is not None or (step.ends.charge_mah is not None and magnitude_ma > 0)
    if bounded:
        return math.inf
    if magnitude_ma <= 0 or capacity_mah is None:
        return GUARD_S
    return GUARD_CAPACITIES * 3600.0 * capacity_mah / magnitude_ma


def _check(step: PlannedStep, name: str, limits: CellLimits, info: PotentiostatInfo | None) -> None:
    """Refuse set points and ends that no sample could reach without passing a limit."""
    problem = check_set_current(step.current_ma, limits, info) if step.direction else None
    for voltage_v in (step.voltage_v, step.end_voltage_v):
        if problem is None and voltage_v is not None and not math.isnan(voltage_v):
            problem = check_set_voltage(voltage_v, limits, info)
    if problem is None:
        problem = _unreachable_end(step, limits)
    if problem is not None:
        raise ExperimentError(ExperimentReason.OUTSIDE_LIMITS, f"{name}: {problem}")


def _unreachable_end(step: PlannedStep, limits: CellLimits) -> str | None:
    only_charge = step.end_time_s is None and step.end_voltage_v is None and step.end_current_ma is None
    most_mah = limits.max_capacity_mah
    if only_charge and most_mah is not None and step.end_charge_mah is not None and step.end_charge_mah >= most_mah:
        return f"{step.end_charge_mah:g} mAh is not below the limit max_capacity_mah = {most_mah:g} mAh"
    only_time = step.end_time_s is not None and step.end_voltage_v is None and step.end_current_ma is None
    most_s = limits.max_time_s
    if only_time and step.end_charge_mah is None and most_s is not None and (step.end_time_s or 0) >= most_s:
        return f"{step.end_time_s:g} s is not below the limit max_time_s = {most_s:g} s"
    return None
