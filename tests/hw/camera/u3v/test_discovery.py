import errno

import pytest

from hw.camera.u3v import discovery
from hw.camera.u3v.discovery import REASONS, Identity, camera_error, identity, pick
from hw.errors import CameraError, CameraReason, UsbError, UsbReason
from hw.usb import bus
from hw.usb.bus import UsbId, find
from hw.usb.device import UsbDevice
from tests.hw.camera.u3v.fake import INFO
from tests.hw.usb import fake as usb_fake
from tests.hw.usb.fake import FakeBackend, FakeDevice


@pytest.fixture(autouse=True)
def _cameras(monkeypatch, tmp_path):
    monkeypatch.setattr(bus, "SYSFS", tmp_path)
    interfaces = [((0xEF, 5, 0), [0x01, 0x81], [5, 0x24, 9, 0, 0, *INFO]), ((0xEF, 5, 2), [0x82], [])]
    monkeypatch.setattr(usb_fake, "INTERFACES", interfaces)


def camera(address, serial, guid, name=""):
    one = FakeDevice(address, 1, serial, (address,))
    one.texts |= {4: guid, 7: name}
    return one


def test_the_only_camera_needs_no_name():
    assert pick("", FakeBackend(camera(2, "A1", "G1"))).serial == "A1"


@pytest.mark.parametrize("wanted, found", [("A1", "A1"), ("B2", "B2"), ("G2", "B2"), ("left", "B2")])
def test_one_of_several_is_found_by_any_of_its_names(wanted, found):
    backend = FakeBackend(camera(2, "A1", "G1"), camera(3, "B2", "G2", "left"))
    assert pick(wanted, backend).serial == found
    assert all(device.handles <= 1 for device in backend.devices)


def test_what_is_not_there_is_told_with_what_is():
    backend = FakeBackend(camera(2, "A1", "G1"), camera(3, "B2", "G2"))
    for wanted, reason in (("C3", CameraReason.NOT_FOUND), ("", CameraReason.AMBIGUOUS)):
        with pytest.raises(CameraError, match=r"A1.*B2") as caught:
            pick(wanted, backend)
        assert caught.value.reason is reason
    with pytest.raises(CameraError, match="no USB3 Vision camera") as caught:
        pick("", FakeBackend())
    assert caught.value.reason is CameraReason.NOT_FOUND


def test_a_camera_that_may_not_be_asked_its_name_is_denied_rather_than_missing():
    one = camera(2, "A1", "G1")
    one.errors["open"] = errno.EACCES
    with pytest.raises(CameraError) as caught:
        pick("G1", FakeBackend(one))
    assert caught.value.reason is CameraReason.DENIED


def test_identity_comes_from_the_device_info_descriptor():
    found = find(UsbId(), FakeBackend(camera(2, "A1", "G1", "left")))[0]
    device = UsbDevice.open(found, [])
    assert identity(device) == Identity("G1", "A1", "left")
    device.close()


def test_every_usb_reason_is_a_cameras():
    assert set(REASONS) == set(UsbReason)
    error = camera_error(UsbError(UsbReason.BUSY, "held by x (pid 7)"))
    assert error.reason is CameraReason.BUSY and "pid 7" in error.detail


def test_the_bus_that_cannot_be_listed_is_a_cameras_error(monkeypatch):
    def broken(match, backend=None):
        raise UsbError(UsbReason.FAULT, "no libusb")

    monkeypatch.setattr(discovery, "find", broken)
    with pytest.raises(CameraError, match="no libusb"):
        pick("")
