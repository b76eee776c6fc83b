from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest

import daemon.cell.watch as watch_module
from daemon.cell.journal import Aftermath
from daemon.cell.plan import plan_experiment
from daemon.errors import CellReason, ExperimentError, ExperimentReason, PotentiostatError
from daemon.events import EventKind
from daemon.recipe import ExperimentSpec
from hw.potentiostat.contract import CellMode, HostLoss, Potentiostat, StepBounds
from tests.daemon.cell.fake import INFO, Bench, FakePotentiostat, energising
from tests.daemon.cell.rig import CELL, REFUSED, UNPLUGGED, Rig

pytestmark = pytest.mark.usefixtures("quick")


def test_monitors_at_open_circuit() -> None:
    rig = Rig().open()
    report = rig.iterate()
    assert report.snapshot.state == "off"
    assert report.rows[0].step_kind == "off" and report.rows[0].cycle == -1
    assert report.rows[0].voltage_v == pytest.approx(3.6)
    assert energising(rig.bench.calls) == []


def test_a_cell_found_on_is_switched_off_and_reported() -> None:
    bench = Bench(mode=CellMode.GALVANOSTATIC, set_ma=1.0)
    rig = Rig(bench).open()
    assert not bench.energised
    assert rig.reports[-1].snapshot.state == "tripped"
    assert rig.events == [(EventKind.CELL_LOST, "the cell was found on at the start; the cell was switched off")]


def test_a_cell_found_on_that_stays_on_is_lost_and_in_doubt() -> None:
    bench = Bench(mode=CellMode.GALVANOSTATIC)
    bench.fail("cell_off", *[UNPLUGGED] * 3)
    snapshot = Rig(bench).open().reports[-1].snapshot
    assert (snapshot.state, snapshot.in_doubt, snapshot.reason) == ("lost", True, CellReason.IN_DOUBT)


def test_runs_a_cc_cv_rest_experiment() -> None:
    rig = Rig().open().begin("Charge at 1C until 4.1 V", "Hold at 4.1 V until C/10", "Rest for 1 minute")
    assert rig.reports[-1].began
    report = rig.until("idle", 600)
    assert report.ended is not None and report.ended.reason == ""
    assert not rig.bench.energised
    kinds = [row.step_kind for each in rig.reports for row in each.rows]
    assert [kind for kind, before in zip(kinds, ["", *kinds], strict=False) if kind != before][:4] == [
        "off",
        "charge",
        "hold",
        "rest",
    ]
    assert rig.reports[-1].rows[-1].charge_mah == pytest.approx(rig.bench.charge_mah - 0.5, abs=0.02)
    assert rig.events == []


def test_experiment_ends_off_when_the_last_step_drives() -> None:
    rig = Rig().open().begin("Charge at 1C for 30 s")
    rig.until("idle")
    assert not rig.bench.energised


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        ({"voltage_v": 4.31}, "max_voltage_v = 4.3"),
        ({"voltage_v": 2.4}, "min_voltage_v = 2.5"),
        ({"current_ma": 5.5}, "max_current_ma = 5"),
        ({"voltage_v": math.nan}, "voltage_v is nan"),
        ({"current_ma": math.inf}, "current_ma is inf"),
        ({"device_t_s": math.nan}, "device_t_s is nan"),
        ({"host_t_s": 0.0}, "s old, over"),
    ],
)
def test_one_bad_sample_switches_off_in_the_same_iteration(spoilt: dict[str, float], says: str) -> None:
    rig = Rig().open().begin("Charge at 1C until 4.2 V")
    rig.iterate()
    assert rig.bench.energised
    rig.bench.spoil = lambda sample: replace(sample, **spoilt)
    report = rig.iterate()
    assert not rig.bench.energised
    assert report.snapshot.state == "tripped"
    assert report.snapshot.reason is CellReason.LIMIT
    assert report.ended is not None and report.ended.reason == "cell.limit"
    (event,) = report.events
    assert event.kind is EventKind.CELL_LIMIT and says in event.detail
    if "voltage_v" in spoilt and math.isfinite(spoilt["voltage_v"]):
        assert event.magnitude == spoilt["voltage_v"]


def test_a_device_that_names_the_limit_it_switched_off_at_is_believed() -> None:
    rig = Rig().open().begin("Charge at 1C until 4.2 V")
    rig.iterate()
    rig.bench.spoil = lambda sample: replace(sample, voltage_v=4.31, stopped_by="max_voltage_v = 4.3 was passed: 4.31")
    report = rig.iterate()
    assert not rig.bench.energised and report.snapshot.state == "tripped"
    (event,) = report.events
    assert event.kind is EventKind.CELL_LIMIT and event.magnitude == 4.31
    assert event.detail.startswith("the potentiostat switched off by itself: max_voltage_v = 4.3 was passed: 4.31;")


