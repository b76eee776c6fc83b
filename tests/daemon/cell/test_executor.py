from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.cell.executor import Command, Executor, Off, SetCurrent, SetVoltage
from daemon.cell.plan import plan_experiment
from daemon.config import CellSettings
from daemon.recipe import CellLimits, ExperimentSpec
from hw.potentiostat.contract import CellMode, CellSample, StepBounds
from tests.daemon.cell.fake import INFO, Bench

CELL = CellSettings(capacity_mah=1.0, limits=CellLimits(min_voltage_v=2.5, max_voltage_v=4.5, max_current_ma=10.0))


def executor(*steps: str, cycles: int = 1, **limits: float) -> Executor:
    cell = CELL.model_copy(update={"limits": CELL.limits.model_copy(update=limits)})
    return Executor(plan_experiment(ExperimentSpec(steps=list(steps), cycles=cycles), cell, INFO))


@dataclass
class Rig:
    """Runs an executor against the fake's cell on a clock of its own; host and device time are one."""

    executor: Executor
    bench: Bench = field(default_factory=Bench)
    host_t_s: float = 0.0
    commands: list[Command] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def sample(self) -> CellSample:
        return self.bench.sample(self.host_t_s)

    def obey(self, command: Command | None) -> None:
        if command is None:
            return
        self.commands.append(command)
        if isinstance(command, Off):
            self.bench.mode = CellMode.OFF
        elif isinstance(command, SetCurrent):
            self.bench.mode, self.bench.set_ma = CellMode.GALVANOSTATIC, command.current_ma
        else:
            self.bench.mode = CellMode.POTENTIOSTATIC
            self.bench.set_v, self.bench.bound_ma = command.voltage_v, command.max_current_ma
        self.executor.commanded(self.host_t_s)

    def begin(self) -> None:
        self.obey(self.executor.begin(self.sample()))

    def step(self, dt_s: float = 1.0) -> Command | None:
        self.bench.advance(dt_s)
        self.host_t_s += dt_s
        command = self.executor.feed(self.sample())
        self.kinds.append(self.executor.place().kind)
        self.obey(command)
        return command

    def run(self, dt_s: float = 1.0, most: int = 100_000) -> None:
        self.begin()
        for _ in range(most):
            if self.executor.finished:
                return
            self.step(dt_s)
        raise AssertionError("the experiment does not end")


def ran(*steps: str, charge_mah: float = 0.5, dt_s: float = 1.0, cycles: int = 1) -> Rig:
    rig = Rig(executor(*steps, cycles=cycles), Bench(charge_mah=charge_mah))
    rig.run(dt_s)
    return rig


def test_charge_until_voltage() -> None:
    rig = ran("Charge at 1C until 4.1 V")
    assert rig.commands == [SetCurrent(1.0), Off()]
    assert rig.bench.open_circuit_v == pytest.approx(4.1 - 0.05, abs=2e-3)


def test_discharge_until_voltage() -> None:
    rig = ran("Discharge at C/2 until 3.2 V")
    assert rig.commands == [SetCurrent(-0.5), Off()]
    assert rig.bench.open_circuit_v == pytest.approx(3.2 + 0.025, abs=2e-3)


def test_time_ends_on_the_devices_clock() -> None:
    rig = ran("Charge at C/10 for 10 minutes")
    assert rig.host_t_s == pytest.approx(600, abs=1.01)


def test_capacity_ends() -> None:
    rig = ran("Discharge at 1C until 0.1 mAh")
    assert rig.bench.charge_mah == pytest.approx(0.4, abs=1e-3)


def test_hold_until_taper() -> None:
    rig = ran("Charge at 1C until 4.1 V", "Hold at 4.1 V until C/20")
    assert rig.commands == [SetCurrent(1.0), SetVoltage(4.1, pytest.approx(9.5)), Off()]  # no opening in between
    assert rig.bench.open_circuit_v == pytest.approx(4.1 - 0.05 * 0.05, abs=1e-3)


def test_first_end_met_wins() -> None:
    assert ran("Hold at 4.1 V for 1 minute or until C/1000").host_t_s == pytest.approx(60, abs=1.01)
    assert ran("Charge at 1C for 10 hours or until 4.1 V").host_t_s < 3600


def test_cycles_and_places() -> None:
    rig = Rig(executor("Charge at 1C for 10 s", "Rest for 5 s", cycles=2))
    rig.begin()
    places = []
    while not rig.executor.finished:
        rig.step()
        place = rig.executor.place()
        if not places or places[-1] != (place.cycle, place.step, place.kind):
            places.append((place.cycle, place.step, place.kind))
    assert places == [(0, 0, "charge"), (0, 1, "rest"), (1, 0, "charge"), (1, 1, "rest")]


