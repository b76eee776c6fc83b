"""The twin's cell on the bench of an emulated device: electrode and clock, shown to the simulated camera."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from hw.twin.electrode import Electrode
from hw.twin.sample import make_sample, stream
from hw.twin.settings import NotNegative, Positive, SampleOptions
from hw.twin.world import WorldState, WorldWriter

LONGEST_LEAP_S = 5.0  # host seconds to catch up with after a suspend: the rest is skipped
PUBLISH_S = 0.01
_NOISE = 12  # sub-stream of the seed


class BenchOptions(SampleOptions):
    """The sample that is the cell, and how it is read."""

    speed: Positive = 1.0
    """Seconds that the cell ages in one of the device's, which are the host's: a cell of so much less capacity."""
    world: str = ""
    """Path of the file that the simulated camera attaches to; empty: nobody looks."""
    voltage_noise_v: NotNegative = 5e-5
    current_noise_ma: NotNegative = 1e-4


class BenchCell:
    """An electrode on a device whose clock is the host's, from 0 on; the electrode's own may run faster."""

    def __init__(self, options: BenchOptions, longest_leap_s: float = LONGEST_LEAP_S) -> None:
        self._longest_leap_s = longest_leap_s
        sample_options = SampleOptions(**{name: getattr(options, name) for name in SampleOptions.model_fields})
        self._options = options
        self.electrode = Electrode(make_sample(sample_options))
        self.electrode.advance(1e-3)  # compiles the physics before its clock starts
        self.electrode.t_s = 0.0
        self._noise = stream(options.seed, _NOISE)
        self._t_s = 0.0
        self._anchor_t = time.monotonic()
        self._published_t = 0.0
        self._writer: WorldWriter | None = None
        if options.world:
            clock_id = f"twin-{options.seed}-{os.getpid()}-{time.monotonic_ns():x}"
            self._writer = WorldWriter(Path(options.world), sample_options, clock_id, self._state())

    @property
    def t_s(self) -> float:
        """The device's clock."""
        return self._t_s

    def due_s(self, now_s: float) -> float:
        """The device's clock at `now_s` (`time.monotonic()`); time in which the host slept is left out."""
        due_s = now_s - self._anchor_t
        behind_s = max(due_s - self._t_s - self._longest_leap_s, 0.0)
        self._anchor_t += behind_s
        return due_s - behind_s

    def host_s(self, t_s: float) -> float:
        """`time.monotonic()` at which the device's clock shows `t_s`."""
        return self._anchor_t + t_s

    def advance(self, t_s: float) -> None:
        """Let time pass until the device's clock shows `t_s`."""
        self.electrode.advance(max(t_s - self._t_s, 0.0) * self._options.speed)
        self.electrode.events.clear()
        self._t_s = max(t_s, self._t_s)

    def read(self) -> tuple[float, float]:
        """Voltage (V) and current (mA) now, with the noise of a reading."""
        noise = self._noise.standard_normal(2)
        voltage_v = self.electrode.voltage_v + self._options.voltage_noise_v * noise[0]
        current_ma = self.electrode.current_ma + self._options.current_noise_ma * noise[1] if self.flowing else 0.0
        return float(voltage_v), float(current_ma)

    @property
    def flowing(self) -> bool:
        """Whether the circuit is closed."""
        return self.electrode.mode != 0

    def publish(self, now_s: float) -> None:
        """Show the camera where the electrode is, a hundred times a second at most."""
        if self._writer is not None and now_s - self._published_t >= PUBLISH_S:
            self._published_t = now_s
            self._writer.publish(self._state())

    def _state(self) -> WorldState:
        electrode, speed = self.electrode, self._options.speed
        particles = electrode.state.copy()
        particles.c_rate *= speed
        particles.crack_t_s /= speed
        return WorldState(
            t_s=self._t_s,
            host_t_s=self.host_s(self._t_s),
            speed=1.0,
            mode=electrode.mode,
            voltage_v=electrode.voltage_v,
            current_ma=electrode.current_ma,
            closed=False,
            particles=particles,
        )

    def close(self) -> None:
        """Remove the world file; idempotent."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None
