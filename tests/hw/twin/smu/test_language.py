import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.twin.smu.language import CommandTable, ErrorQueue, ScpiError, choice, commands, number, switch


def headers(message: str) -> list[str]:
    return [command.header for command in commands(message)]


def test_commands_go_on_where_the_header_before_ended() -> None:
    assert headers("SOUR:VOLT:ILIM 1; PROT PROT10; :OUTP ON; *IDN?") == [
        "SOUR:VOLT:ILIM", "SOUR:VOLT:PROT", "OUTP", "*IDN?",
    ]  # fmt: skip


def test_a_common_command_leaves_the_path_alone() -> None:
    assert headers("SOUR:VOLT 1;*CLS;CURR 2")[-1] == "SOUR:CURR"


def test_parameters_may_hold_the_marks_in_quotes() -> None:
    (command,) = commands('TRAC:DATA? 1, 2, "a;b,c", REL')
    assert command.parameters == ["1", "2", '"a;b,c"', "REL"]


@pytest.mark.parametrize("header", ["OUTP", "OUTPUT", "OUTP:STAT", "OUTPUT:STATE"])
def test_headers_match_long_or_short(header: str) -> None:
    table = CommandTable({"OUTPut[:STATe]": lambda p: "here", "OUTPut[:STATe]?": lambda p: "asked"})
    assert table.handler(header)([]) == "here"
    assert table.handler(header + "?")([]) == "asked"


@pytest.mark.parametrize("header", ["OUTPU", "OUTP:ST", "OUT", "STAT", "", "OUTP:STAT:ON"])
def test_other_headers_are_undefined(header: str) -> None:
    with pytest.raises(ScpiError) as caught:
        CommandTable({"OUTPut[:STATe]": lambda p: None}).handler(header)
    assert caught.value.code == -113


def test_parameters_are_checked() -> None:
    assert number(["1e-3"]) == 1e-3
    assert switch(["on"]) is True
    assert choice(['"VOLT"'], "VOLTage", "CURRent") == "VOLTage"
    for call, code in (
        (lambda: number([]), -109), (lambda: number(["x"]), -104), (lambda: number(["3"], 0, 0, 2), -222),
        (lambda: switch(["2"]), -104), (lambda: choice(["OHM"], "VOLTage"), -104), (lambda: switch([]), -109),
        (lambda: number(["nan"], 0, 0, 2), -222),
    ):  # fmt: skip
        with pytest.raises(ScpiError) as caught:
            call()
        assert caught.value.code == code


def test_a_full_error_queue_says_so() -> None:
    queue = ErrorQueue()
    for k in range(30):
        queue.add((-100 - k, "x"))
    told = [queue.take() for _ in range(17)]
    assert told[0] == '-100,"x"' and told[15] == '-350,"Queue overflow"' and told[16] == '0,"No error"'


@given(st.text())
def test_any_text_is_cut_without_a_fault(text: str) -> None:
    list(commands(text))
