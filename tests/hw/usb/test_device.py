import errno
import threading
import time

import pytest

from hw.errors import UsbError, UsbReason
from hw.usb import bus
from hw.usb.bus import UsbId, find
from hw.usb.device import UsbDevice
from tests.hw.usb.fake import FakeBackend, FakeDevice


@pytest.fixture
def fake(monkeypatch, tmp_path):
    monkeypatch.setattr(bus, "SYSFS", tmp_path)
    return FakeDevice()


@pytest.fixture
def opened(fake):
    device = UsbDevice.open(find(UsbId(), FakeBackend(fake))[0], [0, 1])
    yield device
    device.close()


def test_interfaces_are_claimed_and_released_once(fake, opened):
    assert fake.claimed == {0, 1} and opened.is_open
    for _ in range(2):
        opened.close()
    assert fake.claimed == set() and fake.handles == 0 and not opened.is_open


def test_kernel_drivers_step_aside_and_come_back(fake):
    fake.drivers = {1}
    device = UsbDevice.open(find(UsbId(), FakeBackend(fake))[0], [0, 1])
    assert fake.drivers == set()
    device.close()
    assert fake.drivers == {1}


def test_bulk_transfers_carry_their_bytes_and_time_limit(fake, opened):
    fake.answers[0x81] = [b"abc"]
    opened.bulk_out(0x01, b"xyz", 0.5)
    assert fake.sent == [(0x01, b"xyz")]
    assert opened.bulk_in(0x81, 64, 0.25) == b"abc"
    assert fake.calls[-1] == ("read", 0x81, 64, 250)


def test_no_time_is_not_for_ever(fake, opened):
    with pytest.raises(UsbError) as caught:
        opened.bulk_in(0x81, 64, 0.0)
    assert caught.value.reason is UsbReason.TIMEOUT and fake.calls[-1][-1] == 1


def test_a_part_sent_is_not_sent(fake, opened):
    fake.answers["short"] = 1
    with pytest.raises(UsbError, match="took 1 of 3 bytes") as caught:
        opened.bulk_out(0x01, b"xyz", 0.5)
    assert caught.value.reason is UsbReason.TIMEOUT


def test_control_transfers_go_both_ways(fake, opened):
    fake.answers[0] = [b"\x05\x06"]
    assert opened.control(0xA1, 7, 1, 2, 24, 1.0) == b"\x05\x06"
    assert opened.control(0x21, 0x20, 0, 0, b"\x01", 1.0) == b""
    assert fake.calls[-1] == ("control", 0x21, 0x20, 0, 0, b"\x01", 1000)


def test_strings_halts_and_resets(fake, opened):
    assert opened.string(2) == "Thing" and opened.string(0) == ""
    opened.set_halt(0x82)
    opened.clear_halt(0x82)
    assert fake.calls[-2:] == [("control", 2, 3, 0, 0x82, b"", 1000), ("clear", 0x82)]
    opened.reset()
    assert ("reset",) in fake.calls and not opened.is_open


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENODEV, UsbReason.UNPLUGGED),
        (errno.EACCES, UsbReason.DENIED),
        (errno.EBUSY, UsbReason.BUSY),
        (errno.EPIPE, UsbReason.STALLED),
        (errno.ETIMEDOUT, UsbReason.TIMEOUT),
        (errno.EOVERFLOW, UsbReason.BABBLE),
        (errno.ENOMEM, UsbReason.NO_MEMORY),
        (errno.EIO, UsbReason.UNPLUGGED),  # its file is not there
    ],
)
def test_errors_are_told_apart(fake, opened, number, reason):
    fake.answers[0x81] = [number]
    with pytest.raises(UsbError) as caught:
        opened.bulk_in(0x81, 64, 0.1)
    assert caught.value.reason is reason
    assert "Maker Thing S1" in caught.value.detail and "001/002" in caught.value.detail


@pytest.mark.parametrize("where", ["open", "claim", "detach"])
def test_what_fails_while_opening_leaves_nothing_held(fake, where):
    fake.errors[where] = errno.EBUSY
    fake.drivers = {1}
    with pytest.raises(UsbError) as caught:
        UsbDevice.open(find(UsbId(), FakeBackend(fake))[0], [0, 1])
    assert caught.value.reason is UsbReason.BUSY
    assert fake.claimed == set() and fake.handles == 0 and fake.drivers == {1}


def test_after_close_it_says_so(opened):
    opened.close()
    with pytest.raises(UsbError, match="is closed") as caught:
        opened.bulk_in(0x81, 1, 0.1)
    assert caught.value.reason is UsbReason.UNPLUGGED


def test_closing_waits_for_the_transfer_of_another_thread(fake, opened):
    inside, go = threading.Event(), threading.Event()

    def slow():
        inside.set()
        go.wait(5)
        return b"late"

    fake.answers[0x81] = [slow]
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(opened.bulk_in(0x81, 8, 1.0)))
    reader.start()
    inside.wait(5)
    closer = threading.Thread(target=opened.close)
    closer.start()
    time.sleep(0.05)
    assert closer.is_alive() and fake.handles == 1
    go.set()
    closer.join(5)
    reader.join(5)
    assert got == [b"late"] and fake.handles == 0


def test_a_device_that_is_gone_closes_in_peace(fake, opened):
    fake.errors["release"] = errno.ENODEV
    opened.close()
    assert fake.handles == 0
