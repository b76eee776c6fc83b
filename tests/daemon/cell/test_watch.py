from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import daemon.cell.device as device_module
import daemon.cell.watch as watch_module
from daemon.cell.device import Device, Permits
from daemon.cell.journal import Aftermath, Report
from daemon.cell.plan import plan_experiment
from daemon.cell.watch import CellWatch
from daemon.config import CellSettings
from daemon.errors import CellReason, ExperimentError, ExperimentReason, InstrumentError, PotentiostatError
from daemon.events import EventKind
from daemon.recipe import CellLimits, ExperimentSpec
from hw.potentiostat.contract import CellMode, CellSample, HostLoss, Potentiostat, StepBounds
from tests.daemon.cell.fake import INFO, Bench, FakePotentiostat, ScriptedPotentiostat, energising

LIMITS = CellLimits(min_voltage_v=2.5, max_voltage_v=4.3, max_current_ma=5.0)
CELL = CellSettings(capacity_mah=1.0, limits=LIMITS)
UNPLUGGED = PotentiostatError(CellReason.UNPLUGGED, "gone")
REFUSED = PotentiostatError(CellReason.REFUSED, "no")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "MIN_PERIOD_S", 0.0)
    monkeypatch.setattr(device_module, "OFF_PAUSE_S", 0.0)


class Rig:
    """A watch over a fake, driven by hand in this thread."""

    def __init__(
        self,
        bench: Bench | None = None,
        driver: Callable[[Bench], Potentiostat] = FakePotentiostat,
        deadline_s: float = 0.4,
    ) -> None:
        self.bench = bench or Bench()
        self.permits = Permits()
        self.device = Device(lambda: driver(self.bench), self.permits)
        self.watch = CellWatch(self.device, self.permits, LIMITS, deadline_s)
        self.reports: list[Report] = []

    def open(self, aftermath: Aftermath | None = None) -> Rig:
        self.watch.open(aftermath)
        self.report()
        return self

    def report(self) -> Report:
        self.reports.append(self.watch.take_report())
        return self.reports[-1]

    def iterate(self, timeout_s: float = 0.02) -> Report:
        self.watch.iterate(timeout_s)
        return self.report()

    def begin(self, *steps: str, **limits: float) -> Rig:
        self.iterate()
        wanted = CellLimits(**limits) if limits else None
        plan = plan_experiment(ExperimentSpec(steps=list(steps), limits=wanted), CELL, self.bench.info)
        self.watch.begin(plan, self.permits.issue())
        self.report()
        return self

    def until(self, state: str, most: int = 300) -> Report:
        for _ in range(most):
            if self.iterate().snapshot.state == state:
                return self.reports[-1]
        raise AssertionError(f"never {state}: {self.reports[-1].snapshot}")

    @property
    def events(self) -> list[tuple[EventKind, str]]:
        return [(event.kind, event.detail) for report in self.reports for event in report.events]


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


# any stream of samples: after a breach the next command is off, and nothing energises later

modes = st.sampled_from([CellMode.GALVANOSTATIC] * 4 + [CellMode.POTENTIOSTATIC] * 2 + [CellMode.OFF])
volts = st.one_of(st.floats(2.6, 4.2), st.floats(2.6, 4.2), st.floats(2.6, 4.2), st.floats(allow_nan=True))
milliamps = st.one_of(st.floats(0.9, 1.1), st.floats(-1.1, -0.9), st.floats(-1.5, 1.5), st.floats(allow_nan=True))
increments = st.one_of(st.floats(0.1, 40), st.floats(0.1, 40), st.just(0.0), st.floats(-50, 0), st.just(math.nan))
ages = st.one_of(st.just(0.0), st.just(0.0), st.just(0.0), st.floats(-4.5, 0.0), st.just(math.nan), st.just(5.0))
readings = st.tuples(increments, ages, volts, milliamps, modes)
streams = st.lists(readings, max_size=25)
step_lists = st.lists(
    st.sampled_from(
        [
            "Charge at 1C until 4.1 V",
            "Discharge at 1C until 3.0 V",
            "Discharge at 1C for 1 minute",
            "Hold at 3.8 V for 30 seconds",
            "Hold at 4.0 V until C/2",
            "Rest for 10 seconds",
        ]
    ),
    min_size=1,
    max_size=4,
)


