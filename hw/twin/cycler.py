"""A cell that cycles by itself, where no potentiostat drives it."""

from __future__ import annotations

from hw.twin.electrode import Electrode

WINDOW_V = {"nmc": (3.2, 4.25), "lfp": (2.8, 3.7), "lco": (3.2, 4.2), "graphite": (2.7, 3.37)}
"""Voltages between which each material's cell is cycled."""
LOOK_S = 1.0  # how late a voltage limit may be noticed, simulated seconds


class Cycler:
    """Rests, charges, rests, discharges with constant current between the voltages of the material's window, for ever.

    `c_rate` 0 only rests.
    """

    def __init__(self, electrode: Electrode, c_rate: float, rest_s: float = 0.0) -> None:
        self.electrode = electrode
        self._current_ma = c_rate * electrode.sample.options.capacity_mah
        self._low_v, self._high_v = WINDOW_V[electrode.sample.options.material]
        self._rest_s = rest_s
        self._charging = False
        self._go_on_t_s: float | None = electrode.t_s + rest_s

    def advance(self, duration_s: float) -> None:
        """Let simulated time pass, turning the current round at the ends."""
        end_s = self.electrode.t_s + duration_s
        while self.electrode.t_s < end_s:
            self._decide()
            until_s = min(end_s, self.electrode.t_s + LOOK_S)
            if self._go_on_t_s is not None and self.electrode.t_s < self._go_on_t_s:
                until_s = min(until_s, self._go_on_t_s)
            self.electrode.advance(until_s - self.electrode.t_s)

    def _decide(self) -> None:
        if not self._current_ma:
            return
        electrode = self.electrode
        if self._go_on_t_s is not None:
            if electrode.t_s >= self._go_on_t_s:
                self._go_on_t_s, self._charging = None, not self._charging
                electrode.set_current(self._current_ma if self._charging else -self._current_ma)
        elif electrode.voltage_v >= self._high_v if self._charging else electrode.voltage_v <= self._low_v:
            electrode.rest()
            self._go_on_t_s = electrode.t_s + self._rest_s
            if not self._rest_s:
                self._decide()