def test_an_end_met_already_is_passed_over_without_energising() -> None:
    rig = ran("Charge at 1C until 3.5 V", "Rest for 10 s")  # open circuit is at 3.6 V
    assert rig.commands == [Off(), Off()]


def test_a_whole_cycle_met_already_opens_the_circuit_and_waits() -> None:
    rig = Rig(executor("Charge at 1C until 3.5 V", "Discharge at 1C until 3.7 V", cycles=50))
    rig.begin()
    for _ in range(49):
        assert not rig.executor.finished
        assert not rig.bench.energised
        rig.step()
    assert rig.executor.finished
    assert all(isinstance(command, Off) for command in rig.commands)


def test_gentler_drive_after_a_harder_one_gets_its_chance() -> None:
    rig = ran("Charge at 2C until 4.1 V", "Charge at C/10 until 4.1 V")
    assert rig.commands == [SetCurrent(2.0), SetCurrent(0.1), Off()]
    assert rig.bench.open_circuit_v == pytest.approx(4.1 - 0.005, abs=2e-3)


def test_samples_from_before_a_command_end_nothing() -> None:
    rig = Rig(executor("Charge at 2C until 4.1 V", "Charge at C/10 until 4.1 V"), Bench(charge_mah=0.8))
    rig.begin()
    while rig.executor.index == 0:
        rig.step()
    late = CellSample(rig.bench.device_t_s, rig.host_t_s - 0.5, 4.11, 2.0, CellMode.GALVANOSTATIC)
    for _ in range(10):
        assert rig.executor.feed(late) is None
        assert rig.executor.place().step == 0
    assert rig.executor.step_elapsed_s == 0.0


def test_wrong_mode_ends_nothing_but_time() -> None:
    rig = Rig(executor("Hold at 4.1 V for 10 s or until C/2"))
    rig.begin()
    for n in range(1, 10):
        sample = CellSample(float(n), float(n), 4.1, 0.0, CellMode.GALVANOSTATIC)
        assert rig.executor.feed(sample) is None
    assert rig.executor.feed(CellSample(10.0, 10.0, 4.1, 0.0, CellMode.GALVANOSTATIC)) == Off()


def test_a_current_that_never_settles_still_meets_its_voltage() -> None:
    rig = Rig(executor("Charge at 1C until 4.1 V"))
    rig.begin()
    fed = [rig.executor.feed(CellSample(n, n, 4.2, 0.2, CellMode.GALVANOSTATIC)) for n in (1.0, 2.0, 3.0)]
    assert fed == [None, None, Off()]


def test_one_low_sample_is_no_taper() -> None:
    rig = Rig(executor("Hold at 4.1 V until C/2"))
    rig.begin()
    currents = [5.0, 0.0, 5.0, 0.4, 0.3]
    fed = [rig.executor.feed(CellSample(n, n, 4.1, ma, CellMode.POTENTIOSTATIC)) for n, ma in enumerate(currents, 1)]
    assert fed == [None, None, None, None, Off()]


def test_pause_does_not_count() -> None:
    rig = Rig(executor("Charge at 1C for 100 s"))
    rig.begin()
    for _ in range(40):
        rig.step()
    passed_mah = rig.executor.step_charge.net_mah
    rig.bench.mode = CellMode.OFF
    rig.bench.advance(5000)
    rig.host_t_s += 5000
    rig.obey(rig.executor.resume())
    assert rig.bench.energised
    rig.step()
    assert rig.executor.step_charge.net_mah == pytest.approx(passed_mah, rel=1e-9)
    assert rig.executor.step_elapsed_s == pytest.approx(40, abs=1.01)
    while not rig.executor.finished:
        rig.step()
    assert rig.host_t_s == pytest.approx(5100, abs=2.1)


def test_clock_set_back_takes_no_time_off() -> None:
    rig = Rig(executor("Rest for 100 s"))
    rig.begin()
    for n in range(1, 51):
        rig.executor.feed(CellSample(float(n), float(n), 3.6, 0.0, CellMode.OFF))
    for n in range(51, 101):
        rig.executor.feed(CellSample(float(n - 50), float(n), 3.6, 0.0, CellMode.OFF))
    assert rig.executor.elapsed_s == pytest.approx(99)


def test_limits_of_time_and_charge() -> None:
    rig = Rig(executor("Charge at 1C until 4.4 V", max_time_s=50.0))
    rig.begin()
    breaches = []
    while not breaches:
        rig.step()
        breaches += [breach for breach in [rig.executor.breach()] if breach]
    assert (breaches[0].limit, rig.host_t_s) == ("max_time_s", 51.0)
    rig = Rig(executor("Charge at 1C until 4.4 V", max_capacity_mah=0.01))
    rig.begin()
    while rig.executor.breach() is None:
        rig.step()
    assert rig.executor.breach().limit == "max_capacity_mah"  # type: ignore[union-attr]
    assert rig.bench.charge_mah == pytest.approx(0.51, abs=1e-3)


