"""An open USB3 Vision camera: its USB device, registers, features and stream, put together and taken apart."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from hw.camera.u3v import registers
from hw.camera.u3v.description import read_description
from hw.camera.u3v.discovery import CONTROL, STREAM, Identity, identity
from hw.camera.u3v.gencp import GenCp
from hw.camera.u3v.nodes import Nodes
from hw.camera.u3v.registers import Bootstrap, read_bootstrap
from hw.camera.u3v.stream import Stream
from hw.errors import CameraError, CameraReason
from hw.usb.bus import FoundDevice
from hw.usb.device import UsbDevice

CLOCK_TRIES = 5


@dataclass(frozen=True)
class ClockSample:
    """The camera's clock beside the host's at one moment."""

    device_t_s: float
    host_t_s: float
    """`time.monotonic()`."""
    uncertainty_s: float
    """Half of the time in which the camera may have read its clock."""


@dataclass
class Link:
    """Everything that lives as long as the camera is open."""

    device: UsbDevice
    port: GenCp
    bootstrap: Bootstrap
    identity: Identity
    nodes: Nodes
    stream: Stream
    found_on: bool
    """It streamed already: another program ended without switching it off."""

    @classmethod
    def open(cls, found: FoundDevice, cache: Path | None) -> Link:
        """Claim the camera, silence it, and read what it is. Raises `UsbError`, `CameraError` (DIRTY)."""
        control, stream = found.interface(CONTROL), found.interface(STREAM)
        device = UsbDevice.open(found, [control.number, stream.number])
        try:
            port = GenCp(device, control.endpoint(inward=False), control.endpoint(inward=True))
            port.flush()
            bootstrap = read_bootstrap(port)
            frames = Stream(device, port, bootstrap.stream, stream.endpoint(inward=True))
            found_on = frames.found_on()
            nodes = Nodes(read_description(port, bootstrap, cache), port)
            link = cls(device, port, bootstrap, identity(device), nodes, frames, found_on)
            link.unlock()
            if frames.found_on():
                raise CameraError(CameraReason.DIRTY, f"{found.name} goes on streaming for a program that is gone")
        except BaseException:
            device.close()
            raise
        return link

    def unlock(self) -> None:
        """End what a predecessor began, so that settings may be changed."""
        self.command("AcquisitionStop")
        self.feature("TLParamsLocked", 0)

    def command(self, name: str) -> bool:
        """Run it where the camera has it and lets it run now; whether it did. Raises `UsbError`."""
        try:
            self.nodes.execute(name)
        except CameraError:
            return False
        return True

    def feature(self, name: str, value: object) -> bool:
        """The same for a value."""
        try:
            self.nodes.set(name, value)
        except CameraError:
            return False
        return True

    def clock(self) -> ClockSample:
        """Latch the camera's clock; the narrowest of a few tries. Raises `UsbError`."""
        best: ClockSample | None = None
        for _ in range(CLOCK_TRIES):
            before_s = time.monotonic()
            self.port.write_u32(registers.TIMESTAMP_LATCH, 1)
            after_s = time.monotonic()
            ticks = self.port.read_u64(registers.TIMESTAMP)
            half_s = (after_s - before_s) / 2
            if best is None or half_s < best.uncertainty_s:
                best = ClockSample(ticks * self.bootstrap.tick_ns * 1e-9, before_s + half_s, half_s)
        assert best is not None
        return best

    def close(self) -> None:
        """Take transfers back, then let the device go; never raises."""
        self.stream.close()
        self.device.close()
