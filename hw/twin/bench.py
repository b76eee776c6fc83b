"""The twin's cell on the terminals of an emulated device: electrode and clock, shown to the simulated camera."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from hw.twin.electrode import Electrode
from hw.twin.sample import make_sample, stream
from hw.twin.settings import NotNegative, SampleOptions
from hw.twin.world import WorldState, WorldWriter

LONGEST_LEAP_S = 60.0  # host seconds to catch up with: nobody asked, or the machine slept. The rest is skipped
PUBLISH_S = 0.01
_NOISE = 12  # sub-stream of the seed


class BenchOptions(SampleOptions):
    """The sample that is the cell, and how it is read."""

    world: str = ""
    """Path of the file that the simulated camera attaches to; empty: nobody looks."""
    voltage_noise_v: NotNegative = 5e-5
    current_noise_ma: NotNegative = 1e-4


class BenchCell:
    """An electrode on a device's terminals, whose clock starts at 0.

    `clock_rate`: device seconds in one of the host's. `ageing`: the cell's seconds in one of the device's, which is a
    cell of so much less capacity.
    """

    def __init__(
        self,
        options: BenchOptions,
        *,
        clock_rate: float = 1.0,
        ageing: float = 1.0,
        longest_leap_s: float = LONGEST_LEAP_S,
    ) -> None:
        sample_options = SampleOptions(**{name: getattr(options, name) for name in SampleOptions.model_fields})
        self._options = options
        self._clock_rate, self._ageing = clock_rate, ageing
        self._longest_leap_s = longest_leap_s
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
        due_s = (now_s - self._anchor_t) * self._clock_rate
        behind_s = max(due_s - self._t_s - self._longest_leap_s * self._clock_rate, 0.0)
        self._anchor_t += behind_s / self._clock_rate
        return due_s - behind_s

    def host_s(self, t_s: float) -> float:
        """`time.monotonic()` at which the device's clock shows `t_s`."""
        return self._anchor_t + t_s / self._clock_rate

    def advance(self, t_s: float) -> None:
        """Let time pass until the device's clock shows `t_s`."""
        self.electrode.advance(max(t_s - self._t_s, 0.0) * self._ageing)
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
        electrode, ageing = self.electrode, self._ageing
        particles = electrode.state.copy()
        particles.c_rate *= ageing
        particles.crack_t_s /= ageing
        return WorldState(
            t_s=self._t_s,
            host_t_s=self.host_s(self._t_s),
            speed=self._clock_rate,
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
