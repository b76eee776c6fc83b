"""What goes wrong between driver and device: errors, cables, hangs, scripts and cells found on."""

from __future__ import annotations

import contextlib
import time
from itertools import pairwise

import pytest

from hw.errors import CellReason, InstrumentError, PotentiostatError, UsbReason
from hw.potentiostat.contract import CellMode, DeviceLimits, StepBounds

LIMITS = DeviceLimits(2.5, 4.3, 10.0)


def refused(call, *arguments):
    with pytest.raises(PotentiostatError) as caught:
        call(*arguments)
    return caught.value


def test_a_runtime_error_switches_off_by_a_script_of_its_own(bench):
    one = bench()
    one.driver.set_current(0.3)
    one.read(0.2)
    one.pty.inject("runtime_error", code="0032")
    error = None
    with pytest.raises(PotentiostatError) as caught:
        one.read(1.0)
    error = caught.value
    assert error.reason is CellReason.DEVICE_ERROR
    assert "critical overload" in error.detail and "check leads" in error.detail and "switched off" in error.detail
    assert not one.state["cell_on"]
    assert one.driver.mode() is CellMode.OFF and one.read(0.3)[-1].mode is CellMode.OFF


def test_off_that_does_not_come_is_in_doubt(bench):
    one = bench()
    one.driver.set_current(0.3)
    one.pty.inject("off_ignored")
    error = refused(one.driver.cell_off)
    assert error.reason is CellReason.IN_DOUBT and "0014" in error.detail
    assert one.state["cell_on"]
    one.pty.inject("none")
    one.driver.cell_off()
    assert not one.state["cell_on"]


def test_a_runtime_error_whose_off_does_not_come_is_in_doubt(bench):
    one = bench()
    one.driver.set_current(0.3)
    one.pty.inject("off_ignored")
    one.pty.inject("runtime_error")
    with pytest.raises(PotentiostatError) as caught:
        one.read(1.0)
    assert caught.value.reason is CellReason.IN_DOUBT


def test_a_device_that_hangs_gives_no_samples_and_off_is_in_doubt(bench):
    one = bench()
    one.driver.set_current(0.3)
    one.pty.inject("stall")
    one.read(0.1)
    assert one.read(0.4) == []
    began = time.monotonic()
    assert refused(one.driver.cell_off).reason is CellReason.IN_DOUBT
    assert time.monotonic() - began < 3.0
    one.pty.inject("none")
    one.driver.cell_off()


def test_a_silent_device_is_told_from_none(bench, tmp_path):
    one = bench(opened=False)
    one.pty.inject("stall")
    error = refused(one.driver.open)
    assert error.reason is CellReason.STALLED and "does not answer" in error.detail
    one.pty.stop()
    assert refused(one.another().open).reason is CellReason.NOT_FOUND


def test_a_pulled_cable_is_unplugged_and_a_new_driver_finds_it_again(bench):
    one = bench()
    one.driver.set_current(0.3)
    one.pty.inject("unplug")
    with pytest.raises(PotentiostatError) as caught:
        one.read(1.0)
    assert caught.value.reason is CellReason.UNPLUGGED
    assert refused(one.driver.cell_off).reason is CellReason.UNPLUGGED
    one.driver.close()
    one.pty.plug()
    one.driver = one.another()
    one.driver.open()
    assert one.driver.mode() is CellMode.OFF and one.read(0.4)


def test_a_second_driver_is_told_that_the_first_holds_it(bench):
    one = bench()
    with pytest.raises(InstrumentError) as caught:
        one.another().open()
    assert caught.value.reason is UsbReason.BUSY


def test_garbage_is_counted_and_the_rest_goes_on(bench):
    one = bench()
    one.driver.set_current(0.3)
    one.read(0.2)
    one.pty.inject("garbage", lines=3)
    samples = one.read(0.8)
    assert one.driver._session.garbage == 3
    assert len(samples) >= 3 and all(sample.current_ma == pytest.approx(0.3, abs=0.01) for sample in samples)


def test_a_slow_link_delays_and_loses_nothing(bench):
    one = bench()
    one.pty.inject("slow", delay_s=0.02)
    one.driver.set_current(0.3)
    samples = one.read(0.8)
    assert one.driver.mode() is CellMode.GALVANOSTATIC and len(samples) >= 6
    one.driver.cell_off()


def test_a_script_that_is_held_up_goes_on_and_nothing_is_lost(bench):
    one = bench()
    one.driver.set_current(0.3)
    one.pty.inject("back_pressure", seconds=1.0, room=200)
    samples = one.read(1.8)
    steps = [b.device_t_s - a.device_t_s for a, b in pairwise(samples)]
    assert one.state["counts"]["held up"] > 0
    assert max(steps) > 0.4  # the device took no samples meanwhile
    assert samples[-1].device_t_s - samples[0].device_t_s > 1.4


