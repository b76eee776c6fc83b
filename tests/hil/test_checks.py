"""The self-test's checks of devices, on an emulated bus: real descriptors, nodes and holders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from daemon.diagnostics.checks.device_present import CameraDevice, PotentiostatDevice
from daemon.diagnostics.checks.link_speed import LinkSpeed
from daemon.diagnostics.checks.usb_devices import DriverChoice
from hw.twin.usb.client import BusClient, Plugged
from hw.usb.errors import holders
from tests.hil.u3v import SMALL

U3V = DriverChoice("u3v", {})


def emulators(place: Plugged) -> set[int]:
    """The bus itself has each device's node open: nobody else has, right after it was plugged in."""
    return {int(told.rpartition(" ")[2].rstrip(")")) for told in holders(Path(place.node))}


def test_a_camera_that_is_there_is_told_with_its_speed(bus: BusClient) -> None:
    assert CameraDevice(U3V).run().outcome == "fail"
    bus_pids = emulators(bus.plug("cam", "u3v", **SMALL))
    result = CameraDevice(U3V, lambda: bus_pids).run()
    assert result.outcome == "pass", result
    assert "5000 Mbit/s" in result.measured
    assert LinkSpeed(U3V).run().outcome == "pass"
    assert CameraDevice(DriverChoice("u3v", {"serial": "another"})).run().outcome == "warn"
    bus.unplug("cam")
    assert CameraDevice(U3V).run().outcome == "fail"


def test_a_usb_3_camera_on_a_usb_2_port_is_slow(bus: BusClient) -> None:
    bus.plug("cam", "u3v", usb2=True, **SMALL)
    assert "480 Mbit/s" in CameraDevice(U3V).run().measured
    assert LinkSpeed(U3V, lambda: 1e6).run().outcome == "warn"
    result = LinkSpeed(U3V, lambda: 3e8).run()
    assert (result.outcome, result.measured.partition(" (")[0]) == ("fail", "480 Mbit/s")


def test_the_holder_of_a_camera_is_named(bus: BusClient) -> None:
    place = bus.plug("cam", "u3v", **SMALL)
    bus_pids = emulators(place)
    holding = f"import os, time; os.open({place.node!r}, os.O_RDWR); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holding], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            result = CameraDevice(U3V, lambda: bus_pids).run()
            assert (result.outcome, f"(pid {other.pid})" in result.measured) == ("warn", True), result
            assert CameraDevice(U3V, lambda: {other.pid, *bus_pids}).run().outcome == "pass"
        finally:
            other.kill()


def test_potentiostats_of_both_drivers_are_found(bus: BusClient) -> None:
    for driver, kind in (("methodscript", "methodscript-cdc"), ("keithley", "smu")):
        assert PotentiostatDevice(DriverChoice(driver)).run().outcome == "fail"
        bus_pids = emulators(bus.plug(driver, kind))
        result = PotentiostatDevice(DriverChoice(driver), lambda pids=bus_pids: pids).run()
        assert result.outcome == "pass", result
