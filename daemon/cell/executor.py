"""The experiment as a pure state machine: samples in, commands out. It keeps no clock of its own and does no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from daemon.cell.coulometry import Coulometer
from daemon.cell.limits import Breach
from daemon.cell.plan import Plan, PlannedStep
from daemon.cell.samples import StepKind
from hw.potentiostat.contract import CellMode, CellSample, StepBounds

SETTLED_SHARE = 0.1  # a driven current this near to its set point has settled
SETTLED_SAMPLES = 3  # and after this many samples it counts as settled wherever it is
TAPER_SAMPLES = 2  # one sample below the end current may be the switch to constant voltage itself


@dataclass(frozen=True)
class Off:
    """Open the circuit."""


@dataclass(frozen=True)
class SetCurrent:
    """Drive a constant current."""

    current_ma: float


@dataclass(frozen=True)
class SetVoltage:
    """Hold a voltage with a bounded current."""

    voltage_v: float
    max_current_ma: float


Command = Off | SetCurrent | SetVoltage


@dataclass(frozen=True)
class Place:
    """Where in the experiment a sample belongs."""

    cycle: int
    step: int
    kind: StepKind


OUTSIDE = Place(-1, -1, "off")


class Executor:
    """Runs one plan. `begin`, then `feed` every sample; carry out each command given and confirm it by `commanded`.

    Samples stamped before the last command took effect belong to the step before it and never end a step. Times are
    the potentiostat's, added up from sample to sample, so that neither pauses nor a clock set back count.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.cycle = 0
        self.index = 0
        self.finished = False
        self.elapsed_s = 0.0
        """Time since the experiment began, without pauses."""
        self._waiting = False
        self._entering = True
        self._place = OUTSIDE
        self._commanded_host_t_s = -math.inf
        self._device_t_s: float | None = None
        self._reset_step()

    def _reset_step(self) -> None:
        self.step_elapsed_s = 0.0
        self.step_charge = Coulometer()
        self._fresh = self._tapered = 0
        self._start_v = math.nan

    def _begin_step(self, sample: CellSample) -> None:
        """The step's time and charge count from this sample on."""
        self._reset_step()
        self._start_v = sample.voltage_v
        self.step_charge.add(sample.device_t_s, sample.current_ma)

    @property
    def step(self) -> PlannedStep:
        """The current step; the last one when finished."""
        return self.plan.steps[self.index]

    def begin(self, sample: CellSample) -> Command:
        """The first command; `sample` shows the cell at open circuit."""
        self._device_t_s = sample.device_t_s
        return self._enter(sample)

    def feed(self, sample: CellSample) -> Command | None:
        """Take a sample; None: go on as you are."""
        if self.finished:
            return None
        self._count(sample)
        if self._waiting:
            self._place = Place(self.cycle, self.index, "off")
            return self._enter(sample)
        if sample.host_t_s <= self._commanded_host_t_s:
            if self._entering:
                self._begin_step(sample)
            return None
        self._entering = False
        self._place = Place(self.cycle, self.index, self.step.kind)
        if not self._ended(sample):
            return None
        self._advance()
        return self._enter(sample)

    def commanded(self, host_t_s: float) -> None:
        """The last command took effect at this `time.monotonic()`."""
        self._commanded_host_t_s = host_t_s
        self._fresh = self._tapered = 0

    def resume(self) -> Command:
        """The command that goes on with the step after a pause; the time in between does not count."""
        self._device_t_s = None
        self.step_charge.interrupt()
        return Off() if self._waiting else self._drive()

    def bounds(self) -> StepBounds:
        """What is left of the current step, for a device that bounds itself: its ends, or where it counts as failed."""
        step, limits = self.step, self.plan.limits
        times_s = [time_s - self.step_elapsed_s for time_s in (step.end_time_s, step.guard_s) if time_s is not None]
        if limits.max_time_s is not None:
            times_s.append(limits.max_time_s - self.elapsed_s)
        passed_mah = self._passed_mah()
        charges_mah = [most - passed_mah for most in (step.end_charge_mah, limits.max_capacity_mah) if most is not None]
        longest_s = min(times_s)
        return StepBounds(
            longest_s=max(0.0, longest_s) if math.isfinite(longest_s) else None,
            most_mah=max(0.0, min(charges_mah)) if charges_mah else None,
            end_voltage_v=step.end_voltage_v,
            end_current_ma=step.end_current_ma,
        )

    def place(self) -> Place:
        """Of the sample fed last."""
        return self._place

    def breach(self) -> Breach | None:
        """A limit of time or charge that is passed, None when there is none."""
        limits, step = self.plan.limits, self.step
        if limits.max_time_s is not None and self.elapsed_s > limits.max_time_s:
            return Breach("max_time_s", self.elapsed_s, limits.max_time_s)
        passed_mah = self.step_charge.largest_mah
        if limits.max_capacity_mah is not None and passed_mah > limits.max_capacity_mah:
            return Breach("max_capacity_mah", passed_mah, limits.max_capacity_mah)
        if self.step_elapsed_s > step.guard_s and not self.finished:
            sentence = f"'{step.text}' met no end within {step.guard_s:.6g} s"
            return Breach("step guard", self.step_elapsed_s, step.guard_s, sentence)
        return None

    def _count(self, sample: CellSample) -> None:
        before = self._device_t_s
        self._device_t_s = sample.device_t_s
        self.step_charge.add(sample.device_t_s, sample.current_ma)
        if before is not None and not self._waiting:
            dt_s = max(0.0, sample.device_t_s - before)
            self.elapsed_s += dt_s
            self.step_elapsed_s += dt_s

    def _enter(self, sample: CellSample) -> Command:
        """Enter the current step, passing over those whose end is met already.

        When a whole cycle of them is, the circuit opens until the next sample: no end of experiment is more than
        `cycles` samples away, and no list of steps can spin.
        """
        for _ in self.plan.steps:
            if self.finished:
                return Off()
            self._begin_step(sample)
            if not self._met_already(sample):
                self._waiting, self._entering = False, True
                return self._drive()
            self._advance()
        self._waiting = not self.finished
        return Off()

    def _advance(self) -> None:
        if self.index + 1 < len(self.plan.steps):
            self.index += 1
        elif self.cycle + 1 < self.plan.cycles:
            self.cycle, self.index = self.cycle + 1, 0
        else:
            self.finished = True

    def _met_already(self, sample: CellSample) -> bool:
        """Whether driving could only move the voltage further beyond the step's end.

        Certain only when the step drives at least as hard as what flows now: less current relaxes the voltage.
        """
        step = self.step
        if step.end_voltage_v is None:
            return False
        beyond = step.direction * (sample.voltage_v - step.end_voltage_v) >= 0
        return beyond and step.direction * (step.current_ma - sample.current_ma) >= 0

    def _drive(self) -> Command:
        step = self.step
        if step.kind == "rest":
            return Off()
        if step.kind == "hold":
            return SetVoltage(step.voltage_v, self.plan.hold_current_ma)
        return SetCurrent(step.current_ma)

    def _ended(self, sample: CellSample) -> bool:
        step = self.step
        self._fresh += 1
        if step.end_time_s is not None and self.step_elapsed_s >= step.end_time_s:
            return True
        if step.end_charge_mah is not None and self._passed_mah() >= step.end_charge_mah:
            return True
        if not self._settled(sample):
            return False
        if step.end_voltage_v is not None:
            return step.direction * (sample.voltage_v - step.end_voltage_v) >= 0
        return step.end_current_ma is not None and self._has_tapered(sample, step.end_current_ma)

    def _passed_mah(self) -> float:
        if self.step.kind == "charge":
            return self.step_charge.charged_mah
        return self.step_charge.discharged_mah if self.step.kind == "discharge" else self.step_charge.largest_mah

    def _settled(self, sample: CellSample) -> bool:
        """Whether the sample shows the cell under this step's drive, not under the one before."""
        step = self.step
        if step.kind == "hold":
            return sample.mode is CellMode.POTENTIOSTATIC
        if sample.mode is not CellMode.GALVANOSTATIC:
            return False
        near = abs(sample.current_ma - step.current_ma) <= SETTLED_SHARE * abs(step.current_ma)
        return near or self._fresh >= SETTLED_SAMPLES

    def _has_tapered(self, sample: CellSample, end_ma: float) -> bool:
        self._tapered = self._tapered + 1 if abs(sample.current_ma) <= end_ma else 0
        return self._tapered >= TAPER_SAMPLES

    def progress(self, voltage_v: float) -> float:
        """How much of the step is done, 0 to 1: the furthest of its ends; 0 where it cannot be told."""
        step = self.step
        shares = [0.0]
        if step.end_time_s is not None:
            shares.append(self.step_elapsed_s / step.end_time_s)
        if step.end_charge_mah is not None:
            shares.append(self._passed_mah() / step.end_charge_mah)
        if step.end_voltage_v is not None and step.end_voltage_v != self._start_v:
            shares.append((voltage_v - self._start_v) / (step.end_voltage_v - self._start_v))
        return min(1.0, max(share for share in shares if math.isfinite(share)))

    def values(self, voltage_v: float) -> dict[str, Any]:
        """For the status."""
        step = self.step
        return {
            "cycle": self.cycle,
            "cycles": self.plan.cycles,
            "step": self.index,
            "steps": len(self.plan.steps),
            "step_text": step.text,
            "step_kind": step.kind,
            "step_elapsed_s": self.step_elapsed_s,
            "step_charge_mah": self.step_charge.net_mah,
            "step_progress": self.progress(voltage_v),
            "experiment_elapsed_s": self.elapsed_s,
        }
