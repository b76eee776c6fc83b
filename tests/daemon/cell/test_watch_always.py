"""What holds for any stream of samples and any order of commands and faults."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.errors import InstrumentError
from daemon.events import EventKind
from hw.potentiostat.contract import CellMode, CellSample
from tests.daemon.cell.fake import ScriptedPotentiostat, energising
from tests.daemon.cell.rig import REFUSED, UNPLUGGED, Rig

pytestmark = pytest.mark.usefixtures("quick")

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
