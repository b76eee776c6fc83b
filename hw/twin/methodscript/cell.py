"""The cell on an emulated MethodSCRIPT potentiostat, and what scripts set."""

from __future__ import annotations

from typing import Literal

from hw.twin.bench import BenchCell, BenchOptions
from hw.twin.settings import Positive


class DeviceOptions(BenchOptions):
    """An emulated device and its cell."""

    model: Literal["es4_hr", "es4_lr", "mes4hr", "nexus1", "espico", "senswb", "espbl"] = "es4_hr"
    serial: str = "ES4HR0001"
    speed: Positive = 1.0
    """Device seconds that pass in one second of the host."""
    output_bytes: int = 65536
    """What the device holds of its output until the host takes it; when full, its script waits."""
    script_bytes: int = 16384


class TwinCell(BenchCell):
    """A cell with the set points that scripts give it."""

    def __init__(self, options: DeviceOptions, max_current_ma: float) -> None:
        super().__init__(options, clock_rate=options.speed)
        self._max_current_ma = max_current_ma
        self.on = False
        self.drive = "galvanostatic"
        self.set_a = self.set_v = 0.0
        self.stuck_on = False
        """A fault: the circuit does not open any more."""

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
