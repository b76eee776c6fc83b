"""Is there kernel memory for frames on their way?"""

from __future__ import annotations

from collections.abc import Callable

from daemon.diagnostics.checks.base import Check, CheckResult
from daemon.diagnostics.checks.usb_devices import DriverChoice
from hw.usb.usbfs import LEAST_FRAMES, OTHERS_BYTES, frames_that_fit, memory_limit_mb

DEFAULT_QUEUE_FRAMES = 8  # of the driver `u3v`
TYPICAL_FRAME_BYTES = 1920 * 1200  # until the camera says its own
TRANSFERS_A_FRAME = 3


class UsbfsMemory(Check):
    """The kernel's memory for USB transfers, `usbcore.usbfs_memory_mb`, against the frames that the camera queues.

    `frame_bytes()` is the open camera's; None where that is not known.
    """

    name = "usbfs_memory"
    remedy = "Set usbcore.usbfs_memory_mb on the kernel's command line to the figure named or more; then restart."
    surroundings = True

    def __init__(self, choice: DriverChoice, frame_bytes: Callable[[], int | None] = lambda: None) -> None:
        self._choice = choice
        self._frame_bytes = frame_bytes

    def run(self) -> CheckResult:
        if why := self._choice.no_usb():
            return self.not_applicable(why)
        wanted = int(self._choice.options.get("queue_frames", DEFAULT_QUEUE_FRAMES))
        known = self._frame_bytes()
        size = known or TYPICAL_FRAME_BYTES
        need_mb = -(-(wanted * size + OTHERS_BYTES) // (1 << 20))
        limit = f"at least {need_mb} MB, for {wanted} frames of {size / 1e6:.1f} MB{'' if known else ' (typical)'}"
        limit_mb = memory_limit_mb()
        if limit_mb is None:
            return self.result("warn", "cannot be read", limit)
        measured = f"{limit_mb} MB" if limit_mb else "no limit"
        fit = frames_that_fit(wanted, size, TRANSFERS_A_FRAME, limit_mb)
        if fit >= wanted:
            return self.result("pass", measured, limit)
        return self.result("fail" if fit < LEAST_FRAMES else "warn", f"{measured}, holds {fit} frames", limit)
