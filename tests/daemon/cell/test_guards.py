from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from daemon.cell.guards import ClockGuard, ObedienceGuard
from hw.potentiostat.contract import CellMode, CellSample

DEADLINE_S = 2.0


def first_alarm(stamps: list[tuple[float, float]], rate: float = 1.0) -> float | None:
    """Host time of the first alarm for (device, host) stamps."""
    guard = ClockGuard(rate, DEADLINE_S)
    return next((host for device, host in stamps if guard.feed(device, host)), None)


def test_a_clock_that_stops_is_noticed_within_the_deadline() -> None:
    running = [(0.1 * n, 0.1 * n) for n in range(37)]
    stopped = [(3.6, 3.6 + 0.1 * n) for n in range(1, 40)]
    alarm = first_alarm(running + stopped)
    assert alarm is not None
    assert 3.6 < alarm <= 3.6 + DEADLINE_S + 0.11


def test_a_creeping_or_reversed_clock_is_noticed() -> None:
    assert first_alarm([(0.05 * t, float(t)) for t in range(10)]) is not None
    assert first_alarm([(100.0 - t, float(t)) for t in range(10)]) is not None
    assert first_alarm([(float(t), float(t)) for t in range(10)], rate=60.0) is not None


@given(st.floats(0.2, 5.0), st.floats(0.001, 1000.0), st.floats(0.001, 5.0))
def test_a_clock_that_runs_near_its_rate_is_trusted(share: float, rate: float, every_s: float) -> None:
    assert first_alarm([(share * rate * n * every_s, n * every_s) for n in range(50)], rate) is None


def test_batches_are_no_alarm() -> None:
    stamps = [(batch + 0.1 * n, batch + 1.0) for batch in range(20) for n in range(10)]
    assert first_alarm(stamps) is None


def after_a_stall(catches_up: bool) -> list[tuple[float, float]]:
    """Ten samples a second; at 3 s the host is held up for 1.26 s, then reads what has come or goes on from there."""
    before = [(0.1 * n, 0.1 * n) for n in range(31)]
    waiting = [(3.0 + 0.1 * n, 4.26 + 0.01 * n) for n in range(1, 14)] if catches_up else [(3.1, 4.26)]
    device_s, host_s = waiting[-1]
    return before + waiting + [(device_s + 0.1 * n, host_s + 0.1 * n) for n in range(1, 50)]


def test_a_host_that_was_held_up_does_not_blame_the_clock() -> None:
    assert first_alarm(after_a_stall(catches_up=True)) is None
    assert first_alarm(after_a_stall(catches_up=False)) is None, "a simulated cell goes on from where it was"


def sample(host_t_s: float, mode: CellMode, current_ma: float = 0.0) -> CellSample:
    return CellSample(host_t_s, host_t_s, 3.7, current_ma, mode)


def alarms(guard: ObedienceGuard, mode: CellMode, current_ma: float, start_s: float = 0.1) -> list[str | None]:
    return [guard.feed(sample(start_s + 0.5 * n, mode, current_ma)) for n in range(10)]


def driving(current_ma: float) -> ObedienceGuard:
    guard = ObedienceGuard(20.0, 2.0)
    guard.expect(CellMode.GALVANOSTATIC, current_ma, 0.0)
    return guard


def test_obeying_is_no_alarm() -> None:
    assert not any(alarms(driving(1.0), CellMode.GALVANOSTATIC, 1.1))
    assert not any(alarms(driving(-1.0), CellMode.GALVANOSTATIC, -0.9))
    assert not any(alarms(driving(1.0), CellMode.GALVANOSTATIC, 0.0)), "less than told is not dangerous"


def test_wrong_mode_current_or_direction_is_noticed_after_the_grace() -> None:
    for mode, current_ma in (
        (CellMode.POTENTIOSTATIC, 1.0),
        (CellMode.OFF, 0.0),
        (CellMode.GALVANOSTATIC, 2.0),
        (CellMode.GALVANOSTATIC, -1.0),
    ):
        found = alarms(driving(1.0), mode, current_ma)
        assert found[:4] == [None] * 4
        assert found[4], (mode, current_ma)


def test_current_at_open_circuit_is_noticed() -> None:
    guard = ObedienceGuard(20.0, 2.0)
    assert any(alarms(guard, CellMode.OFF, 0.5))
    guard.expect(CellMode.OFF, 0.0, 0.0)
    assert not any(alarms(guard, CellMode.OFF, 0.1)), "within the offset of the reading"


def test_samples_from_before_the_command_do_not_count() -> None:
    guard = driving(1.0)
    guard.expect(CellMode.OFF, 0.0, 100.0)
    assert not any(alarms(guard, CellMode.GALVANOSTATIC, 1.0))


def test_one_good_sample_starts_the_grace_anew() -> None:
    guard = driving(1.0)
    assert not any(alarms(guard, CellMode.OFF, 0.0)[:4])
    assert guard.feed(sample(2.0, CellMode.GALVANOSTATIC, 1.0)) is None
    assert not any(alarms(guard, CellMode.OFF, 0.0, start_s=2.1)[:4])


def test_gave_up_shows_the_last_obedient_sample() -> None:
    guard = driving(1.0)
    off = sample(3.0, CellMode.OFF)
    assert guard.gave_up(off) is None, "it never obeyed"
    good = sample(1.0, CellMode.GALVANOSTATIC, 1.0)
    guard.feed(good)
    assert guard.gave_up(off) is good
    assert guard.gave_up(sample(3.0, CellMode.GALVANOSTATIC, 1.0)) is None
    guard.expect(CellMode.OFF, 0.0, 3.5)
    assert guard.gave_up(sample(4.0, CellMode.OFF)) is None, "told so"


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=30))
def test_nothing_breaks_the_guards(stamps: list[tuple[float, float]]) -> None:
    clock, obedience = ClockGuard(math.nan, DEADLINE_S), driving(1.0)
    for device_t_s, host_t_s in stamps:
        clock.feed(device_t_s, 0.0)
        obedience.feed(CellSample(device_t_s, host_t_s, device_t_s, host_t_s, CellMode.GALVANOSTATIC))
