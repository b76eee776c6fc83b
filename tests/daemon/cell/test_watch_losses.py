"""Cells that are not off, devices that are gone, silent or lie."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from daemon.errors import CellReason, PotentiostatError
from daemon.events import EventKind
from hw.potentiostat.contract import CellMode
from tests.daemon.cell.fake import INFO, Bench, energising
from tests.daemon.cell.rig import REFUSED, Rig

pytestmark = pytest.mark.usefixtures("quick")


def test_off_is_tried_again_when_refused() -> None:
    rig = Rig().open().begin("Charge at 1C until 4.2 V")
    rig.bench.fail("cell_off", REFUSED)
    rig.bench.spoil = lambda sample: replace(sample, voltage_v=4.4)
    report = rig.iterate()
    assert not rig.bench.energised
    assert (report.snapshot.state, report.snapshot.in_doubt) == ("tripped", False)


def test_off_of_a_cell_that_somebody_switched_on_by_hand_counts_only_when_confirmed() -> None:
    rig = Rig().open()
    rig.iterate()
    rig.bench.mode = CellMode.GALVANOSTATIC  # at its panel, after the last sample
    rig.bench.fail("cell_off", *[REFUSED] * 10)
    rig.watch.off("operator")
    report = rig.report()
    assert (report.snapshot.state, report.snapshot.in_doubt, report.snapshot.on) == ("lost", True, True)
    rig.bench.failures.clear()
    rig.watch.off("operator")
    assert not rig.bench.energised and not rig.report().snapshot.in_doubt


def test_off_that_is_never_confirmed_is_in_doubt_and_stops_the_keep_alive() -> None:
    rig = Rig().open().begin("Charge at 1C until 4.2 V")
    rig.bench.fail("cell_off", *[REFUSED] * 10)
    rig.bench.spoil = lambda sample: replace(sample, voltage_v=4.4)
    report = rig.iterate()
    assert (report.snapshot.state, report.snapshot.in_doubt) == ("lost", True)
    assert report.snapshot.reason is CellReason.IN_DOUBT
    assert report.ended is not None and report.ended.reason == "cell.in_doubt"
    before = rig.bench.calls.count("keep_alive")
    rig.device.keep_alive(time.monotonic() + 100)
    assert rig.bench.calls.count("keep_alive") == before
    with pytest.raises(PotentiostatError):
        rig.watch.off("operator") or rig.watch._raise_if_stopped()
    rig.bench.failures.clear()
    rig.watch.unwatched()
    assert not rig.bench.energised, "an idle thread goes on trying"


def test_unplugging_is_a_loss() -> None:
    rig = Rig().open().begin("Charge at 1C until 4.2 V")
    rig.bench.unplugged = True
    report = rig.iterate()
    assert (report.snapshot.state, report.snapshot.in_doubt) == ("lost", True)
    assert report.events[0].kind is EventKind.CELL_LOST
    assert "unplugged" in report.events[0].detail


def test_an_exception_that_is_none_of_ours_is_a_fault_of_the_driver() -> None:
    rig = Rig().open().begin("Charge at 1C until 4.2 V")
    rig.bench.fail("read", ValueError("unexpected"))
    report = rig.iterate()
    assert report.snapshot.state == "lost" and not rig.bench.energised
    assert report.snapshot.reason is CellReason.FAULT and "ValueError: unexpected" in report.snapshot.detail


def test_silence_switches_off_within_the_deadline() -> None:
    rig = Rig(deadline_s=0.4).open().begin("Charge at 1C until 4.2 V")
    rig.bench.silent = True
    begun_s = time.monotonic()
    report = rig.until("lost")
    assert time.monotonic() - begun_s < 0.4 + 0.25
    assert not rig.bench.energised
    assert report.snapshot.reason is CellReason.STALLED
    assert report.events[0].kind is EventKind.CELL_LOST
    assert report.events[0].magnitude >= 0.4


def test_a_slow_device_gets_the_time_its_rate_needs() -> None:
    bench = Bench(info=replace(INFO, sample_rate_hz=5.0, clock_rate=1.0))
    rig = Rig(bench, deadline_s=0.05).open()
    begun_s = time.monotonic()
    while time.monotonic() - begun_s < 0.5:
        assert rig.iterate().snapshot.state == "off"


def test_a_device_clock_that_stands_still_switches_off() -> None:
    rig = Rig().open().begin("Rest for 5 s", "Charge at 1C until 4.2 V")
    while not rig.bench.energised:
        rig.iterate()
    rig.bench.stuck_clock = True
    report = rig.until("tripped")
    assert report.snapshot.reason is CellReason.CLOCK
    assert not rig.bench.energised


def test_a_device_that_switched_off_by_itself_is_noticed() -> None:
    rig = Rig().open().begin("Charge at 1C until 4.2 V")
    rig.iterate()
    rig.bench.mode = CellMode.OFF
    report = rig.until("tripped")
    assert report.snapshot.reason is CellReason.DISOBEYED
    assert "'off' when told 'galvanostatic'" in report.snapshot.detail


def test_a_limit_that_the_device_enforced_is_named() -> None:
    rig = Rig().open().begin("Charge at 1C until 4.2 V", max_voltage_v=4.25)
    rig.device.has_limits = True
    while rig.bench.open_circuit_v < 4.12:
        rig.iterate()
    rig.bench.mode = CellMode.OFF
    (event,) = rig.until("tripped").events
    assert event.kind is EventKind.CELL_LIMIT
    assert "switched off by itself at max_voltage_v = 4.25" in event.detail
    assert event.magnitude == pytest.approx(4.19, abs=0.03)


def test_a_device_that_lies_about_being_off_is_lost() -> None:
    rig = Rig().open().begin("Charge at 1C until 4.2 V")
    rig.bench.ignores_off = True
    rig.watch.off("operator")
    assert rig.report().snapshot.state == "off"
    report = rig.until("lost")
    assert report.snapshot.reason is CellReason.DISOBEYED
    assert report.events[0].kind is EventKind.CELL_LOST


def test_refused_set_point_trips() -> None:
    rig = Rig().open()
    rig.bench.fail("set_current", REFUSED)
    with pytest.raises(PotentiostatError) as caught:
        rig.begin("Charge at 1C until 4.2 V")
    assert caught.value.reason is CellReason.REFUSED
    report = rig.report()
    assert report.snapshot.state == "tripped" and report.ended is not None
    assert rig.bench.calls[-1] == "cell_off"


def test_set_limits_that_fails_starts_nothing() -> None:
    rig = Rig().open()
    rig.bench.fail("set_limits", REFUSED)
    with pytest.raises(PotentiostatError):
        rig.begin("Charge at 1C until 4.2 V")
    assert rig.report().snapshot.state == "off"
    assert energising(rig.bench.calls) == []
