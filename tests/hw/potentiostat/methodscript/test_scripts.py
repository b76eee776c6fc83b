"""Generated scripts, read and run by the emulated device: bounded on every way, cell off at every end."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from hw.potentiostat.contract import StepBounds
from hw.potentiostat.methodscript.packets import Packet, parse_line
from hw.potentiostat.methodscript.scripts import (
    SLACK_INTERVALS,
    Ended,
    Frame,
    Window,
    bound_s,
    current_script,
    literal,
    off_script,
    probe_script,
    voltage_script,
    watch_script,
)
from hw.twin.methodscript.parse import literal as read_literal
from hw.twin.methodscript.parse import parse
from tests.hw.potentiostat.methodscript.analysis import PlainCell, ends, leaves, loops, play

optional = lambda strategy: st.none() | strategy  # noqa: E731 - a strategy
FRAMES = st.builds(
    Frame,
    st.builds(Window, st.floats(-6, 3.0), st.floats(3.1, 6), st.floats(0.01, 200)),
    st.floats(0.02, 30.0),
    st.floats(1.0, 1e6),
    st.just(Window(-6.0, 6.0, 200.0)),
)
BOUNDS = st.builds(
    StepBounds,
    optional(st.floats(0, 4e5)),
    optional(st.floats(0, 1e3)),
    optional(st.floats(-6, 6)),
    optional(st.floats(1e-4, 200)),
)
CURRENTS, BOUND_CURRENTS = st.floats(-200, 200), st.floats(1e-3, 200)
SCRIPTS = st.one_of(
    st.builds(lambda f, i, b: (f, b, current_script(f, i, b)), FRAMES, CURRENTS, BOUNDS),
    st.builds(
        lambda f, v, i, b: (f, b, voltage_script(f, v, i, b)), FRAMES, st.floats(-6, 6), st.floats(1e-3, 200), BOUNDS
    ),
)
REACH = Window(-6.0, 6.0, 200.0)
FRAME = Frame(Window(2.5, 4.3, 10.0), 0.1, 86_400.0, REACH)


@given(st.floats(-1e6, 1e6))
@example(4.2)
@example(-0.0003)
@example(0.0)
@example(87266.0)
def test_numbers_are_written_as_the_device_reads_them(value):
    text = literal(value)
    assert "." not in text and "e" not in text
    assert read_literal(text) == pytest.approx(value, rel=4e-6, abs=1e-12)


def test_a_number_too_large_is_refused():
    with pytest.raises(ValueError, match="cannot be written"):
        literal(1e9)


def test_everyday_numbers_are_exact():
    for value in (4.2, 2.5, 0.0005, -0.2, 3.6, 0.1):
        assert read_literal(literal(value)) == value


@given(SCRIPTS)
@settings(max_examples=60)
def test_every_way_through_ends_with_the_cell_off(made):
    _, _, text = made
    script = parse(text)
    assert max(map(len, text.splitlines())) <= 255 and len(text) < 8000
    assert ends(script) == {False}
    assert text.splitlines().count("on_finished:") == 1


@given(SCRIPTS)
@settings(max_examples=60)
def test_every_loop_that_drives_leaves_on_any_reading_outside(made):
    frame, bounds, text = made
    script, window = parse(text), frame.window
    driving = [loop for loop in loops(script.body) if loop.name != "meas_loop_ocp"]
    assert driving
    most_a = window.max_current_ma / 1e3
    middle_v = (window.min_voltage_v + window.max_voltage_v) / 2
    for loop in driving:
        assert 0 < read_literal(loop.args[-1]) <= 1.02 * bound_s(frame, bounds)
        assert read_literal(loop.args[-2]) == pytest.approx(frame.interval_s, rel=4e-6)
        good = {"t": 0.0, "e": middle_v, "i": 0.0}
        for bad in (
            {"e": window.max_voltage_v + 1e-3},
            {"e": window.min_voltage_v - 1e-3},
            {"e": math.nan},
            {"i": 1.001 * most_a},
            {"i": -1.001 * most_a},
            {"i": math.nan},
            {"t": 1.001 * bound_s(frame, bounds)},
        ):
            assert leaves(script, loop, **good | bad), (loop.name, bad)


@given(SCRIPTS)
@settings(max_examples=40)
def test_every_loop_that_drives_leaves_when_too_much_charge_has_passed(made):
    frame, bounds, text = made
    assume(bounds.most_mah is not None)
    script = parse(text)
    middle_v = (frame.window.min_voltage_v + frame.window.max_voltage_v) / 2
    slack_c = SLACK_INTERVALS * frame.interval_s * 0.2
    for loop in loops(script.body):
        for sign in (1, -1):
            passed_c = sign * (3.6 * bounds.most_mah * 1.011 + slack_c)
            assert leaves(script, loop, t=0.0, e=middle_v, i=0.0, q=passed_c)


def test_readings_inside_go_on():
    bounds = StepBounds(600.0, 1.0, 4.2, 0.05)
    for text in (current_script(FRAME, 0.5, bounds), voltage_script(FRAME, 4.2, 5.0, bounds)):
        script = parse(text)
        for loop in loops(script.body):
            assert not leaves(script, loop, t=1.0, e=3.9, i=0.0005, g=1.0)


def last_words(lines):
    return parse_line(lines[-2].encode())


@given(SCRIPTS, st.floats(2.0, 4.5), st.floats(1.0, 1e4), st.floats(1.0, 1e6))
@settings(max_examples=30, suppress_health_check=[HealthCheck.filter_too_much])
def test_on_any_cell_it_ends_in_time_with_the_cell_off(made, open_v, ohm, farad):
    frame, bounds, text = made
    assume(bounds.longest_s is not None)
    most_s = bound_s(frame, bounds)
    assume(most_s / frame.interval_s < 200)
    cell = PlainCell(open_v=open_v, ohm=ohm, farad=farad)
    lines = play(parse(text), cell)
    assert not cell.on
    assert cell.t_s < 1.02 * most_s + 2 * frame.interval_s + 3.0
    words = last_words(lines)
    assert isinstance(words, Packet) and Ended(int(words.number("ja"))) is not Ended.ABORTED


@pytest.mark.parametrize(
    ("current_ma", "bounds", "ended"),
    [
        (1.0, StepBounds(), Ended.MAX_VOLTAGE),
        (-1.0, StepBounds(), Ended.MIN_VOLTAGE),
        (1.0, StepBounds(longest_s=50.0), Ended.TIME),
        (1.0, StepBounds(most_mah=0.002), Ended.CHARGE),
        (-1.0, StepBounds(most_mah=0.002), Ended.CHARGE),
        (1.0, StepBounds(end_voltage_v=3.8), Ended.STEP_VOLTAGE),
        (-1.0, StepBounds(end_voltage_v=3.4), Ended.STEP_VOLTAGE),
        (20.0, StepBounds(), Ended.MAX_CURRENT),
    ],
)
def test_the_last_words_say_why(current_ma, bounds, ended):
    cell = PlainCell()
    lines = play(parse(current_script(FRAME, current_ma, bounds)), cell)
    assert last_words(lines).number("ja") == ended
    assert lines[0] == "M000A" and lines[-3] == "*"


def test_a_cut_off_comes_within_one_sample():
    cell = PlainCell()
    play(parse(current_script(FRAME, 5.0, StepBounds())), cell)
    beyond = [voltage_v for _, voltage_v, _, on in cell.log if on and voltage_v >= FRAME.window.max_voltage_v]
    assert len(beyond) == 1


@pytest.mark.parametrize("open_v", [3.0, 4.1, 4.1995])
@pytest.mark.parametrize("ohm", [5.0, 500.0])
def test_a_hold_stays_within_its_current_and_below_its_voltage(open_v, ohm):
    cell = PlainCell(open_v=open_v, ohm=ohm, farad=0.5)
    bounds = StepBounds(longest_s=3600.0, end_current_ma=0.1)
    lines = play(parse(voltage_script(FRAME, 4.2, 5.0, bounds)), cell)
    driven = [reading for reading in cell.log if reading[3]]
    assert max(voltage_v for _, voltage_v, _, _ in driven) < 4.2 + 5e-3 + 5e-3 * ohm * 0.02
    assert max(abs(current_a) for _, _, current_a, _ in driven) < 5.3e-3
    assert last_words(lines).number("ja") == Ended.STEP_CURRENT
    assert ("M000A" in lines) == ((4.2 - open_v) / ohm > 5e-3)


def test_a_discharging_hold():
    cell = PlainCell(open_v=4.1, ohm=50.0, farad=0.5)
    lines = play(parse(voltage_script(FRAME, 3.0, 5.0, StepBounds(longest_s=3600.0, end_current_ma=0.1))), cell)
    driven = [reading for reading in cell.log if reading[3]]
    assert min(voltage_v for _, voltage_v, _, _ in driven) > 2.98
    assert min(current_a for _, _, current_a, _ in driven) > -5.3e-3
    assert last_words(lines).number("ja") == Ended.STEP_CURRENT


def test_open_circuit_scripts_never_close_it():
    for text in (watch_script(FRAME, 10.0), off_script(), probe_script()):
        assert "cell_on" not in text
        cell = PlainCell()
        play(parse(text), cell)
        assert not any(on for *_, on in cell.log)
    assert "cell_off" not in probe_script() and "set_pgstat" not in probe_script()


def test_ranges_are_wider_than_the_window_and_within_the_device():
    text = voltage_script(FRAME, 4.2, 5.0, StepBounds())
    assert "set_range_minmax ab 2300m 4500m" in text and "set_range ba 12m" in text
    wide = Frame(REACH, 0.1, 86_400.0, REACH)
    assert "set_range_minmax ab -6 6" in current_script(wide, 1.0, StepBounds())
