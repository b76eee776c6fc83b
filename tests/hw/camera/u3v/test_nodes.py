import pytest

from hw.camera.u3v.gencp import GenCp
from hw.camera.u3v.nodes import Nodes
from hw.camera.u3v.photometry import leave_pixels_alone
from hw.errors import CameraError, CameraReason, UsbError, UsbReason
from hw.usb.bus import Endpoint
from tests.hw.camera.u3v.fake import AUTO, GAMMA, TRIGGER, WIDTH, FakeCamera


@pytest.fixture
def fake():
    return FakeCamera(stubborn=True)


@pytest.fixture
def nodes(fake):
    port = GenCp(fake, Endpoint(0x01, 2, 1024), Endpoint(0x81, 2, 1024))
    return Nodes(fake.xml.decode(), port)


def test_features_are_read_set_and_bounded_by_name(fake, nodes):
    nodes.set("Width", 32)
    assert fake.number(WIDTH) == nodes.get("Width") == 32 and nodes.limits("Width") == (8, 64)
    nodes.set("ExposureTime", 500.0)
    assert nodes.get("ExposureTime") == 500.0 and nodes.number("Nope", "ExposureTime") == 500.0
    assert nodes.get("PixelFormat") == "Mono8" and "Mono12p" in nodes.entries("PixelFormat")


def test_what_is_not_there_has_no_value(nodes):
    assert nodes.get("Nope") is None and not nodes.readable("Nope") and not nodes.writable("Nope")
    assert nodes.entries("Nope") == nodes.entries("Width") == [] and nodes.number("Nope") is None


@pytest.mark.parametrize(
    "name, value", [("Width", 33), ("Width", 1000), ("PixelFormat", "Mono99"), ("Nope", 1), ("GammaEnable", False)]
)
def test_what_it_refuses_is_a_setting_named(nodes, name, value):
    with pytest.raises(CameraError, match=name) as caught:
        nodes.set(name, value)
    assert caught.value.reason is CameraReason.BAD_SETTING and "file '" not in caught.value.detail


def test_locked_features_say_so(nodes):
    nodes.set("TLParamsLocked", 1)
    with pytest.raises(CameraError, match="Width cannot be changed now"):
        nodes.set("Width", 32)


def test_a_camera_that_fails_is_no_refusal(fake, nodes):
    fake.plugged = False
    for act in (lambda: nodes.get("Width"), lambda: nodes.set("Width", 32), lambda: nodes.execute("AcquisitionStop")):
        with pytest.raises(UsbError) as caught:
            act()
        assert caught.value.reason is UsbReason.UNPLUGGED


def test_a_description_that_is_none_is_a_sentence(fake):
    with pytest.raises(UsbError, match="description cannot be read") as caught:
        Nodes("<broken", GenCp(fake, Endpoint(0x01, 2, 1024), Endpoint(0x81, 2, 1024)))
    assert caught.value.reason is UsbReason.PROTOCOL


def test_pixels_are_left_alone_and_what_stays_on_is_said(fake, nodes):
    assert leave_pixels_alone(nodes) == ["GammaEnable stays True: GammaEnable cannot be changed now"]
    assert fake.number(AUTO) == 0 and fake.number(GAMMA) == 1
    assert fake.number(TRIGGER) == 0  # though its selector cannot be moved