def test_bounds_for_the_device_are_what_is_left_of_the_step() -> None:
    rig = Rig(
        executor(
            "Charge at 1C for 10 minutes or until 4.1 V", "Hold at 4.1 V until C/20", "Discharge at 1C until 0.1 mAh"
        )
    )
    rig.begin()
    assert rig.executor.bounds() == StepBounds(longest_s=600.0, end_voltage_v=4.1)
    for _ in range(60):
        rig.step()
    assert rig.executor.bounds().longest_s == pytest.approx(540.0)
    while rig.executor.index == 0:
        rig.step()
    assert rig.executor.bounds() == StepBounds(longest_s=86_400.0, end_current_ma=0.05)
    while rig.executor.index == 1:
        rig.step()
    bounds = rig.executor.bounds()
    assert (bounds.longest_s, bounds.most_mah) == (None, pytest.approx(0.1))
    rig.step()
    before_mah = rig.executor.bounds().most_mah
    rig.step(36.0)
    assert before_mah is not None and rig.executor.bounds().most_mah == pytest.approx(before_mah - 0.01)


def test_bounds_for_the_device_take_the_experiments_limits_in() -> None:
    rig = Rig(executor("Charge at 1C until 4.4 V", max_time_s=300.0, max_capacity_mah=0.02))
    rig.begin()
    rig.step()
    before = rig.executor.bounds()
    assert before.longest_s == pytest.approx(299.0) and before.most_mah is not None and before.most_mah < 0.02
    rig.step(36.0)
    after = rig.executor.bounds()
    assert after.longest_s == pytest.approx(263.0) and after.most_mah == pytest.approx(before.most_mah - 0.01)
    rig.step(3600.0)
    assert rig.executor.bounds().longest_s == 0.0 and rig.executor.bounds().most_mah == 0.0


def test_guard_of_a_step_that_meets_no_end() -> None:
    rig = Rig(executor("Charge at 1C until 4.4 V"))
    rig.begin()
    for n in range(1, 74):
        rig.executor.feed(CellSample(n * 100.0, float(n), 3.6, 1.0, CellMode.GALVANOSTATIC))
    breach = rig.executor.breach()
    assert breach is not None and "met no end" in str(breach)


def test_values_and_progress() -> None:
    rig = Rig(executor("Charge at 1C until 4.2 V", "Rest for 10 s", cycles=4))
    rig.begin()
    for _ in range(900):
        rig.step()
    values = rig.executor.values(rig.sample().voltage_v)
    assert values["step_text"] == "Charge at 1C until 4.2 V"
    assert (values["cycle"], values["step"], values["steps"], values["cycles"]) == (0, 0, 2, 4)
    assert values["step_elapsed_s"] == pytest.approx(900, abs=1.01)
    assert values["step_charge_mah"] == pytest.approx(0.25, abs=2e-3)
    assert values["step_progress"] == pytest.approx(0.3 / 0.6, abs=0.1)
    assert rig.executor.progress(math.nan) == 0.0


texts = st.lists(
    st.sampled_from(
        [
            "Charge at 1C until 4.1 V",
            "Charge at C/10 until 3.5 V",
            "Discharge at 2C until 3.2 V",
            "Discharge at 1C for 1 minute",
            "Hold at 3.8 V for 30 seconds",
            "Hold at 4.0 V until C/10",
            "Rest for 10 seconds",
            "Charge at 1C until 0.01 mAh",
        ]
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(texts, st.integers(1, 3), st.floats(0.1, 0.9), st.sampled_from([7.0, 20.0]))
def test_every_experiment_on_a_sound_cell_ends_with_the_circuit_open(
    steps: list[str], cycles: int, charge_mah: float, dt_s: float
) -> None:
    rig = ran(*steps, cycles=cycles, charge_mah=charge_mah, dt_s=dt_s)
    assert rig.commands[-1] == Off()
    assert not rig.bench.energised
    assert rig.executor.feed(rig.sample()) is None, "nothing comes after the end"


readings = st.floats(allow_nan=True, allow_infinity=True)


@given(texts, st.lists(st.tuples(readings, readings, readings, st.sampled_from(list(CellMode))), max_size=40))
def test_no_stream_of_samples_breaks_it(steps: list[str], stream: list[tuple[float, float, float, CellMode]]) -> None:
    rig = Rig(executor(*steps, cycles=3))
    rig.begin()
    for host_t_s, (t_s, voltage_v, current_ma, mode) in enumerate(stream, 1):
        command = rig.executor.feed(CellSample(t_s, host_t_s, voltage_v, current_ma, mode))
        rig.executor.breach()
        if command is not None:
            rig.executor.commanded(host_t_s)
        if rig.executor.finished:
            assert command in (None, Off())
