"""A world without a potentiostat process: one electrode that cycles by itself, for one camera."""

from __future__ import annotations

import os
import time

from hw.twin.cycler import Cycler
from hw.twin.electrode import Electrode
from hw.twin.sample import make_sample
from hw.twin.settings import SampleOptions
from hw.twin.world import WorldState


class PrivateWorld:
    """Has the face of a `WorldReader`; its time passes when it is read."""

    def __init__(self, options: SampleOptions, c_rate: float, speed: float) -> None:
        only = SampleOptions(**{name: getattr(options, name) for name in SampleOptions.model_fields})
        self.sample = make_sample(only)
        self._cycler = Cycler(Electrode(self.sample), c_rate)
        self._cycler.advance(1e-3)  # compiles the physics before its clock starts
        self._speed = speed
        self._anchor_t = time.monotonic()
        self.clock_id = f"twin-{options.seed}-{os.getpid()}-{time.monotonic_ns():x}"

    def read(self) -> WorldState:
        """The state of this moment."""
        electrode, now = self._cycler.electrode, time.monotonic()
        self._cycler.advance(max((now - self._anchor_t) * self._speed - electrode.t_s, 0.0))
        electrode.events.clear()
        return WorldState(
            t_s=electrode.t_s,
            host_t_s=self._anchor_t + electrode.t_s / self._speed,
            speed=self._speed,
            mode=electrode.mode,
            voltage_v=electrode.voltage_v,
            current_ma=electrode.current_ma,
            closed=False,
            particles=electrode.state,
        )

    def close(self) -> None:
        """Nothing to leave."""
