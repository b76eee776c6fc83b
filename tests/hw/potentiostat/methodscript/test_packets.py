from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.potentiostat.methodscript.packets import (
    POWERS,
    End,
    Fault,
    Garbage,
    Mark,
    Packet,
    PacketError,
    Text,
    Value,
    parse_line,
    parse_packet,
)
from hw.twin.methodscript.values import encode


def test_the_worked_example():
    packet = parse_packet("Pda7F85F3Fu;ba48D503Dp,10,288")
    potential, current = packet.values
    assert potential == Value("da", -0.499905)
    assert current.kind == "ba" and current.number == pytest.approx(-57.847747e-6, rel=1e-12)
    assert (current.status, current.range_id, current.overloaded) == (0, 0x88, False)
    assert packet.number("da") == -0.499905 and packet.number("eb") is None


def test_no_number_whole_numbers_and_overload():
    packet = parse_packet("Pba     nan,12;ja8000007i;ab8401640u,1a,2ff")
    assert math.isnan(packet.number("ba")) and packet.values[0].overloaded
    assert packet.number("ja") == 7 and packet.number("ab") == 4.2
    assert packet.values[2].status == 0xA and packet.values[2].range_id == 255


def test_a_decimal_fraction_is_rounded_once():
    assert parse_packet("Pab8401640u").number("ab") == 4.2
    assert parse_packet("Pab80F4240m").number("ab") == 1000.0
    assert parse_packet("Pab8000001E").number("ab") == 1e18


@pytest.mark.parametrize("power", sorted(POWERS))
def test_every_power(power):
    number = parse_packet(f"Pab8000005{power}").number("ab")
    assert number == pytest.approx(5 * 10.0 ** POWERS[power], rel=1e-12)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", End()),
        (b"M000A", Mark("M000A")),
        (b"*", Mark("*")),
        (b"L", Mark("L")),
        (b"+", Mark("+")),
        (b"C0001", Mark("C0001")),
        (b"Thello", Text("hello")),
        (b"!0032: Line 7", Fault("0032", "Line 7")),
        (b"e!4001: Line 3, Col 5", Fault("4001", "Line 3, Col 5")),
        (b"Z!0006", Fault("0006", "")),
    ],
)
def test_lines(line, message):
    assert parse_line(line) == message


@pytest.mark.parametrize(
    "line", [b"P", b"Pda7F8", b"Pda7F85F3Fx", b"Pda7F85F3Fu;", b"\xff\x00", b"hello", b"Pda7F85F3Fu,1x"]
)
def test_damaged_lines_are_garbage(line):
    assert isinstance(parse_line(line), Garbage)


@given(st.binary(max_size=80))
def test_no_bytes_upset_it(line):
    parse_line(line)


@given(st.text("Pdabe0123456789ABCDEFumnp,; naif", max_size=60))
def test_no_text_upsets_a_package(text):
    try:
        packet = parse_packet("P" + text)
    except PacketError:
        return
    assert isinstance(packet, Packet) and packet.values


@given(st.lists(st.tuples(st.sampled_from(["ab", "ba", "eb", "db"]), st.floats(-1e20, 1e20)), min_size=1, max_size=6))
def test_what_the_device_writes_is_read_to_its_27_bits(values):
    packet = parse_packet("P" + ";".join(encode(kind, number, ",10,288") for kind, number in values))
    for value, (kind, number) in zip(packet.values, values, strict=True):
        assert value.kind == kind and value.range_id == 0x88
        assert value.number == pytest.approx(number, rel=8e-6, abs=1e-18)


@given(st.integers(-(2**27), 2**27 - 1))
def test_whole_numbers_are_exact(number):
    assert parse_packet("P" + encode("ja", number)).number("ja") == number
