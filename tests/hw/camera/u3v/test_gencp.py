import struct

import pytest

from hw.camera.u3v import gencp
from hw.camera.u3v.gencp import GenCp, RegisterError
from hw.errors import UsbError, UsbReason
from hw.usb.bus import Endpoint
from tests.hw.camera.u3v.fake import FEATURES, FakeCamera


@pytest.fixture
def fake():
    one = FakeCamera()
    one.is_open = True
    return one


@pytest.fixture
def port(fake, monkeypatch):
    monkeypatch.setattr(gencp, "BUSY_WAIT_S", 0.001)
    one = GenCp(fake, Endpoint(0x01, 2, 1024), Endpoint(0x81, 2, 1024))
    one.limit(64, 48, 0.02)
    return one


@pytest.mark.parametrize("size", [1, 4, 35, 36, 37, 400])
def test_registers_are_read_and_written_in_pieces_that_fit(fake, port, size):
    data = bytes(k % 251 for k in range(size))
    port.write(FEATURES + 0x100, data)
    assert port.read(FEATURES + 0x100, size) == data
    assert bytes(fake.memory[FEATURES + 0x100 + size : FEATURES + 0x104 + size]) == bytes(4)
    assert fake.counts["request"] == -(-size // 44) + -(-size // 36)


@pytest.mark.parametrize(
    "faults, counts",
    [
        (["stray"], {"stray": 1}),
        (["garbage"], {"stray": 1}),
        (["pending"], {"pending": 1}),
        (["lost"], {"resent": 1}),
        (["lost", "no resend"], {"resent": 1, "cleared": 1}),
        (["lost", "lost"], {"resent": 1, "cleared": 1}),
        (["busy register", "busy register"], {"busy": 2}),
    ],
)
def test_a_request_is_answered_in_the_end(fake, port, faults, counts):
    fake.faults += faults
    assert port.read_u32(0x1CC) == 100
    assert port.counts == counts and not fake.answers


def test_a_camera_that_never_answers_is_given_up(fake, port):
    fake.faults += ["lost"] * 3
    with pytest.raises(UsbError) as caught:
        port.read_u32(0)
    assert caught.value.reason is UsbReason.TIMEOUT and fake.counts["request"] == 3


def test_one_that_asks_for_time_without_end_is_given_up(fake, port, monkeypatch):
    monkeypatch.setattr(gencp, "LONGEST_PENDING_S", 0.1)
    monkeypatch.setattr(fake, "answer", lambda command, body, request: pending(request))

    def pending(request):
        return struct.pack("<IHHHH", 0x43563355, 0, 0x0805, 4, request) + struct.pack("<HH", 0, 60000)

    with pytest.raises(UsbError, match="keeps asking for more time") as caught:
        port.read_u32(0)
    assert caught.value.reason is UsbReason.PROTOCOL


def test_one_that_is_always_busy_is_told_so(fake, port, monkeypatch):
    monkeypatch.setattr(gencp, "BUSY_TRIES", 3)
    fake.faults += ["busy register"] * 3
    with pytest.raises(RegisterError, match="busy"):
        port.read_u32(0)


def test_a_refusal_names_register_and_reason(port):
    with pytest.raises(RegisterError, match="reading register 0x999999: invalid address") as caught:
        port.read(0x999999, 4)
    assert caught.value.status == 0x8003


def test_an_unplugged_camera_is_not_asked_again(fake, port):
    fake.plugged = False
    with pytest.raises(UsbError) as caught:
        port.read_u32(0)
    assert caught.value.reason is UsbReason.UNPLUGGED and fake.counts["request"] == 0


def test_what_was_left_unread_is_flushed(fake, port):
    fake.answers += [b"old", b"older"]
    port.flush()
    assert not fake.answers and fake.counts["clear 01"] == fake.counts["clear 81"] == 1
    assert port.read_u32(0x1CC) == 100


def test_request_ids_wrap_past_nought(fake, port):
    port._id = 0xFFFE
    for wanted in (0xFFFF, 1, 2):
        port.read_u32(0)
        assert port._id == wanted
