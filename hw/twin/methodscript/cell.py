"""The cell on an emulated potentiostat: the twin's electrode in the device's time, shown to the simulated camera."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Literal

from hw.twin.electrode import Electrode
from hw.twin.sample import make_sample, stream
from hw.twin.settings import NotNegative, Positive, SampleOptions
from hw.twin.world import WorldState, WorldWriter

MODES = {"off": 0, "galvanostatic": 1, "potentiostatic": 2}
LONGEST_LEAP_S = 60.0  # host seconds to catch up with: nobody asked, or the machine slept. The rest is skipped
PUBLISH_S = 0.01
_NOISE = 12  # sub-stream of the seed


class DeviceOptions(SampleOptions):
    """An emulated device and its cell."""

    model: Literal["es4_hr", "es4_lr", "mes4hr", "nexus1", "espico", "senswb", "espbl"] = "es4_hr"
    serial: str = "ES4HR0001"
    speed: Positive = 1.0
    """Device seconds that pass in one second of the host."""
    world: str = ""
    """Path of the file that the simulated camera attaches to; empty: nobody looks."""
    voltage_noise_v: NotNegative = 5e-5
    current_noise_ma: NotNegative = 1e-4
    output_bytes: int = 65536
    """What the device holds of its output until the host takes it; when full, its script waits."""
    script_bytes: int = 16384


class TwinCell:
    """Electrode, clock and set points of one device; `advance` brings all to a time."""

    def __init__(self, options: DeviceOptions, max_current_ma: float) -> None:
        sample_options = SampleOptions(**{name: getattr(options, name) for name in SampleOptions.model_fields})
        self._options = options
        self._max_current_ma = max_current_ma
        self.electrode = Electrode(make_sample(sample_options))
        self.electrode.advance(1e-3)  # compiles the physics before its clock starts
        self.electrode.t_s = 0.0
        self._noise = stream(options.seed, _NOISE)
        self.anchor_t = time.monotonic()
        self.on = False
        self.drive = "galvanostatic"
        self.set_a = self.set_v = 0.0
        self.stuck_on = False
        """A fault: the circuit does not open any more."""
        self._published_t = 0.0
        self._writer: WorldWriter | None = None
        if options.world:
            clock_id = f"twin-{options.seed}-{os.getpid()}-{time.monotonic_ns():x}"
            self._writer = WorldWriter(Path(options.world), sample_options, clock_id, self._state())

    @property
    def t_s(self) -> float:
        """The device's clock."""
        return self.electrode.t_s

    def due_s(self, now_s: float) -> float:
        """The device's clock at `now_s` (`time.monotonic()`); time in which the host slept is left out."""
        due_s = (now_s - self.anchor_t) * self._options.speed
        behind_s = due_s - self.t_s - LONGEST_LEAP_S * self._options.speed
        if behind_s > 0:
            self.anchor_t += behind_s / self._options.speed
            due_s -= behind_s
        return due_s

    def host_s(self, t_s: float) -> float:
        """`time.monotonic()` at which the device's clock shows `t_s`."""
        return self.anchor_t + t_s / self._options.speed

    def advance(self, t_s: float) -> None:
        """Let time pass until the device's clock shows `t_s`."""
        self.electrode.advance(max(t_s - self.electrode.t_s, 0.0))
        self.electrode.events.clear()

    def publish(self, now_s: float) -> None:
        """Show the camera where the electrode is, a hundred times a second."""
        if self._writer is not None and now_s - self._published_t >= PUBLISH_S:
            self._published_t = now_s
            self._writer.publish(self._state())

    # -- what a script does to it ------------------------------------------------------------

    def apply(self) -> None:
        """Hand the set points to the electrode."""
        if not self.on:
            self.electrode.rest()
        elif self.drive == "galvanostatic":
            self.electrode.set_current(self.set_a * 1e3)
        else:
            self.electrode.set_voltage(self.set_v, self._max_current_ma)

    def switch(self, on: bool) -> None:
        """Close or open the circuit."""
        if on or not self.stuck_on:
            self.on = on
        self.apply()

    def read(self) -> tuple[float, float]:
        """Voltage (V) and current (A) now, with the noise of a reading."""
        noise = self._noise.standard_normal(2)
        voltage_v = self.electrode.voltage_v + self._options.voltage_noise_v * noise[0]
        flowing = self.electrode.mode != MODES["off"]
        current_ma = self.electrode.current_ma + self._options.current_noise_ma * noise[1] if flowing else 0.0
        return float(voltage_v), float(current_ma) / 1e3

    def _state(self) -> WorldState:
        electrode = self.electrode
        return WorldState(
            t_s=electrode.t_s,
            host_t_s=self.host_s(electrode.t_s),
            speed=self._options.speed,
            mode=electrode.mode,
            voltage_v=electrode.voltage_v,
            current_ma=electrode.current_ma,
            closed=False,
            particles=electrode.state,
        )

    def close(self) -> None:
        """Remove the world file; idempotent."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None
