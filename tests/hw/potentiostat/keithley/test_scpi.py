import pytest

from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.keithley.scpi import Scpi, cell_error
from hw.usb.errors import UsbError, UsbReason
from tests.hw.usb.test_usbtmc import Instrument, answer

NO_ERROR = answer(b'0,"No error"\n')


def timed_out(instrument):
    raise UsbError(UsbReason.TIMEOUT, "nothing came")


def scpi(*answers) -> Scpi:
    return Scpi(Instrument(*answers), 0.2)


def test_errors_of_commands_are_told_in_the_units_words():
    with pytest.raises(PotentiostatError, match="Parameter data out of range") as caught:
        scpi(answer(b'-222,"Parameter data out of range"\n'), NO_ERROR).tell("SOUR:VOLT 1e9")
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
    one = scpi(*[answer(b'-113,"Undefined header"\n')] * 100)
    assert len(one.errors()) == 32


@pytest.mark.parametrize(
    ("reason", "as_cell"),
    [(UsbReason.UNPLUGGED, CellReason.UNPLUGGED), (UsbReason.TIMEOUT, CellReason.STALLED)],
)
def test_usb_reasons_become_the_cells(reason, as_cell):
    assert cell_error(UsbError(reason, "x")).reason is as_cell


@pytest.mark.parametrize("reason", [UsbReason.BUSY, UsbReason.DENIED, UsbReason.FAULT])
def test_what_is_of_the_bus_alone_keeps_its_own_reason_and_remedy(reason):
    assert cell_error(UsbError(reason, "x")).reason is reason