def as_samples(stream: list[tuple[float, float, float, float, CellMode]]) -> list[CellSample]:
    t_s, samples = 100.0, []
    for increment, age, voltage_v, current_ma, mode in stream:
        t_s += 0.0 if math.isnan(increment) else increment
        samples.append(CellSample(math.nan if math.isnan(increment) else t_s, age, voltage_v, current_ma, mode))
    return samples


def is_plainly_unsafe(sample: CellSample, max_age_s: float) -> bool:
    values = (sample.device_t_s, sample.host_t_s, sample.voltage_v, sample.current_ma)
    if not all(math.isfinite(value) for value in values):
        return True
    inside = 2.5 <= sample.voltage_v <= 4.3 and abs(sample.current_ma) <= 5.0
    return not inside or sample.host_t_s < -max_age_s or sample.host_t_s > 1.1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step_lists, streams, st.integers(0, 2))
def test_after_a_breach_off_is_next_and_nothing_energises_later(
    steps: list[str], stream: list[tuple[float, float, float, float, CellMode]], refusals: int
) -> None:
    good = CellSample(90.0, 0.0, 3.6, 0.0, CellMode.OFF)
    samples = as_samples(stream)
    batches = [[good], *([sample] for sample in samples)]
    rig = Rig(driver=lambda bench: ScriptedPotentiostat(bench, batches), deadline_s=3.0).open()
    rig.begin(*steps)
    broken = False
    for sample in samples:
        was_on, calls_before = rig.device.on, len(rig.bench.calls)
        ran = rig.reports[-1].snapshot.state == "running"
        if is_plainly_unsafe(sample, 3.0) and was_on and not broken:
            rig.bench.fail("cell_off", *[REFUSED] * refusals)
        report = rig.iterate()
        after = [call for call in rig.bench.calls[calls_before:] if call not in ("keep_alive", "read")]
        if is_plainly_unsafe(sample, 3.0) and ran and was_on:
            broken = True
            assert after and after[0] == "cell_off"
            assert report.snapshot.state in ("tripped", "lost")
            assert any(event.kind is EventKind.CELL_LIMIT for event in report.events)
        if broken:
            assert energising(after) == []
            assert not rig.device.on
            assert report.snapshot.state in ("tripped", "lost")
    if broken:
        assert not rig.bench.energised


orders = st.lists(st.sampled_from(["begin", "off", "pause", "resume", "iterate", "withdraw", "unwatched"]), max_size=12)
faults = st.lists(
    st.sampled_from(["cell_off", "set_current", "set_voltage", "read", "keep_alive", "set_limits"]), max_size=4
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(orders, faults, step_lists, st.sampled_from([REFUSED, UNPLUGGED, OSError("usb")]))
def test_the_cell_is_on_only_while_an_experiment_runs_or_the_status_says_so(
    todo: list[str], broken: list[str], steps: list[str], error: Exception
) -> None:
    rig = Rig(deadline_s=2.0).open()
    for name in broken:
        rig.bench.fail(name, error)
    for order in todo:
        try:
            if order == "begin":
                rig.begin(*steps)
            elif order == "off":
                rig.watch.off("operator")
            elif order == "pause":
                rig.watch.pause()
            elif order == "resume":
                rig.watch.resume(rig.permits.issue())
            elif order == "withdraw":
                rig.permits.withdraw()
            elif order == "unwatched":
                rig.watch.unwatched()
            else:
                rig.iterate(0.0)
        except InstrumentError:
            pass
        snapshot = rig.report().snapshot
        assert not rig.bench.energised or snapshot.state == "running" or snapshot.in_doubt, (order, snapshot)
        assert snapshot.on or not rig.bench.energised
    rig.bench.failures.clear()
    rig.watch.close("stopped")
    assert not rig.bench.energised
