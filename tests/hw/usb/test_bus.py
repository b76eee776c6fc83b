import errno

import pytest
import usb.core

from hw.errors import UsbError, UsbReason
from hw.usb import bus
from hw.usb.bus import UsbId, find
from tests.hw.usb.fake import FakeBackend, FakeDevice


@pytest.fixture(autouse=True)
def sysfs(monkeypatch, tmp_path):
    monkeypatch.setattr(bus, "SYSFS", tmp_path)
    return tmp_path


def test_a_device_is_described_by_its_descriptors():
    (one,) = find(UsbId(vendor_id=0x1209), FakeBackend(FakeDevice()))
    assert (one.bus, one.address, one.port, one.speed_mbps) == (1, 2, "1-1.4", 5000.0)
    assert (one.manufacturer, one.product, one.serial) == ("Maker", "Thing", "S1")
    control = one.interface((0xEF, 5, 0))
    assert (control.number, control.extra) == (0, bytes([20, 0x24, 1]))
    assert control.endpoint(inward=True).address == 0x81 and control.endpoint(inward=False).address == 1
    assert control.endpoint(inward=True).max_packet_bytes == 1024
    assert one.name == "Maker Thing S1"


@pytest.mark.parametrize(
    ("match", "found"),
    [
        (UsbId(), ["A", "B"]),
        (UsbId(product_id=2), ["B"]),
        (UsbId(vendor_id=9), []),
        (UsbId(interface=(0xEF, 5, 0)), ["A", "B"]),
        (UsbId(interface=(0xEF, 5, 2)), []),
        (UsbId(serial="B"), ["B"]),
        (UsbId(product="Th*"), ["A", "B"]),
        (UsbId(product="X*"), []),
        ([UsbId(serial="A"), UsbId(product_id=2)], ["A", "B"]),
    ],
)
def test_everything_given_must_agree(match, found):
    backend = FakeBackend(FakeDevice(3, 2, "B", (2,)), FakeDevice(2, 1, "A", (1,)))
    assert [one.serial for one in find(match, backend)] == found


def test_strings_come_from_the_kernel_without_opening(sysfs):
    (sysfs / "1-1.4").mkdir()
    for name, text in (("serial", "K1\n"), ("product", "Kernel's"), ("manufacturer", "")):
        (sysfs / "1-1.4" / name).write_text(text)
    device = FakeDevice()
    device.errors["open"] = errno.EACCES
    (one,) = find(UsbId(serial="K1"), FakeBackend(device))
    assert (one.product, one.serial, one.manufacturer) == ("Kernel's", "K1", "")


def test_a_device_that_may_not_be_opened_has_no_strings_and_is_still_found():
    device = FakeDevice()
    device.errors["open"] = errno.EACCES
    (one,) = find(UsbId(vendor_id=0x1209), FakeBackend(device))
    assert one.serial == "" and one.name == "1209:0001"
    assert find(UsbId(serial="S1"), FakeBackend(device)) == []


def test_a_device_pulled_while_it_is_looked_at_is_not_there():
    device = FakeDevice()
    device.errors["descriptors"] = errno.ENODEV
    assert find(UsbId(interface=(0xEF, 5, 0)), FakeBackend(device)) == []


def test_what_a_device_lacks_is_a_breach_of_protocol():
    (one,) = find(UsbId(), FakeBackend(FakeDevice()))
    for ask in (lambda: one.interface((1, 2, 3)), lambda: one.interfaces[1].endpoint(inward=False)):
        with pytest.raises(UsbError) as caught:
            ask()
        assert caught.value.reason is UsbReason.PROTOCOL


def test_no_libusb_is_a_sentence(monkeypatch):
    def absent(**_):
        raise usb.core.NoBackendError("no backend available")

    monkeypatch.setattr(usb.core, "find", absent)
    with pytest.raises(UsbError, match="libusb is not installed"):
        find(UsbId())