def test_the_device_is_told_the_steps_bounds_before_each_command() -> None:
    told: list[StepBounds] = []

    class Bounded(FakePotentiostat):
        def set_bounds(self, bounds: StepBounds) -> bool:
            self.bench.enter("set_bounds")
            told.append(bounds)
            return True

    rig = Rig(driver=Bounded).open().begin("Charge at 1C until 4.1 V", "Hold at 4.1 V for 1 minute")
    rig.until("idle", 600)
    assert [bounds.end_voltage_v for bounds in told] == [4.1, None]
    assert told[0].longest_s == 7200.0 and told[1].longest_s == 60.0
    calls = [call.split()[0] for call in rig.bench.calls]
    assert all(calls[at - 1] == "set_bounds" for at, call in enumerate(calls) if call in ("set_current", "set_voltage"))


def test_limits_of_the_experiment_trip_and_then_fall_back() -> None:
    rig = Rig().open().begin("Charge at 1C for 1 hour", max_voltage_v=3.7, max_current_ma=5.0)
    report = rig.until("tripped")
    assert "max_voltage_v = 3.7" in report.snapshot.detail
    assert report.snapshot.values["limits"]["max_voltage_v"] == 4.3


def test_time_and_charge_limits_trip() -> None:
    rig = Rig().open().begin("Charge at 1C until 4.2 V", max_time_s=60.0)
    assert "max_time_s" in rig.until("tripped").snapshot.detail
    rig = Rig().open().begin("Charge at 1C until 4.2 V", max_capacity_mah=0.02)
    assert "max_capacity_mah" in rig.until("tripped").snapshot.detail
    assert rig.bench.charge_mah < 0.56


def test_breach_at_open_circuit_is_reported_once_and_nothing_starts() -> None:
    rig = Rig(Bench(charge_mah=-1.0)).open()
    for _ in range(5):
        rig.iterate()
    assert rig.reports[-1].snapshot.state == "tripped"
    assert len(rig.events) == 1
    with pytest.raises(ExperimentError) as caught:
        rig.begin("Charge at 1C until 4.2 V")
    assert caught.value.reason is ExperimentReason.OUTSIDE_LIMITS
    assert energising(rig.bench.calls) == []


def test_start_after_a_trip_is_the_operators_choice() -> None:
    rig = Rig().open().begin("Charge at 1C for 1 hour", max_voltage_v=3.7)
    rig.until("tripped")
    rig.begin("Discharge at 1C for 10 s")
    assert rig.reports[-1].snapshot.state == "running"
    rig.until("idle")


def test_off_ends_everything_and_comes_back_to_off() -> None:
    rig = Rig().open().begin("Charge at 1C until 4.2 V")
    rig.watch.off("operator")
    report = rig.report()
    assert not rig.bench.energised
    assert report.snapshot.state == "off"
    assert report.ended is not None and report.ended.reason == "operator"
    rig.until("off")
    for _ in range(10):
        rig.iterate()
    assert len(energising(rig.bench.calls)) == 1


def test_off_acknowledges_a_trip() -> None:
    rig = Rig().open(Aftermath(CellReason.UNPLUGGED, "it was lost and is back"))
    assert rig.reports[-1].snapshot.state == "tripped"
    rig.watch.off("operator")
    assert rig.report().snapshot.state == "off"


def test_pause_opens_and_resume_goes_on_with_what_is_left() -> None:
    rig = Rig().open().begin("Charge at 1C for 200 s")
    while rig.reports[-1].snapshot.values.get("step_elapsed_s", 0) < 80:
        rig.iterate()
    rig.watch.pause()
    report = rig.report()
    assert report.snapshot.state == "paused" and not rig.bench.energised
    paused_at_mah = rig.bench.charge_mah
    for _ in range(5):
        rows = rig.iterate(0.05).rows
    assert (rows[-1].step_kind, rows[-1].step, rows[-1].cycle) == ("off", 0, 0)
    assert rig.bench.charge_mah == paused_at_mah
    rig.watch.resume(rig.permits.issue())
    assert rig.report().snapshot.state == "running" and rig.bench.energised
    rig.until("idle")
    assert rig.bench.charge_mah == pytest.approx(0.5 + 200 / 3600, abs=0.02)


def test_pause_and_resume_need_an_experiment() -> None:
    rig = Rig().open()
    rig.iterate()
    for order in (rig.watch.pause, lambda: rig.watch.resume(rig.permits.issue())):
        with pytest.raises(ExperimentError) as caught:
            order()
        assert caught.value.reason is ExperimentReason.NOT_RUNNING


def test_pause_that_is_not_confirmed_is_lost() -> None:
    rig = Rig().open().begin("Charge at 1C for 200 s")
    rig.bench.fail("cell_off", *[REFUSED] * 10)
    with pytest.raises(PotentiostatError):
        rig.watch.pause()
    assert rig.report().snapshot.state == "lost"


