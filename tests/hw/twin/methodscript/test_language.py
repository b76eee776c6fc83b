"""The emulated device's language: reading, running, and the rules it holds scripts to."""

from __future__ import annotations

import math

import pytest

from hw.twin.methodscript.interpreter import Interpreter
from hw.twin.methodscript.parse import MAX_DEPTH, MAX_VARIABLES, ScriptError, literal, parse
from hw.twin.methodscript.values import encode
from tests.hw.potentiostat.methodscript.analysis import PlainCell, play


def run(text, cell=None, **options):
    return play(parse(text), cell or PlainCell(), **options)


@pytest.mark.parametrize(
    ("text", "value"),
    [("4200m", 4.2), ("-3u", -3e-6), ("7", 7.0), ("2k", 2000.0), ("5i", 5), ("-5i", -5), ("0x1Fi", 31), ("0b101i", 5)],
)
def test_literals(text, value):
    assert literal(text) == value and type(literal(text)) is type(value)


@pytest.mark.parametrize("text", ["4.2", "1e3", "abc", "", "m", "5x", "0x1F"])
def test_what_is_no_literal(text):
    assert literal(text) is None


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("frobnicate 1", "4001: Line 1, Col 1"),
        ("var x\nstore_var x 4.2 ab", "0007: Line 2, Col 13"),
        ("add_var y 1", "420B: Line 1, Col 9"),
        ("var x\nvar x", "4026: Line 2, Col 5"),
        ("cell_off now", "0007: Line 1, Col 10"),
        ("var x\nif x <\nendif", "0007: Line 2, Col 6"),
        ("var e\nmeas_loop_ocp e 1 1", "4018: Line 2, Col 1"),
        ("var e\nmeas_loop_ocp e 1 1\nmeas_loop_ocp e 1 1\nendloop\nendloop", "400B: Line 3, Col 1"),
        ("var é", "4004: Line 1, Col 5"),
        ("# " + "x" * 300, "0008: Line 1, Col 255"),
        ("var x\n" + "if x < 1\n" * (MAX_DEPTH + 1), f"400D: Line {MAX_DEPTH + 2}, Col 1"),
        ("\n".join(f"var v{n}" for n in range(MAX_VARIABLES + 1)), f"0024: Line {MAX_VARIABLES + 1}, Col 5"),
    ],
)
def test_errors_have_code_line_and_column(text, error):
    with pytest.raises(ScriptError) as caught:
        parse(text)
    assert str(caught.value) == error


def test_choices_loops_and_comments():
    lines = run("""
        var x
        var y  # counts
        store_var x 0i ja
        loop x < 10i
          add_var x 1i
          if x == 2i
            add_var y 10
          elseif x == 3i
            add_var y 100
          elseif x == 4i
            breakloop
          else
            add_var y 1
          endif
        endloop
        pck_start
        pck_add x
        pck_add y
        pck_end
    """)
    assert lines == ["L", "+", "P" + encode("ja", 4) + ";" + encode("aa", 111.0), ""]


def test_arithmetic_and_kinds():
    lines = run("""
        var a
        var b
        store_var a 7500m ab
        copy_var a b
        div_var b 2
        mul_var b -3
        sub_var b 1
        alter_vartype b ba
        pck_start
        pck_add a
        pck_add b
        pck_end
        send_string "done it"
    """)
    assert lines == ["P" + encode("ab", 7.5) + ",10;" + encode("ba", -12.25) + ",10,288", "Tdone it", ""]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("var x\ndiv_var x 0", "0028"),
        ("set_pgstat_mode 5", "0021"),
        ("set_pgstat_mode 3\nset_i 1m", "0023"),
        ("set_pgstat_mode 6\nset_e 1", "0023"),
        ("set_pgstat_mode 3\nset_e 11", "000F"),
        ("set_range_minmax ab -11 4", "4205"),
        ("set_pgstat_mode 0\ncell_on", "0023"),
        ("var e\nvar i\nset_pgstat_mode 6\nmeas_loop_cp e i 1m 1 1\nendloop", "4027"),
        ("var e\nset_pgstat_mode 6\ncell_on\nmeas_loop_ocp e 1 1\nendloop", "0014"),
        ("var e\nvar i\nset_pgstat_mode 3\ncell_on\nmeas_loop_cp e i 1m 1 1\nendloop", "0023"),
        ("var e\nmeas_loop_ocp e 0 1\nendloop", "005A"),
        ("var e\nmeas_loop_ocp e 1 1\nset_range ba 1m\nendloop", "4032"),
        ("var e\nmeas_loop_ocp e 1 1\nset_e 1\nendloop", "4033"),
        ("var e\npck_start\n" + "pck_add e\n" * 11 + "pck_end", "401C"),
    ],
)
def test_rules_that_fail_at_run_time(text, code):
    lines = run(text)
    assert lines[-2].startswith(f"!{code}: Line ") and lines[-1] == ""


def test_a_device_without_a_galvanostat():
    text = "set_pgstat_mode 6"
    lines = list(Interpreter(parse(text), PlainCell(), galvanostat=False, window_v=2.0).run())
    assert lines == ["!0021: Line 1", ""]


FINISHING = "set_pgstat_mode 6\nset_i 1m\ncell_on\nwait 10\n{}\non_finished:\ncell_off"


def test_the_last_part_runs_at_a_normal_end_and_at_abort_not_after_an_error():
    for text, on in ((FINISHING.format("wait 1"), False), (FINISHING.format("abort"), False)):
        cell = PlainCell()
        run(text, cell)
        assert cell.on is on
    cell = PlainCell()
    run(FINISHING.format("set_e 1"), cell)
    assert cell.on


def test_abort_from_outside_acts_between_commands():
    cell = PlainCell()
    interpreter = Interpreter(parse(FINISHING.format("wait 1000")), cell, galvanostat=True, window_v=6.0)
    going = interpreter.run()
    cell.advance(next(going))
    interpreter.abort = True
    assert list(going) == [""] and not cell.on


def test_a_measurement_keeps_its_interval_and_ends():
    cell = PlainCell()
    text = "var e\nvar t\ntimer_start\nmeas_loop_ocp e 100m 1\ntimer_get t\npck_start\npck_add t\npck_end\nendloop"
    lines = run(text, cell)
    assert lines[0] == "M000B" and lines[-2] == "*" and len(lines) == 13
    assert [t_s for t_s, *_ in cell.log] == pytest.approx([0.1 * n for n in range(1, 11)])


def test_only_the_measurement_is_ended_by_y():
    interpreter = Interpreter(
        parse('var e\nmeas_loop_ocp e 1 100\npck_start\npck_end\nendloop\nsend_string "after"'), PlainCell(),
        galvanostat=True, window_v=6.0,
    )  # fmt: skip
    lines, cell = [], interpreter._cell
    for item in interpreter.run():
        if isinstance(item, str):
            lines.append(item)
            interpreter.end_loop = len(lines) == 3
        else:
            cell.advance(item)
    assert lines == ["M000B", "P", "P", "*", "Tafter", ""]


def test_values_keep_the_most_digits_that_fit():
    assert encode("da", -0.499905) == "da7F85F3Fu" or encode("da", -0.499905).endswith("n")
    assert encode("ab", 4.2) == "ab8401640u"
    assert encode("ba", math.nan) == "ba     nan"
    assert encode("ba", 0.0) == "ba8000000a" and encode("ja", 5) == "ja8000005i"
    assert encode("ab", 1e40) == "ab     nan"
