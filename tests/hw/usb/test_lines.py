from __future__ import annotations

import os
import time
import tty

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hw.usb.lines as lines_module
from hw.usb.errors import UsbError, UsbReason
from hw.usb.lines import TtyLines, ftdi_divisor, without_status


@pytest.fixture
def ends():
    """The master's end of a pseudo-terminal, and opened lines on its other."""
    master, slave = os.openpty()
    tty.setraw(slave)
    lines = TtyLines(os.ttyname(slave), 921600)
    os.close(slave)
    lines.open()
    alive = [master]
    yield master, lines, alive
    lines.close()
    for file in alive:
        os.close(file)


def test_lines_come_whole_in_order_and_stamped(ends):
    master, lines, _ = ends
    before_s = time.monotonic()
    os.write(master, b"one\ntw")
    assert lines.read_line(1.0) == b"one"
    assert lines.read_line(0.05) is None
    os.write(master, b"o\r\n\nthree\n")
    found = [lines.read_line(1.0) for _ in range(3)]
    assert found == [b"two", b"", b"three"]
    assert before_s < found[0].host_t_s <= time.monotonic()


def test_writing(ends):
    master, lines, _ = ends
    lines.write(b"e\ncell_off\n\n")
    assert os.read(master, 100) == b"e\ncell_off\n\n"


def test_what_nobody_fetches_is_bounded_and_counted(ends, monkeypatch):
    monkeypatch.setattr(lines_module, "MAX_LINES", 3)
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 50)
    master, lines, _ = ends
    os.write(master, b"1\n2\n3\n4\n5\n")
    time.sleep(0.1)
    os.write(master, b"x" * 80)
    time.sleep(0.1)
    assert lines.dropped == 3
    assert [lines.read_line(0.5) for _ in range(3)] == [b"3", b"4", b"5"]


def test_a_hang_up_comes_after_what_came_before(ends):
    master, lines, alive = ends
    os.write(master, b"last\n")
    time.sleep(0.1)
    os.close(master)
    alive.clear()
    assert lines.read_line(1.0) == b"last"
    with pytest.raises(UsbError) as caught:
        lines.read_line(1.0)
    assert caught.value.reason is UsbReason.UNPLUGGED


def test_a_terminal_belongs_to_one(ends):
    _, lines, _ = ends
    with pytest.raises(UsbError) as caught:
        TtyLines(lines._path, 921600).open()
    assert caught.value.reason is UsbReason.BUSY


def test_no_terminal_and_no_speed(tmp_path, ends):
    _, lines, _ = ends
    with pytest.raises(UsbError) as caught:
        TtyLines(str(tmp_path / "none"), 921600).open()
    assert caught.value.reason is UsbReason.NOT_FOUND
    lines.close()
    with pytest.raises(UsbError, match="12345 baud"):
        TtyLines(lines._path, 12345).open()


def test_a_terminal_that_may_not_be_opened(monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lines_module.os, "open", denied)
    with pytest.raises(UsbError) as caught:
        TtyLines("/dev/ttyACM0", 921600).open()
    assert caught.value.reason is UsbReason.DENIED


def test_closing_twice_and_ending_a_wait(ends):
    _, lines, _ = ends
    lines.close()
    lines.close()
    began = time.monotonic()
    assert lines.read_line(5.0) is None
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    ("baud", "request_value"),
    [(9600, (0x4138, 0)), (230400, (13, 0)), (921600, (0x8003, 0)), (3_000_000, (0, 0)), (115200, (0x001A, 0))],
)
def test_divisors_of_ftdi_chips(baud, request_value):
    assert ftdi_divisor(baud) == request_value


@given(st.binary(max_size=500), st.sampled_from([64, 512]))
def test_status_bytes_go_from_every_packet(data, packet_bytes):
    room = packet_bytes - 2
    sent = b"".join(b"\x01\x60" + data[at : at + room] for at in range(0, max(len(data), 1), room))
    assert without_status(sent, packet_bytes) == data