def test_only_one_experiment_at_a_time() -> None:
    rig = Rig().open().begin("Charge at 1C for 200 s")
    with pytest.raises(ExperimentError) as caught:
        rig.begin("Rest for 1 s")
    assert caught.value.reason is ExperimentReason.BUSY


def test_a_withdrawn_permit_energises_nothing() -> None:
    rig = Rig().open()
    rig.iterate()
    plan = plan_experiment(ExperimentSpec(steps=["Charge at 1C for 10 s"]), CELL, INFO)
    permit = rig.permits.issue()
    rig.permits.withdraw()
    with pytest.raises(ExperimentError) as caught:
        rig.watch.begin(plan, permit)
    assert caught.value.reason is ExperimentReason.CANCELLED
    assert energising(rig.bench.calls) == []


def test_a_permit_withdrawn_between_steps_opens_the_circuit() -> None:
    rig = Rig().open().begin("Rest for 20 s", "Charge at 1C for 200 s")
    rig.permits.withdraw()
    for _ in range(20):
        rig.iterate()
    assert energising(rig.bench.calls) == []
    assert not rig.bench.energised


def test_a_permit_withdrawn_while_the_device_is_being_told_opens_the_circuit() -> None:
    class Slow(FakePotentiostat):
        def set_current(self, current_ma: float) -> None:
            super().set_current(current_ma)
            rig.permits.withdraw()

    rig = Rig(driver=Slow).open()
    rig.begin("Charge at 1C for 200 s")
    assert not rig.bench.energised


def test_no_fresh_sample_no_start() -> None:
    rig = Rig(deadline_s=0.05).open()
    rig.iterate()
    plan = plan_experiment(ExperimentSpec(steps=["Charge at 1C for 10 s"]), CELL, INFO)
    time.sleep(0.06)
    with pytest.raises(PotentiostatError) as caught:
        rig.watch.begin(plan, rig.permits.issue())
    assert caught.value.reason is CellReason.STALLED


def test_a_cell_nobody_watches_is_switched_off() -> None:
    rig = Rig(deadline_s=0.05).open().begin("Charge at 1C until 4.2 V")
    rig.watch.unwatched()
    report = rig.report()
    assert not rig.bench.energised
    assert report.snapshot.state == "tripped" and report.snapshot.reason is CellReason.UNWATCHED
    assert report.events[0].kind is EventKind.CELL_LOST


def test_a_host_that_slept_comes_back_to_a_cell_that_is_off() -> None:
    rig = Rig(deadline_s=0.05).open().begin("Charge at 1C until 4.2 V")
    time.sleep(0.07)
    report = rig.iterate()
    assert not rig.bench.energised
    assert report.snapshot.reason is CellReason.UNWATCHED


def test_keep_alive_comes_at_least_once_a_second() -> None:
    rig = Rig().open()
    for ahead_s in (0.0, 0.1, 0.6, 1.1):
        rig.device.keep_alive(1000.0 + ahead_s)
    assert rig.bench.calls.count("keep_alive") == 3


def test_a_recording_is_watched_without_limits_and_cannot_be_driven() -> None:
    bench = Bench(info=replace(INFO, host_loss=HostLoss.NOT_APPLICABLE), mode=CellMode.GALVANOSTATIC, set_ma=50.0)
    rig = Rig(bench).open()
    for _ in range(5):
        report = rig.iterate()
    assert report.snapshot.state == "off" and report.rows and rig.events == []
    with pytest.raises(PotentiostatError) as caught:
        rig.begin("Rest for 1 s")
    assert caught.value.reason is CellReason.READ_ONLY
    bench.fail("read", PotentiostatError(CellReason.ENDED, "the end"))
    report = rig.iterate()
    assert report.snapshot.state == "off" and report.snapshot.values["recording_ended"]
    bench.silent = True
    time.sleep(0.45)
    assert rig.iterate().snapshot.state == "off"


def test_close_switches_off_and_ends_the_experiment() -> None:
    rig = Rig().open().begin("Charge at 1C until 4.2 V")
    rig.watch.close("stopped")
    report = rig.report()
    assert not rig.bench.energised and "close" in rig.bench.calls
    assert report.ended is not None and report.ended.reason == "stopped"
    assert report.snapshot.state == "off"


def test_a_fault_of_our_own_switches_off_and_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig().open().begin("Charge at 1C until 4.2 V")
    monkeypatch.setattr(watch_module, "check_sample", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rig.iterate()
    assert not rig.bench.energised
    assert rig.report().snapshot.reason is CellReason.FAULT


def test_a_driver_that_cannot_be_built_is_typed() -> None:
    def broken(bench: Bench) -> Potentiostat:
        raise IndexError("no such port")

    rig = Rig(driver=broken)
    with pytest.raises(PotentiostatError, match="IndexError"):
        rig.watch.open()
