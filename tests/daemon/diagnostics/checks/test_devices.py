"""Checks of devices: what is on the bus is told by stand-ins for the bus."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.diagnostics.checks import device_present, usb_devices, usbfs_memory
from daemon.diagnostics.checks.device_present import CameraDevice, PotentiostatDevice
from daemon.diagnostics.checks.link_speed import LinkSpeed
from daemon.diagnostics.checks.usb_devices import NOT_USB, WANTED, DriverChoice
from daemon.diagnostics.checks.usbfs_memory import UsbfsMemory
from hw import camera, potentiostat
from hw.usb.bus import FoundDevice, UsbId
from hw.usb.errors import UsbError, UsbReason

U3V = DriverChoice("u3v", {})


def device(serial: str = "S1", speed_mbps: float | None = 5000.0, address: int = 4) -> FoundDevice:
    return FoundDevice(2, address, "2-1", 0x1234, 0x5678, speed_mbps, "Maker", "Camera", serial, (), None)


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[FoundDevice]:
    """What is on the bus; its nodes are files here."""
    there: list[FoundDevice] = []
    monkeypatch.setattr(usb_devices, "find", lambda wanted: list(there))
    monkeypatch.setattr(device_present, "node", lambda bus, address: tmp_path / f"{bus}-{address}")
    (tmp_path / "2-4").touch()
    return there


def test_every_driver_is_known_to_look_for_a_device_or_not_to() -> None:
    assert set(WANTED) | NOT_USB == set(camera.DRIVERS) | set(potentiostat.DRIVERS)
    for wanted in WANTED.values():
        assert all(isinstance(one, UsbId) for one in wanted())


@pytest.mark.parametrize("choice", [DriverChoice(), DriverChoice("twin"), DriverChoice("none")])
def test_without_a_usb_device_nothing_is_asked(choice: DriverChoice) -> None:
    for check in (CameraDevice(choice), LinkSpeed(choice), UsbfsMemory(choice)):
        result = check.run()
        assert (result.outcome, result.measured.split(":")[0]) == ("pass", "not applicable")


def test_a_device_that_is_there(bus: list[FoundDevice]) -> None:
    bus.append(device())
    result = CameraDevice(U3V).run()
    assert (result.outcome, result.measured) == ("pass", "Maker Camera S1 at 2-1, 5000 Mbit/s")


def test_a_device_that_is_not_there_or_not_the_one(bus: list[FoundDevice]) -> None:
    assert "no device for the driver 'u3v'" in CameraDevice(U3V).run().measured
    bus.append(device())
    other = CameraDevice(DriverChoice("u3v", {"serial": "S9"})).run()
    assert (other.outcome, "none has the serial number 'S9'" in other.measured) == ("warn", True)
    bus.append(device("S2"))
    assert CameraDevice(U3V).run().outcome == "fail"
    assert CameraDevice(DriverChoice("u3v", {"serial": "S1"})).run().outcome == "pass"


def test_a_bus_that_cannot_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(wanted: list[UsbId]) -> list[FoundDevice]:
        raise UsbError(UsbReason.FAULT, "libusb is not installed")

    monkeypatch.setattr(usb_devices, "find", broken)
    assert CameraDevice(U3V).run().measured == "libusb is not installed"
    assert LinkSpeed(U3V).run().outcome == "warn"


def test_a_node_that_may_not_be_opened(bus: list[FoundDevice], monkeypatch: pytest.MonkeyPatch) -> None:
    bus.append(device())
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    result = CameraDevice(U3V).run()
    assert result.outcome == "fail"
    assert "closed to this user (mode 0" in result.measured


def test_a_holder_is_named_unless_it_is_ours(bus: list[FoundDevice], monkeypatch: pytest.MonkeyPatch) -> None:
    bus.append(device())
    monkeypatch.setattr(device_present, "holders", lambda place: ["ModemManager (pid 77)", "engine (pid 78)"])
    result = PotentiostatDevice(DriverChoice("keithley"), lambda: {78}).run()
    assert (result.outcome, result.measured.partition("held by ")[2]) == ("warn", "ModemManager (pid 77)")
    assert PotentiostatDevice(DriverChoice("keithley"), lambda: {77, 78}).run().outcome == "pass"


def test_a_terminal_is_looked_at_by_its_path(tmp_path: Path) -> None:
    options = {"link": "tty", "device": str(tmp_path / "ttyACM0")}
    assert "does not exist" in PotentiostatDevice(DriverChoice("methodscript", options)).run().measured
    (tmp_path / "ttyACM0").touch()
    assert PotentiostatDevice(DriverChoice("methodscript", options)).run().outcome == "pass"


@pytest.mark.parametrize(
    ("speed_mbps", "rate", "outcome"),
    [(5000.0, 3e8, "pass"), (480.0, 1e7, "warn"), (480.0, 3e8, "fail"), (480.0, None, "warn"), (None, 1e7, "warn")],
)
def test_link_speed(bus: list[FoundDevice], speed_mbps: float | None, rate: float | None, outcome: str) -> None:
    assert LinkSpeed(U3V).run().measured.startswith("not applicable")
    bus.append(device(speed_mbps=speed_mbps))
    assert LinkSpeed(U3V, lambda: rate).run().outcome == outcome


@pytest.mark.parametrize(
    ("limit_mb", "frame_bytes", "outcome"),
    [(16, 2_304_000, "warn"), (256, 2_304_000, "pass"), (0, 2_304_000, "pass"), (16, None, "warn"), (None, 1, "warn")],
)
def test_usbfs_memory(
    monkeypatch: pytest.MonkeyPatch, limit_mb: int | None, frame_bytes: int | None, outcome: str
) -> None:
    monkeypatch.setattr(usbfs_memory, "memory_limit_mb", lambda: limit_mb)
    result = UsbfsMemory(U3V, lambda: frame_bytes).run()
    assert result.outcome == outcome
    if frame_bytes == 2_304_000:
        assert result.limit.startswith("at least 20 MB, for 8 frames of 2.3 MB")
