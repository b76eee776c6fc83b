import errno
import os
import subprocess
import sys

import pytest
import usb.core

from hw.errors import UsbReason
from hw.usb import errors
from hw.usb.errors import holders, status_error, usb_error


@pytest.fixture
def nodes(monkeypatch, tmp_path):
    monkeypatch.setattr(errors, "NODES", tmp_path)
    (tmp_path / "001").mkdir()
    place = tmp_path / "001" / "007"
    place.touch()
    return place


def test_a_failed_transfer_of_a_device_that_is_there_is_a_fault(nodes):
    error = usb_error(usb.core.USBError("Input/output error", -1, errno.EIO), "reading", 1, 7)
    assert error.reason is UsbReason.FAULT
    nodes.unlink()
    assert usb_error(OSError(errno.EIO, "io"), "reading", 1, 7).reason is UsbReason.UNPLUGGED


def test_what_has_no_number_is_a_fault_with_its_words(nodes):
    error = usb_error(NotImplementedError("not here"), "resetting", 1, 7)
    assert error.reason is UsbReason.FAULT and error.detail == "resetting: not here (USB device 001/007)"


def test_a_busy_device_names_who_holds_it(nodes):
    code = "import sys; f = open(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(nodes)], text=True, **pipes) as other:
        assert other.stdout.readline() == "ready\n"
        error = usb_error(usb.core.USBError("Resource busy", -6, errno.EBUSY), "claiming", 1, 7)
        other.stdin.close()
    assert f"(pid {other.pid})" in error.detail and error.reason is UsbReason.BUSY


def test_we_ourselves_are_not_another(nodes):
    with open(nodes):
        assert not [one for one in holders(nodes) if str(os.getpid()) in one]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (1, UsbReason.FAULT),
        (2, UsbReason.TIMEOUT),
        (4, UsbReason.STALLED),
        (5, UsbReason.UNPLUGGED),
        (6, UsbReason.BABBLE),
        (99, UsbReason.FAULT),
    ],
)
def test_statuses_of_transfers_have_the_same_reasons(nodes, status, reason):
    assert status_error(status, "frame", 1, 7).reason is reason
