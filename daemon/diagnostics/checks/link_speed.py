"""Does the camera's link carry its frames?"""

from __future__ import annotations

from collections.abc import Callable

from daemon.diagnostics.checks.base import Check, CheckResult
from daemon.diagnostics.checks.usb_devices import DriverChoice
from hw.usb.errors import UsbError

SUPER_SPEED_MBPS = 5000.0
HIGH_SPEED_CARRIES = 42e6  # bytes a second that high speed carries in bulk at best


class LinkSpeed(Check):
    """The speed that the camera's port negotiated: a USB 3 camera on a USB 2 port or cable loses frames.

    `data_rate()` is what the open camera sends, bytes a second; None where that is not known.
    """

    name = "camera_link_speed"
    remedy = "Use a USB 3 port (blue), a USB 3 cable and no hub between; or lower the frame rate or the picture's size."
    surroundings = True

    def __init__(self, choice: DriverChoice, data_rate: Callable[[], float | None] = lambda: None) -> None:
        self._choice = choice
        self._data_rate = data_rate

    def run(self) -> CheckResult:
        limit = f"at least {SUPER_SPEED_MBPS:g} Mbit/s"
        if why := self._choice.no_usb():
            return self.not_applicable(why)
        try:
            device = self._choice.meant(self._choice.on_the_bus())
        except UsbError as error:
            return self.result("warn", error.detail, limit)
        if device is None:
            return self.not_applicable("the camera is not there, or cannot be told from others")
        if device.speed_mbps is None:
            return self.result("warn", f"not known ({device.name})", limit)
        return self._judged(device.speed_mbps, f"{device.speed_mbps:g} Mbit/s ({device.name} at {device.port})", limit)

    def _judged(self, speed_mbps: float, measured: str, limit: str) -> CheckResult:
        if speed_mbps >= SUPER_SPEED_MBPS:
            return self.result("pass", measured, limit)
        wanted = self._data_rate()
        if wanted is None:
            return self.result("warn", measured, limit)
        measured += f", its frames take {wanted / 1e6:.0f} MB/s of about {HIGH_SPEED_CARRIES / 1e6:.0f}"
        return self.result("fail" if wanted > HIGH_SPEED_CARRIES else "warn", measured, limit)
