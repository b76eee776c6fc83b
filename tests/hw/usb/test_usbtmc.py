from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.usb.bus import Endpoint, Interface
from hw.usb.errors import UsbError, UsbReason
from hw.usb.usbtmc import HEADER, UsbTmc

INTERFACE = Interface(0, 0, (0xFE, 3, 1), (Endpoint(0x01, 2, 64), Endpoint(0x82, 2, 64), Endpoint(0x83, 3, 8)))


class Instrument:
    """Answers from lists; what is sent and asked is kept."""

    def __init__(self, *answers, controls=()):
        self.found = SimpleNamespace(name="thing", interfaces=(INTERFACE,))
        self.answers, self.controls = list(answers), list(controls)
        self.sent, self.requests, self.cleared = [], [], []

    def bulk_out(self, endpoint, data, timeout_s):
        self.sent.append(data)

    def bulk_in(self, endpoint, length, timeout_s):
        if not self.answers:
            raise UsbError(UsbReason.TIMEOUT, "nothing came")
        answer = self.answers.pop(0)
        return answer(self) if callable(answer) else answer

    def control(self, kind, request, value, index, data, timeout_s):
        self.requests.append((kind, request, value, index))
        return self.controls.pop(0) if self.controls else bytes([1]) + bytes(23)

    def clear_halt(self, endpoint):
        self.cleared.append(endpoint)


def answer(text: bytes, *, end: bool = True, number: int = 2, tag: int | None = None, size: int | None = None):
    def made(instrument):
        asked = instrument.sent[-1][1] if tag is None else tag
        told = len(text) if size is None else size
        return HEADER.pack(number, asked, asked ^ 0xFF, told, int(end), 0) + text + bytes(-len(text) % 4)

    return made


def stalled(*_):
    raise UsbError(UsbReason.STALLED, "it stalled")


def tmc(*answers, controls=()):
    instrument = Instrument(*answers, controls=controls)
    return UsbTmc(instrument, INTERFACE), instrument


def test_a_message_is_padded_and_ends_itself():
    one, instrument = tmc()
    one.write(b"*IDN?", 1.0)
    (sent,) = instrument.sent
    assert sent == HEADER.pack(1, 1, 0xFE, 5, 1, 0) + b"*IDN?\0\0\0"


def test_a_long_message_goes_in_parts_of_which_only_the_last_ends_it():
    one, instrument = tmc()
    one.write(bytes(150_000), 1.0)
    assert [sent[8] for sent in instrument.sent] == [0, 0, 1]
    assert sum(HEADER.unpack_from(sent)[3] for sent in instrument.sent) == 150_000


def test_an_answer_is_asked_for_until_it_ends():
    one, instrument = tmc(answer(b"first,", end=False), answer(b"second\n"))
    assert one.query(b"X?", 1.0) == b"first,second\n"
    assert [HEADER.unpack_from(sent)[0] for sent in instrument.sent] == [1, 2, 2]


def test_tags_go_round_without_zero():
    one, instrument = tmc()
    for _ in range(300):
        one.write(b"X", 1.0)
    tags = [sent[1] for sent in instrument.sent]
    assert 0 not in tags and tags[254:256] == [255, 1]


def test_a_time_out_takes_the_request_back():
    one, instrument = tmc()
    with pytest.raises(UsbError) as caught:
        one.query(b"X?", 0.1)
    assert caught.value.reason is UsbReason.TIMEOUT
    tag = instrument.sent[-1][1]
    assert instrument.requests == [(0xA2, 3, tag, 0x82), (0xA2, 4, 0, 0x82)]


def test_a_pending_abort_is_asked_after_until_done():
    one, instrument = tmc(controls=[bytes([1, 2]), bytes([2]) + bytes(7), bytes([1]) + bytes(7)])
    with pytest.raises(UsbError):
        one.query(b"X?", 0.1)
    assert [request for _, request, _, _ in instrument.requests] == [3, 4, 4]


def test_an_answer_to_another_request_is_no_answer():
    one, _ = tmc(answer(b"x", tag=77))
    with pytest.raises(UsbError) as caught:
        one.query(b"X?", 1.0)
    assert caught.value.reason is UsbReason.PROTOCOL


def test_a_wrong_message_number_is_tolerated_and_counted():
    one, _ = tmc(answer(b"fine\n", number=1))
    assert one.query(b"X?", 1.0) == b"fine\n"
    assert one.oddities == 1


def test_fewer_bytes_than_told_are_a_fault():
    one, _ = tmc(answer(b"abc", size=300))
    with pytest.raises(UsbError, match=r"sent 4 of 300|sent 3 of 300"):
        one.query(b"X?", 1.0)


def test_clear_waits_for_the_instrument_and_clears_the_endpoint():
    one, instrument = tmc(b"left over", controls=[bytes([1]), bytes([2, 1]), bytes([1, 0])])
    one.clear()
    assert instrument.cleared == [0x01] and instrument.answers == []


@pytest.mark.parametrize("way", ["out", "in"])
def test_a_stall_is_told_and_its_endpoint_fit_for_the_next_message(way):
    one, instrument = tmc(stalled if way == "in" else answer(b"x"))
    if way == "out":
        instrument.bulk_out = stalled
    with pytest.raises(UsbError) as caught:
        one.query(b"X?", 1.0)
    assert caught.value.reason is UsbReason.STALLED
    assert instrument.cleared == [0x82 if way == "in" else 0x01]


def test_a_request_that_cannot_be_taken_back_is_still_a_time_out():
    one, _ = tmc(controls=[b""])
    with pytest.raises(UsbError) as caught:
        one.query(b"X?", 0.1)
    assert caught.value.reason is UsbReason.TIMEOUT


def test_an_answer_without_end_is_given_up_in_time():
    one, instrument = tmc(*[answer(b"", end=False)] * 100_000)
    with pytest.raises(UsbError, match="does not end its answer"):
        one.query(b"X?", 0.1)
    assert (0xA1, 5, 0, 0) in instrument.requests


def test_a_device_without_messages_is_refused():
    instrument = Instrument()
    instrument.found.interfaces = ()
    with pytest.raises(UsbError, match="no interface for messages"):
        UsbTmc.interface_of(instrument)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_fault_of_ours(data: bytes) -> None:
    one, _ = tmc(data)
    try:
        one.query(b"X?", 0.05)
    except UsbError as error:
        assert error.reason in (UsbReason.PROTOCOL, UsbReason.TIMEOUT)
