"""The driver `keithley` on an emulated unit."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

import hw.potentiostat
from hw.drivers import build_driver
from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.contract import CellMode, DeviceLimits
from tests.hw.potentiostat.contract_tests import PotentiostatContract

CELL = {"particles": 6, "capacity_mah": 0.5, "initial_soc": 0.4}
LIMITS = DeviceLimits(2.5, 4.4, 5.0)


@pytest.fixture
def unit(bus):
    bus.plug("smu", "smu", drivers={0: "usbtmc"}, **CELL)
    return bus


@pytest.fixture
def potentiostat(unit):
    one = build_driver(hw.potentiostat.DRIVERS, "keithley", {"sample_rate_hz": 20, "host_loss_after_s": 5})
    yield one
    one.close()


@pytest.fixture
def opened(potentiostat):
    info = potentiostat.open()
    potentiostat.set_limits(LIMITS)
    return potentiostat, info


def samples(potentiostat, count, within_s=5.0):
    deadline, found = time.monotonic() + within_s, []
    while len(found) < count and time.monotonic() < deadline:
        found += potentiostat.read(0.2)
        potentiostat.keep_alive()
    return found


def refused(call, *arguments):
    with pytest.raises(PotentiostatError) as caught:
        call(*arguments)
    return caught.value


class TestContract(PotentiostatContract):
    @pytest.fixture
    def potentiostat(self, unit):
        one = build_driver(hw.potentiostat.DRIVERS, "keithley", {"sample_rate_hz": 20})
        yield one
        one.close()


def test_the_rest_is_a_voltmeter_and_off_isolates(opened, unit):
    potentiostat, info = opened
    assert info.model == "Keithley 2450" and info.host_loss_after_s == 5
    rest = samples(potentiostat, 3)
    assert all(s.mode is CellMode.OFF and abs(s.current_ma) < 1e-3 for s in rest)
    assert 3.0 < rest[-1].voltage_v < 4.4
    potentiostat.cell_off()
    assert unit.state("smu")["output"] is False
    assert unit.state("smu")["off_state"] == "HIMPedance" and not unit.state("smu")["flowing"]


def test_a_charge_ends_in_constant_voltage_by_itself_at_the_limit(opened, unit):
    potentiostat, _ = opened
    rest_v = samples(potentiostat, 1)[-1].voltage_v
    potentiostat.set_limits(DeviceLimits(2.5, rest_v + 0.03, 5.0))
    potentiostat.set_current(2.0)
    first = samples(potentiostat, 3)
    assert first[0].mode is CellMode.GALVANOSTATIC or first[0].voltage_v > rest_v
    last = samples(potentiostat, 200, within_s=8.0)[-1]
    assert last.voltage_v <= rest_v + 0.031
    assert last.mode is CellMode.POTENTIOSTATIC and last.current_ma < 2.0


def test_a_current_changes_its_sign_without_a_gap_in_time(opened):
    potentiostat, _ = opened
    potentiostat.set_current(0.5)
    charge = samples(potentiostat, 5)
    potentiostat.set_current(-0.5)
    discharge = samples(potentiostat, 8)
    assert charge[-1].current_ma == pytest.approx(0.5, rel=0.02)
    assert discharge[-1].current_ma == pytest.approx(-0.5, rel=0.02)
    times = [s.device_t_s for s in charge + discharge]
    assert all(b > a for a, b in pairwise(times))
    assert max(b - a for a, b in pairwise(times)) < 1.0


def test_a_silent_host_loses_the_cell_to_off(opened, unit):
    potentiostat, _ = opened
    potentiostat.set_current(0.5)
    assert samples(potentiostat, 2)
    time.sleep(6.5)  # host_loss_after_s is 5
    state = unit.state("smu")
    assert state["output"] is False and state["current_ma"] == 0.0
    until = potentiostat.read(0.0)  # what was measured until then
    assert until[-1].device_t_s - until[0].device_t_s > 4.0
    assert refused(potentiostat.read, 0.3).reason is CellReason.UNWATCHED


class HostDied(BaseException):
    """Nothing more is said."""


@pytest.mark.parametrize("word", ["OUTP ON", "*WAI"])
def test_a_host_that_dies_after_any_message_leaves_no_drive_without_its_end(opened, unit, monkeypatch, word):
    potentiostat, _ = opened
    assert samples(potentiostat, 1)  # at rest the output is on as a voltmeter
    scpi = potentiostat._scpi
    send = scpi.send

    def last_words(message):
        send(message)
        if word in message and potentiostat._state != "off":
            raise HostDied

    monkeypatch.setattr(scpi, "send", last_words)
    with pytest.raises(HostDied):
        potentiostat.set_current(0.5)
    assert unit.state("smu")["output"] is True
    time.sleep(6.5)  # host_loss_after_s is 5
    assert unit.state("smu")["output"] is False
    monkeypatch.undo()


def test_an_output_opened_at_the_front_panel_is_told(opened, unit):
    potentiostat, _ = opened
    potentiostat.set_current(0.5)
    assert samples(potentiostat, 5)
    unit.inject("smu", "panel_off")
    error = refused(samples, potentiostat, 100)
    assert error.reason is CellReason.DISOBEYED and "front panel" in error.detail


def test_the_over_voltage_protection_is_told_as_a_limit(opened, unit):
    potentiostat, _ = opened
    potentiostat.set_limits(DeviceLimits(0.5, 1.9, 5.0))  # the cell stands above it
    assert refused(potentiostat.set_current, 0.5).reason is CellReason.REFUSED
    potentiostat.set_limits(LIMITS)
    potentiostat.set_current(0.5)
    assert samples(potentiostat, 2)
    unit.inject("smu", "over_voltage")
    assert refused(samples, potentiostat, 100).reason is CellReason.LIMIT
    assert not unit.state("smu")["flowing"]


def test_a_hold_is_one_while_its_current_is_still_bounded(opened, unit):
    potentiostat, _ = opened
    rest_v = samples(potentiostat, 1)[-1].voltage_v
    potentiostat.set_voltage(rest_v + 0.1, 0.5)
    first = samples(potentiostat, 8)
    assert first[-1].current_ma == pytest.approx(0.5, rel=0.02)
    assert all(s.mode is CellMode.POTENTIOSTATIC for s in first)
    assert potentiostat.mode() is CellMode.POTENTIOSTATIC


def test_what_was_measured_before_a_command_is_dated_before_it(opened):
    potentiostat, _ = opened
    potentiostat.set_current(0.5)
    samples(potentiostat, 3)
    for current_ma in (-0.4, 0.3, -0.2, 0.1):
        time.sleep(0.12)  # readings wait in the buffer
        potentiostat.set_current(current_ma)
        commanded_s = time.monotonic()
        for sample in samples(potentiostat, 6):
            early = sample.host_t_s <= commanded_s
            assert early or sample.current_ma == pytest.approx(current_ma, rel=0.02)


def test_no_reading_is_lost_when_the_cell_is_switched_off(opened):
    potentiostat, _ = opened
    potentiostat.set_current(0.5)
    found = samples(potentiostat, 3)
    time.sleep(0.5)
    potentiostat.cell_off()
    found += [s for s in potentiostat.read(0.2) if s.mode is not CellMode.OFF]
    assert len(found) >= 3 + 7
    assert max(b.device_t_s - a.device_t_s for a, b in pairwise(found)) < 0.08


def test_a_voltmeter_that_a_dead_host_left_is_no_cell_found_on(unit, potentiostat):
    dead = build_driver(hw.potentiostat.DRIVERS, "keithley", {"sample_rate_hz": 20})
    dead.open()
    assert samples(dead, 1)
    dead._release()  # it dies
    assert unit.state("smu")["output"] is True
    potentiostat.open()
    assert potentiostat.mode() is CellMode.OFF


@pytest.mark.parametrize("fault", ["stall", "error"])
def test_switching_off_gets_through(opened, unit, fault):
    potentiostat, _ = opened
    potentiostat.set_current(0.5)
    unit.inject("smu", fault, **({"code": -350, "text": "Queue overflow"} if fault == "error" else {}))
    potentiostat.cell_off()
    assert not unit.state("smu")["flowing"]


def test_switching_off_passes_a_call_that_hangs(opened, unit):
    potentiostat, _ = opened
    potentiostat.set_current(0.5)
    hung = threading.Event()

    def hang() -> None:
        with potentiostat._turn(10.0):
            hung.wait(10)

    with ThreadPoolExecutor(1) as other:
        held = other.submit(hang)
        potentiostat.cell_off()
        flowing = unit.state("smu")["flowing"]
        hung.set()
        held.result()
    assert not flowing


def test_every_call_ends_before_the_daemon_gives_it_up(opened, unit):
    potentiostat, _ = opened
    potentiostat.set_current(0.5)
    unit.inject("smu", "mute", count=1000)
    for call in (potentiostat.cell_off, potentiostat.mode, lambda: potentiostat.set_current(0.1)):
        began = time.monotonic()
        refused(call)
        assert time.monotonic() - began < 3.0
    began = time.monotonic()
    refused(potentiostat.read, 0.2)
    assert time.monotonic() - began < 2.2


def test_signs_of_life_keep_it_on(opened, unit):
    potentiostat, _ = opened
    potentiostat.set_current(0.2)
    until = time.monotonic() + 7.5
    while time.monotonic() < until:
        samples(potentiostat, 1)
    assert unit.state("smu")["output"] is True
    assert unit.state("smu")["current_ma"] == pytest.approx(0.2, rel=0.02)


def test_a_unit_that_a_dead_host_left_on_is_told_and_switched_off(bus):
    bus.plug("smu", "smu", found_on_ma=1.0, **CELL)
    potentiostat = build_driver(hw.potentiostat.DRIVERS, "keithley", {})
    potentiostat.open()
    assert potentiostat.mode() is not CellMode.OFF
    assert bus.state("smu")["output"] is True  # opening does not change the cell
    assert bus.state("smu")["current_ma"] == pytest.approx(1.0, rel=0.05)
    assert potentiostat.read(0.1) == []
    potentiostat.cell_off()
    assert potentiostat.mode() is CellMode.OFF
    assert not bus.state("smu")["flowing"]
    potentiostat.close()


@pytest.mark.parametrize("fault", ["mute", "garbage"])
def test_one_lost_answer_is_asked_for_again(opened, unit, fault):
    potentiostat, _ = opened
    potentiostat.set_current(0.5)
    samples(potentiostat, 2)
    unit.inject("smu", fault)
    assert len(samples(potentiostat, 5, within_s=8.0)) >= 5
    assert unit.state("smu")["output"] is True


def test_a_unit_that_does_not_answer_any_more_is_stalled_in_time(opened, unit):
    potentiostat, _ = opened
    samples(potentiostat, 1)
    unit.inject("smu", "mute", count=1000)
    began = time.monotonic()
    assert refused(samples, potentiostat, 100).reason is CellReason.STALLED
    assert time.monotonic() - began < 12.0


def test_a_relay_that_does_not_open_is_in_doubt(opened, unit):
    potentiostat, _ = opened
    potentiostat.set_current(0.5)
    unit.inject("smu", "stuck_on")
    error = refused(potentiostat.cell_off)
    assert error.reason is CellReason.IN_DOUBT and "by hand" in error.remedy


def test_unplugged_and_back(opened, unit, potentiostat):
    samples(potentiostat, 1)
    unit.unplug("smu")
    assert refused(samples, potentiostat, 100).reason is CellReason.UNPLUGGED
    potentiostat.close()
    unit.plug("smu")
    potentiostat.open()
    assert samples(potentiostat, 1)


def test_the_wrong_language_and_no_unit_are_refused_with_what_to_do(bus):
    potentiostat = build_driver(hw.potentiostat.DRIVERS, "keithley", {})
    assert refused(potentiostat.open).reason is CellReason.NOT_FOUND
    bus.plug("smu", "smu", language="TSP", **CELL)
    assert "SCPI" in refused(potentiostat.open).detail


def test_two_units_are_told_apart_by_serial(bus):
    bus.plug("one", "smu", serial="A1", **CELL)
    bus.plug("other", "smu", serial="B2", **CELL)
    unsure = build_driver(hw.potentiostat.DRIVERS, "keithley", {})
    assert "'A1', 'B2'" in refused(unsure.open).detail
    sure = build_driver(hw.potentiostat.DRIVERS, "keithley", {"serial": "B2"})
    assert sure.open().serial == "B2"
    sure.close()


def test_reversed_leads_are_not_driven(opened, unit):
    potentiostat, _ = opened
    unit.inject("smu", "reversed")
    assert "reversed" in refused(potentiostat.set_current, 0.5).detail
    assert not unit.state("smu")["flowing"]
