"""An emulated device on a pseudo-terminal, and drivers for it."""

from __future__ import annotations

import time

import pytest

import hw.potentiostat
from hw.drivers import build_driver
from hw.potentiostat.contract import CellMode
from hw.potentiostat.methodscript import driver as driver_module
from hw.twin.methodscript.cell import DeviceOptions
from hw.twin.methodscript.pty import PtyDevice

SMALL = {"particles": 3, "height_px": 120, "width_px": 160}


class Bench:
    """An emulated device and a driver for it."""

    def __init__(self, folder, *, speed=1.0, interval_s=None, driver=None, **options):
        self.path = folder / "ttyMS"
        self.pty = PtyDevice(self.path, DeviceOptions(**SMALL, speed=speed, **options))
        interval_s = interval_s or 0.05 * speed
        self.options = {"link": "tty", "device": str(self.path), "clock_rate": speed, "interval_s": interval_s}
        self.options |= driver or {}
        self.driver = self.another()

    def another(self):
        return build_driver(hw.potentiostat.DRIVERS, "methodscript", self.options)

    def read(self, seconds):
        samples, until = [], time.monotonic() + seconds
        while time.monotonic() < until:
            samples += self.driver.read(0.05)
        return samples

    def until_off(self, most_s=3.0):
        """Samples of a driven cell, up to the first with it off."""
        samples, until = [], time.monotonic() + most_s
        while time.monotonic() < until:
            for sample in self.driver.read(0.05):
                samples += [sample] if samples or sample.mode is not CellMode.OFF else []
            if samples and samples[-1].mode is CellMode.OFF:
                return samples
        raise AssertionError(f"never off: {samples[-1:]}")

    @property
    def state(self):
        return self.pty.state()


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Makes benches, plugged in, with the driver opened unless told otherwise."""
    monkeypatch.setattr(driver_module, "LISTEN_S", 0.13)
    ours = []

    def make(*, opened=True, **options):
        ours.append(Bench(tmp_path, **options))
        ours[-1].pty.start()
        if opened:
            ours[-1].driver.open()
        return ours[-1]

    yield make
    for one in ours:
        one.driver.close()
        one.pty.stop()
