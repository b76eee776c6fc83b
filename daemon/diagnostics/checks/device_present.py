"""Are the devices there, may they be opened, and does nobody else hold them?"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from daemon.diagnostics.checks.base import Check, CheckResult
from daemon.diagnostics.checks.usb_devices import DriverChoice
from hw.usb.bus import FoundDevice
from hw.usb.errors import UsbError, holders, node

LIMIT = "on the bus, readable and writable for this user, held by no other program"


class DevicePresent(Check):
    """The configured device on the USB: there, permitted, not held by another program. `own_pids()` are ours."""

    def __init__(self, choice: DriverChoice, own_pids: Callable[[], set[int]] = set) -> None:
        self._choice = choice
        self._own_pids = own_pids

    def run(self) -> CheckResult:
        choice = self._choice
        if choice.terminal:
            return self._opened(Path(choice.terminal), choice.terminal)
        if why := choice.no_usb():
            return self.not_applicable(why)
        try:
            found = choice.on_the_bus()
        except UsbError as error:
            return self.result("fail", error.detail, LIMIT)
        return self._chosen(found)

    def _chosen(self, found: list[FoundDevice]) -> CheckResult:
        choice = self._choice
        names = ", ".join(f"{one.name} at {one.port}" for one in found)
        if not found:
            return self.result("fail", f"no device for the driver '{choice.driver}' is on the USB", LIMIT)
        device = choice.meant(found)
        if device is None and choice.serial:
            # a camera may be meant by a GUID or a name of its own, which only opening it tells
            return self.result("warn", f"none has the serial number '{choice.serial}'; there are: {names}", LIMIT)
        if device is None:
            return self.result("fail", f"{len(found)} are there and none is named: {names}", LIMIT)
        return self._opened(node(device.bus, device.address), _told(device))

    def _opened(self, place: Path, told: str) -> CheckResult:
        if not place.exists():
            return self.result("fail", f"{told}: {place} does not exist", LIMIT)
        if not os.access(place, os.R_OK | os.W_OK):
            return self.result("fail", f"{told}: {place} is closed to this user ({_permissions(place)})", LIMIT)
        own = self._own_pids()
        others = [one for one in holders(place) if _pid(one) not in own]
        if others:
            return self.result("warn", f"{told}: held by {', '.join(others)}", LIMIT)
        return self.result("pass", told, LIMIT)


class CameraDevice(DevicePresent):
    """The camera that the driver looks for is on the bus, may be opened, and is held by no other program."""

    name = "camera_device"
    remedy = (
        "Not there: check cable, power and `camera.options`. Closed: install the udev rule and replug it. "
        "Held: stop the program named."
    )


class PotentiostatDevice(DevicePresent):
    """The potentiostat that the driver looks for is there, may be opened, and is held by no other program."""

    name = "potentiostat_device"
    remedy = (
        "Not there: check cable, power and `potentiostat.options`. Closed: install the udev rule and replug it. "
        "Held: stop the program named (ModemManager opens serial ports of its own accord)."
    )


def _told(device: FoundDevice) -> str:
    speed = "unknown speed" if device.speed_mbps is None else f"{device.speed_mbps:g} Mbit/s"
    return f"{device.name} at {device.port}, {speed}"


def _permissions(place: Path) -> str:
    state = place.stat()
    return f"mode {state.st_mode & 0o777:04o}, uid {state.st_uid}, gid {state.st_gid}"


def _pid(holder: str) -> int:
    """Of ``name (pid N)``."""
    return int(holder.rpartition(" ")[2].rstrip(")"))
