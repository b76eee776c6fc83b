"""The driver on the emulated device, over a pseudo-terminal."""

from __future__ import annotations

from itertools import pairwise

import pytest

import hw.potentiostat
from hw.drivers import DriverError, build_driver
from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.contract import CellMode, DeviceLimits, HostLoss, StepBounds
from tests.hw.potentiostat.contract_tests import PotentiostatContract

LIMITS = DeviceLimits(2.5, 4.3, 10.0)


class TestContract(PotentiostatContract):
    @pytest.fixture
    def potentiostat(self, bench):
        return bench(opened=False).driver


def refused(call, *arguments):
    with pytest.raises(PotentiostatError) as caught:
        call(*arguments)
    return caught.value


def test_it_says_what_it_is_and_what_a_lost_host_means(bench):
    one = bench(opened=False, serial="ES4HR7", driver={"default_bound_s": 7200.0})
    info = one.driver.open()
    assert (info.model, info.serial, info.max_current_ma, info.max_voltage_v) == ("EmStat4 HR", "ES4HR7", 200.0, 6.0)
    assert info.host_loss is HostLoss.CONTINUE_TO_END and info.host_loss_bound_s == 7200.0


@pytest.mark.parametrize(
    ("model", "says"),
    [("espico", "galvanostat"), ("senswb", "galvanostat"), ("es4_lr", "3 V"), ("espbl", "boot loader")],
)
def test_models_that_cannot_drive_the_cell_are_refused(bench, model, says):
    error = refused(bench(opened=False, model=model).driver.open)
    assert error.reason is CellReason.UNSUITABLE and says in error.detail


def test_a_narrow_model_serves_a_cell_of_low_voltage(bench):
    info = bench(opened=False, model="es4_lr", driver={"cell_max_voltage_v": 2.0}).driver.open()
    assert info.max_voltage_v == 3.0


def test_firmware_without_a_galvanostat_is_refused_by_name(bench, monkeypatch):
    monkeypatch.setattr("hw.twin.methodscript.device.GALVANOSTAT_BITS", ())
    error = refused(bench(opened=False).driver.open)
    assert error.reason is CellReason.UNSUITABLE and "meas_loop_cp, set_i" in error.detail


def test_limits_beyond_the_model_are_refused(bench):
    one = bench()
    one.driver.set_limits(DeviceLimits(-7.0, 4.3, 10.0))
    assert refused(one.driver.set_current, 0.1).reason is CellReason.REFUSED
    one.driver.set_limits(DeviceLimits(2.5, 4.3, 500.0))
    assert refused(one.driver.set_current, 0.1).reason is CellReason.REFUSED
    assert not one.state["cell_on"] and one.driver.mode() is CellMode.OFF


def test_samples_come_with_the_devices_rate_and_no_gap_over_commands(bench):
    one = bench()
    one.driver.set_limits(LIMITS)
    samples = one.read(0.4)
    one.driver.set_current(0.3)
    samples += one.read(0.5)
    one.driver.set_voltage(3.9, 5.0)
    samples += one.read(0.5)
    one.driver.cell_off()
    samples += one.read(0.3)
    steps = [b.device_t_s - a.device_t_s for a, b in pairwise(samples)]
    assert min(steps) > 0 and max(steps) < 0.6
    assert samples[-1].device_t_s == pytest.approx(samples[-1].host_t_s - samples[0].host_t_s, abs=0.15)
    assert [mode for mode in CellMode if any(s.mode is mode for s in samples)] == list(CellMode)


@pytest.mark.parametrize("limit", ["max_voltage_v", "max_current_ma"])
def test_the_device_opens_the_circuit_within_one_sample_of_a_limit(bench, limit):
    one = bench(speed=120.0, initial_soc=0.6)
    one.driver.set_current(0.5)
    now_v = one.read(0.3)[-1].voltage_v
    limits = DeviceLimits(2.5, now_v + 0.01, 5.0) if limit == "max_voltage_v" else DeviceLimits(2.5, 4.5, 0.2)
    one.driver.cell_off()
    one.read(0.1)
    one.driver.set_limits(limits)
    one.driver.set_current(0.5)
    driven = one.until_off()[:-1]
    assert f"{limit} = {getattr(limits, limit):g} was passed" in driven[-1].stopped_by
    assert not any(sample.stopped_by for sample in driven[:-1])
    inside = [s for s in driven if s.voltage_v < limits.max_voltage_v and s.current_ma < limits.max_current_ma]
    assert len(driven) - len(inside) == 1
    assert not one.state["cell_on"]


def test_the_lower_limit_holds_while_charging_and_discharging(bench):
    one = bench(speed=60.0, initial_soc=0.5)
    rest_v = one.read(0.3)[-1].voltage_v
    one.driver.set_limits(DeviceLimits(rest_v + 0.5, 4.5, 5.0))
    one.driver.set_current(0.1)
    assert "min_voltage_v" in [s for s in one.until_off() if s.mode is not CellMode.OFF][-1].stopped_by


