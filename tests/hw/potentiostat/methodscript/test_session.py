"""The conversation with a device whose answers come from a list."""

from __future__ import annotations

import time
from collections import deque

import pytest

from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.methodscript import session as session_module
from hw.potentiostat.methodscript.packets import Packet
from hw.potentiostat.methodscript.session import ScriptFailed, Session, State
from hw.potentiostat.usb_errors import cell_error
from hw.usb.errors import UsbError, UsbReason
from hw.usb.lines import Line

PACKET = "Peb8000001m;ab8401640u"


class Told:
    """Lines: what was written, and what comes after each writing."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = deque(answers)
        self.written: list[str] = []
        self.waiting: deque[str] = deque()

    def write(self, data: bytes) -> None:
        self.written.append(data.decode())
        self.waiting += self.answers.popleft() if self.answers else []

    def read_line(self, timeout_s: float) -> Line | None:
        if self.waiting:
            return Line(self.waiting.popleft().encode(), time.monotonic())
        time.sleep(min(timeout_s, 0.01))
        return None


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(session_module, "AFTER_ERROR_S", 0.01)


def told(*answers):
    lines = Told(*answers)
    return Session(lines, 0.1), lines


def test_a_script_from_loading_to_its_end():
    session, lines = told(["e"], ["Z", PACKET, "*", PACKET + ";ja8000000i", ""])
    lines.waiting += ["stray", ""]
    session.start("cell_off\n")
    assert session.state is State.RUNNING and lines.written == ["e\ncell_off\n\n"]
    assert session.abort() and session.state is State.IDLE
    assert [type(heard.message) for heard in iter(session.waiting, None)].count(Packet) == 2
    assert not session.abort() and len(lines.written) == 2  # nothing runs: nothing is sent


def test_a_script_that_ends_just_before_it_is_aborted():
    session, lines = told(["e"])
    session.start("cell_off\n")
    lines.answers.append([PACKET, "*", "", "Z!0006"])
    assert not session.abort() and session.state is State.IDLE
    assert session.waiting() is not None  # what it said is kept


def test_a_script_that_fails_while_it_is_aborted():
    session, _lines = told(["e"], [PACKET, "!0032: Line 7", ""])
    session.start("cell_off\n")
    with pytest.raises(ScriptFailed, match="critical overload"):
        session.abort()
    assert session.state is State.IDLE


def test_a_script_that_is_refused():
    session, _ = told(["e!4001: Line 3, Col 5"])
    with pytest.raises(ScriptFailed) as caught:
        session.start("frob\n")
    assert (caught.value.error, caught.value.place) == ("4001", "Line 3, Col 5")
    assert caught.value.reason is CellReason.DEVICE_ERROR and session.state is State.IDLE


def test_one_that_is_not_acknowledged_may_run():
    session, _ = told([])
    with pytest.raises(PotentiostatError) as caught:
        session.start("cell_off\n")
    assert caught.value.reason is CellReason.STALLED and session.state is State.RUNNING


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["M000A"], None),
        (["!4027: Line 9", ""], CellReason.DEVICE_ERROR),
        ([""], CellReason.DEVICE_ERROR),
        ([], CellReason.STALLED),
    ],
)
def test_waiting_for_a_script_to_measure(lines, reason):
    session, _ = told(["e", *lines])
    session.start("x\n")
    if reason is None:
        session.await_loop(0.1)
        return
    with pytest.raises(PotentiostatError) as caught:
        session.await_loop(0.1)
    assert caught.value.reason is reason


def test_questions():
    session, lines = told(["stray", "tes4_hr1307#", "R*"], ["t!0006"], [])
    assert session.ask("t", last="*") == "es4_hr1307#\nR*"
    with pytest.raises(PotentiostatError, match="error 0006"):
        session.ask("t")
    with pytest.raises(PotentiostatError, match="did not answer to 'i'"):
        session.ask("i")
    assert lines.written == ["t\n", "t\n", "i\n"]


@pytest.mark.parametrize(
    ("lines", "runs"),
    [([], False), ([PACKET, PACKET], True), ([PACKET, "*", ""], False), (["L", "Tfeeling"], True), (["\udcff"], False)],
)
def test_listening_for_a_script_that_runs(lines, runs):
    session, source = told()
    source.waiting += [line.encode("utf-8", "replace").decode() for line in lines]
    heard = session.listen(0.05)
    assert (heard is not None) == runs and (session.state is State.RUNNING) == runs
    assert len(heard or []) == sum(line == PACKET for line in lines) * runs


def test_late_answers_to_what_was_sent_before_are_no_failure():
    session, _ = told([], ["?!0003", "!4001: Line 2, Col 1", "", "Z!0006"])
    assert not session.synchronise()
    session, _ = told([], ["?!0006", PACKET, "Z", "*", ""])
    assert session.synchronise() and session.state is State.IDLE
    session, _ = told([], ["?!0006", "Z", "!0032: Line 7", ""])
    with pytest.raises(ScriptFailed):
        session.synchronise()


def test_half_a_script_cannot_run():
    session, lines = told(["?!0003", ""], ["Z!0006"])
    assert not session.synchronise()
    assert lines.written[0].startswith("?\n")  # before the blank line that would run it


def test_failures_of_links_are_failures_of_the_potentiostat():
    reasons = {reason: cell_error(UsbError(reason, "x")).reason for reason in UsbReason}
    assert reasons[UsbReason.UNPLUGGED] is CellReason.UNPLUGGED and reasons[UsbReason.TIMEOUT] is CellReason.STALLED
    assert reasons[UsbReason.BUSY] is UsbReason.BUSY and reasons[UsbReason.DENIED] is UsbReason.DENIED