def test_a_strangers_running_script_is_found_and_switched_off(bench):
    one = bench(opened=False)
    one.pty.inject("dirty")
    info = one.driver.open()
    assert "found running" in info.model and one.driver.mode() is CellMode.GALVANOSTATIC
    assert one.state["cell_on"]  # opening does not change the cell
    samples = one.read(0.4)
    assert samples[-1].current_ma == pytest.approx(0.3, abs=0.01)
    one.driver.cell_off()
    assert not one.state["cell_on"] and one.driver.mode() is CellMode.OFF
    one.driver.set_limits(LIMITS)
    one.driver.set_current(0.1)  # and is known from now on
    assert refused(one.driver.set_current, 201.0).reason is CellReason.REFUSED


def test_a_stranger_that_turns_out_unfit_is_switched_off_and_drives_nothing(bench):
    one = bench(opened=False, model="es4_lr")
    one.pty.inject("dirty")
    one.driver.open()
    one.driver.cell_off()
    assert not one.state["cell_on"] and one.driver.mode() is CellMode.OFF
    assert refused(one.driver.set_current, 0.1).reason is CellReason.REFUSED
    assert not one.state["cell_on"]


@pytest.mark.parametrize("hold", [False, True])
def test_a_script_of_ours_found_running_keeps_its_mode(bench, hold):
    one = bench()
    one.driver.set_limits(LIMITS)
    if hold:
        one.driver.set_voltage(3.9, 5.0)
    else:
        one.driver.set_current(0.3)
    while not [sample for sample in one.read(0.1) if sample.mode is not CellMode.OFF]:
        continue
    one.driver._release()  # as a killed host leaves it
    one.driver = one.another()
    one.driver.open()
    mode = CellMode.POTENTIOSTATIC if hold else CellMode.GALVANOSTATIC
    assert one.driver.mode() is mode and one.read(0.3)[-1].mode is mode
    one.driver.cell_off()
    assert not one.state["cell_on"]


def test_a_hold_of_ours_found_while_it_feels_its_way_counts_as_on(bench):
    one = bench()
    one.driver.set_limits(LIMITS)
    one.driver.set_voltage(3.9, 5.0)
    one.driver._release()
    one.driver = one.another()
    one.driver.open()
    assert one.driver.mode() is not CellMode.OFF and one.state["cell_on"]
    one.driver.cell_off()
    assert not one.state["cell_on"]


def test_a_cell_left_on_by_a_script_that_failed_is_found_on(bench):
    one = bench()
    one.driver.set_current(0.3)
    one.pty.inject("runtime_error")
    time.sleep(0.2)
    one.driver._release()
    one.driver = one.another()
    one.driver.open()
    assert one.state["cell_on"] and one.driver.mode() is CellMode.GALVANOSTATIC
    one.driver.cell_off()
    assert not one.state["cell_on"] and one.driver.mode() is CellMode.OFF


def test_half_a_script_of_a_killed_host_never_runs(bench):
    one = bench(opened=False)
    one.pty.device.feed(b"e\nset_pgstat_mode 6\nset_i 5m\ncell_on\n")
    one.driver.open()
    assert not one.state["cell_on"]
    assert "cell_on" not in "".join(one.pty.device.scripts)


def test_without_a_host_the_script_ends_by_itself_with_the_cell_off(bench):
    one = bench(speed=60.0)
    one.driver.set_limits(LIMITS)
    one.driver.set_bounds(StepBounds(longest_s=30.0))
    one.driver.set_current(0.3)
    assert one.state["cell_on"]
    one.driver._release()
    time.sleep(2.0)
    assert not one.state["cell_on"] and not one.state["running"]


@pytest.mark.parametrize("way", ["cell_off", "close"])
def test_an_order_to_end_that_is_lost_is_given_again(bench, way):
    one = bench()
    one.driver.set_current(0.3)
    one.pty.inject("deaf")
    getattr(one.driver, way)()
    assert not one.state["cell_on"]


@pytest.mark.parametrize("line", ["", "P!0032"])
def test_a_stray_line_does_not_pass_for_the_end_of_a_script(bench, line):
    one = bench()
    one.driver.set_current(0.3)
    one.read(0.2)
    one.pty.inject("stray", line=line)
    with contextlib.suppress(PotentiostatError):
        one.read(1.0)
    one.driver.cell_off()
    assert not one.state["cell_on"]
    assert one.read(0.3)[-1].mode is CellMode.OFF