def test_the_device_ends_a_step_by_itself_a_little_later(bench, caplog):
    caplog.set_level("INFO")
    one = bench(speed=60.0, initial_soc=0.5)
    one.driver.set_limits(LIMITS)
    assert one.driver.set_bounds(StepBounds(longest_s=20.0))
    one.driver.set_current(0.6)
    driven = one.until_off()[:-1]
    assert "by itself: time" in caplog.text and not driven[-1].stopped_by
    assert 20.0 <= driven[-1].device_t_s - driven[0].device_t_s <= 90.0

    one.driver.set_bounds(StepBounds(most_mah=0.004))
    one.driver.set_current(0.6)
    driven = one.until_off()[:-1]
    assert "by itself: charge" in caplog.text and not driven[-1].stopped_by
    assert 0.004 <= 0.6 * (driven[-1].device_t_s - driven[0].device_t_s) / 3600 <= 0.02

    end_v = driven[-1].voltage_v - 0.01
    one.driver.set_bounds(StepBounds(end_voltage_v=end_v))
    one.driver.set_current(0.6)
    driven = one.until_off()[:-1]
    assert "by itself: step voltage" in caplog.text and not driven[-1].stopped_by
    assert sum(sample.voltage_v >= end_v for sample in driven) == 3


def test_a_hold_ends_by_itself_when_its_current_has_fallen(bench, caplog):
    caplog.set_level("INFO")
    one = bench(speed=600.0)
    one.driver.set_limits(LIMITS)
    one.driver.set_bounds(StepBounds(longest_s=36000.0, end_current_ma=0.05))
    one.driver.set_voltage(3.75, 5.0)
    driven = [sample for sample in one.until_off(6.0) if sample.mode is CellMode.POTENTIOSTATIC]
    assert "by itself: step current" in caplog.text
    assert sum(abs(sample.current_ma) <= 0.05 for sample in driven[-5:]) == 5


def test_bounds_serve_one_command_only(bench):
    one = bench(interval_s=0.1)
    one.driver.set_limits(LIMITS)
    one.driver.set_bounds(StepBounds(longest_s=10.0))
    one.driver.set_current(0.1)
    assert "meas_loop_cp e i 100u 100m 12100m" in one.state["script"]
    one.driver.set_current(0.2)
    assert "meas_loop_cp e i 200u 100m 87266" in one.state["script"]


@pytest.mark.parametrize(("soc", "hold_v"), [(0.1, 4.2), (0.9, 3.5)])
def test_a_hold_far_away_drives_its_largest_current_first(bench, soc, hold_v):
    one = bench(speed=20.0, initial_soc=soc)
    one.driver.set_limits(DeviceLimits(2.5, 4.4, 5.0))
    one.driver.set_voltage(hold_v, 1.0)
    samples = [sample for sample in one.read(0.8) if sample.mode is CellMode.POTENTIOSTATIC]
    sign = 1 if soc < 0.5 else -1
    assert samples[0].current_ma == pytest.approx(sign, abs=0.01)
    assert max(abs(sample.current_ma) for sample in samples) < 1.06


def test_a_near_hold_does_not_overshoot(bench):
    one = bench()
    one.driver.set_limits(LIMITS)
    rest_v = one.read(0.3)[-1].voltage_v
    one.driver.set_voltage(rest_v + 0.02, 9.5)
    samples = [sample for sample in one.read(0.5) if sample.mode is CellMode.POTENTIOSTATIC]
    assert max(sample.voltage_v for sample in samples) < rest_v + 0.021
    assert all(0 < sample.current_ma < 9.5 for sample in samples)


def test_limits_are_no_longer_the_devices_once_a_wider_script_runs(bench):
    one = bench()
    assert one.driver.set_limits(LIMITS)
    one.driver.set_current(0.3)
    assert one.driver.set_limits(DeviceLimits(2.0, 4.5, 20.0))
    assert not one.driver.set_limits(DeviceLimits(3.0, 4.0, 1.0))


def test_closing_switches_off_and_later_calls_say_so(bench):
    one = bench()
    one.driver.set_current(0.3)
    one.driver.close()
    assert not one.state["cell_on"] and not one.state["running"]
    for call in (lambda: one.driver.set_current(0.1), one.driver.cell_off, lambda: one.driver.read(0.1)):
        assert refused(call).reason is CellReason.UNPLUGGED


def test_an_interval_too_long_to_notice_limits_is_refused(tmp_path):
    with pytest.raises(DriverError, match="interval_s is at most"):
        build_driver(hw.potentiostat.DRIVERS, "methodscript", {"interval_s": 5.0})
