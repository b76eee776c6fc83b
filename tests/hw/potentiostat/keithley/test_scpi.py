import math
import time

import pytest

from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.keithley.scpi import Scpi
from hw.potentiostat.usb_errors import cell_error
from hw.usb.errors import UsbError, UsbReason
from tests.hw.usb.test_usbtmc import Instrument, answer

ONE_ERROR = answer(b"1\n")


def late(instrument):
    time.sleep(0.15)
    raise UsbError(UsbReason.TIMEOUT, "nothing came")


def timed_out(instrument):
    raise UsbError(UsbReason.TIMEOUT, "nothing came")


def scpi(*answers) -> Scpi:
    return Scpi(Instrument(*answers), 0.2)


def test_errors_of_commands_are_told_in_the_units_words():
    with pytest.raises(PotentiostatError, match="Parameter data out of range") as caught:
        scpi(ONE_ERROR, answer(b'-222,"Parameter data out of range"\n')).tell("SOUR:VOLT 1e9")
    assert caught.value.reason is CellReason.REFUSED


def test_a_lost_answer_is_asked_for_again():
    one = scpi(timed_out, b"", answer(b"1\n"))
    assert one.ask("OUTP?") == "1" and one.retries == 1


def test_three_lost_answers_are_a_stall():
    with pytest.raises(PotentiostatError) as caught:
        scpi(*[timed_out, b""] * 3, answer(b"1\n")).ask("OUTP?")
    assert caught.value.reason is CellReason.STALLED


def test_garbage_is_asked_for_again_and_no_number_is_a_stall():
    assert scpi(answer(b"\xff\xfe\n"), answer(b"1\n")).ask("OUTP?") == "1"
    with pytest.raises(PotentiostatError, match="which is no number"):
        scpi(answer(b"1,two,3\n")).numbers("TRAC:DATA?")
    assert scpi(answer(b"1,-2.5E-03\n")).numbers("TRAC:DATA?") == [1.0, -2.5e-3]


def test_an_endless_error_queue_does_not_hold_it():
    one = scpi(answer(b"100\n"), *[answer(b'-113,"Undefined header"\n')] * 100)
    assert len(one.errors()) == 32


def test_an_error_whose_words_get_lost_is_still_an_error():
    with pytest.raises(PotentiostatError) as caught:
        scpi(ONE_ERROR, timed_out, b"", answer(b'0,"No error"\n')).tell("SOUR:VOLT 1e9")
    assert caught.value.reason is CellReason.REFUSED


def test_all_that_is_said_ends_within_its_budget():
    one = scpi(*[late] * 20)
    began = time.monotonic()
    with pytest.raises(PotentiostatError), one.within(0.3), one.within(10.0):
        one.ask("OUTP?")
    assert time.monotonic() - began < 0.8 and one.retries < 2


def test_what_cannot_be_measured_is_nan():
    assert math.isnan(scpi(answer(b"9.9E+37\n")).numbers("READ?")[0])
    with pytest.raises(PotentiostatError, match="no count"):
        scpi(answer(b"9.9E+37\n")).count("TRAC:ACT?")
    with pytest.raises(PotentiostatError, match="2 numbers in place of 3"):
        scpi(answer(b"1,2\n")).row("TRAC:DATA?", 3)


@pytest.mark.parametrize(
    ("reason", "as_cell"),
    [(UsbReason.UNPLUGGED, CellReason.UNPLUGGED), (UsbReason.TIMEOUT, CellReason.STALLED)],
)
def test_usb_reasons_become_the_cells(reason, as_cell):
    assert cell_error(UsbError(reason, "x")).reason is as_cell


@pytest.mark.parametrize("reason", [UsbReason.BUSY, UsbReason.DENIED, UsbReason.FAULT])
def test_what_is_of_the_bus_alone_keeps_its_own_reason_and_remedy(reason):
    assert cell_error(UsbError(reason, "x")).reason is reason


def test_a_call_that_was_given_up_tells_the_unit_nothing_more():
    one = scpi(answer(b"0\n"), answer(b"0\n"))
    with one.within(0.2):
        one.tell("SOUR:VOLT 4")
        time.sleep(0.25)  # in a write that hangs, say
        sent = len(one._tmc._device.sent)
        with pytest.raises(PotentiostatError, match="'OUTP ON' was not sent") as caught:
            one.tell("OUTP ON")
        assert len(one._tmc._device.sent) == sent
        one.send(":OUTP OFF")  # off goes out, however late
    assert caught.value.reason is CellReason.STALLED
    one.tell("OUTP ON")
