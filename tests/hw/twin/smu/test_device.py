"""Any bytes on its endpoints are taken or refused: nothing else ever comes out of the emulated unit."""

import contextlib
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.twin.smu.device import FAULTS, HEADER, IN, INTERRUPT, OUT, Smu
from hw.twin.smu.instrument import SmuOptions
from hw.twin.usb.device import Gone, Setup, Stall

WORDS = [
    "SOUR:VOLT", "SOUR:VOLT:ILIM", "SOUR:CURR", "SOUR:FUNC", "SENS:FUNC", "SENS:CURR:RSEN", "OUTP",
    "OUTP:SMOD", "TRAC:DATA?", "TRAC:ACT?", "TRAC:CLE", "READ?", "INIT", "ABOR", "*RST", "*CLS",
    "SYST:ERR?", "TRIG:BLOC:DEL:CONS", "TRIG:BLOC:MEAS", "TRIG:BLOC:BRAN:COUN", "TRIG:BLOC:BRAN:ALW",
    "TRIG:BLOC:BRAN:LIM:CONS", "TRIG:BLOC:SOUR:STAT", "TRIG:STAT?", "TRIG:LOAD", "TRIG:BLOC:LIST?",
    "ON", "OFF", "VOLT", "CURR", "IN", "1", "2", "1e-9", "inf", "-inf", "nan", "1e400", '"defbuffer1"',
    "REL", " ", ",", ";", ":", "?", "'", "\n",
]  # fmt: skip

BYTES, SIZES = st.integers(1, 255), st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def unit():
    one = Smu(SmuOptions(particles=2))
    yield one
    one.close()


def out(unit: Smu, data: bytes) -> None:
    with contextlib.suppress(Stall, Gone):
        unit.bulk_out(OUT, data)


def message(text: bytes, tag: int = 1, *, end: int = 1, size: int | None = None) -> bytes:
    told = len(text) if size is None else size
    return HEADER.pack(1, tag, tag ^ 0xFF, told, end, 0) + text + bytes(-len(text) % 4)


def asked(unit: Smu, length: int = 512, most: int = 65536, tag: int = 9) -> bytes | None:
    unit.bulk_out(OUT, HEADER.pack(2, tag, tag ^ 0xFF, most, 0, 0))
    answer = unit.bulk_in(IN, length, time.monotonic())
    return None if answer is None else bytes(answer)


def calm(unit: Smu) -> None:
    """It still works."""
    unit.control(Setup(0xA1, 5, 0, 0, 1), b"")
    unit.bulk_out(OUT, message(b"*RST;*CLS;:TRIG:LOAD 'Empty'"))
    unit.bulk_out(OUT, message(b"*OPC?"))
    answer = asked(unit)
    assert answer is not None and answer[12:14] == b"1\n"


@settings(deadline=None, max_examples=100)
@given(st.lists(st.binary(max_size=80), max_size=4))
def test_any_transfers_stall_or_pass(unit: Smu, transfers: list[bytes]) -> None:
    for data in transfers:
        out(unit, data)
        unit.bulk_in(IN, 512, time.monotonic())
    calm(unit)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.binary(max_size=60), BYTES, st.sampled_from([0, 1, 2, 3]), SIZES), max_size=4))
def test_any_bytes_in_messages_pass(unit: Smu, messages: list[tuple[bytes, int, int, int]]) -> None:
    for text, tag, end, size in messages:
        out(unit, message(text, tag, end=end, size=size))
    calm(unit)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join), max_size=6), st.integers(0, 70000)
)
def test_any_words_of_the_language_are_carried_out_or_refused(unit: Smu, texts: list[str], most: int) -> None:
    for text in texts:
        out(unit, message(text.encode()))
        out(unit, HEADER.pack(2, 7, 7 ^ 0xFF, most, 0, 0))
        answer = unit.bulk_in(IN, 512, time.monotonic())
        assert answer is None or len(answer) <= 512
    calm(unit)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 64))
def test_any_request_is_answered_or_stalls(
    unit: Smu, kind: int, request: int, value: int, index: int, length: int
) -> None:
    with contextlib.suppress(Stall):
        assert isinstance(unit.control(Setup(kind, request, value, index, length), b""), bytes)
    unit.bulk_in(INTERRUPT, 64, time.monotonic())
    calm(unit)


def test_an_answer_comes_in_parts_as_long_as_the_host_will_take(unit: Smu) -> None:
    unit.bulk_out(OUT, message(b"*IDN?"))
    told, ended = b"", False
    while not ended:
        answer = asked(unit, most=7)
        assert answer is not None
        size, attributes = struct.unpack_from("<IB", answer, 4)
        assert size <= 7
        told, ended = told + answer[12 : 12 + size], bool(attributes & 1)
    assert told.startswith(b"KEITHLEY INSTRUMENTS,MODEL 2450") and told.endswith(b"\n")


def test_an_answer_that_nobody_fetched_is_an_error_of_the_next_message(unit: Smu) -> None:
    unit.bulk_out(OUT, message(b"*IDN?"))
    unit.bulk_out(OUT, message(b"SYST:ERR?"))
    answer = asked(unit)
    assert answer is not None and b"-410" in answer


def test_asking_for_nothing_is_an_error_and_withholding_an_answer_is_not(unit: Smu) -> None:
    assert asked(unit) is None
    unit.bulk_out(OUT, message(b"SYST:ERR?"))
    answer = asked(unit)
    assert answer is not None and b"-420" in answer
    unit.inject("mute")
    unit.bulk_out(OUT, message(b"*IDN?"))
    assert asked(unit, tag=5) is None
    assert unit.control(Setup(0xA2, 3, 5, IN, 2), b"") == bytes([1, 5])
    assert unit.bulk_in(IN, 512, time.monotonic()) == b""
    unit.bulk_out(OUT, message(b"SYST:ERR:COUN?"))
    assert asked(unit) is not None


def test_unknown_faults_are_refused_and_known_ones_listed(unit: Smu) -> None:
    with pytest.raises(ValueError, match="no fault"):
        unit.inject("nonsense")
    assert Smu.__doc__ is not None and all(fault in Smu.__doc__ for fault in FAULTS)
