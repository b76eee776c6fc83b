"""From a running script's data packages to samples: which mode, which time, and why it ended."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hw.potentiostat.contract import CellMode, CellSample
from hw.potentiostat.methodscript.packets import Packet
from hw.potentiostat.methodscript.scripts import Ended, Window

SHORTEST_GAP_S = 1e-3


class Clock:
    """The device's time over all scripts, each of which begins at 0 anew: the host's clock bridges the gaps between.

    Starts at 0 and never runs back from one script to the next.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._base_s: float | None = None
        self._last: tuple[float, float] | None = None

    def begin(self) -> None:
        """A script begins."""
        self._base_s = None

    def stamp(self, script_t_s: float, host_t_s: float) -> float:
        """Device time of a package that says `script_t_s` and came at `host_t_s`."""
        if self._base_s is None:
            begins_s = 0.0 if self._last is None else self._last[0] + self._gap(host_t_s - self._last[1])
            self._base_s = begins_s - script_t_s
        stamp_s = self._base_s + script_t_s
        if math.isfinite(stamp_s):
            self._last = (stamp_s, host_t_s)
        return stamp_s

    def arrival(self, host_t_s: float) -> float:
        """In place of a script's time, where it gives none."""
        return host_t_s * self._rate

    def _gap(self, host_s: float) -> float:
        return max(host_s * self._rate, SHORTEST_GAP_S)


@dataclass
class Run:
    """One script on the device."""

    mode: CellMode
    window: Window
    ours: bool = True
    """Whether it was written here: then its times and its last words are known."""
    ended: Ended | None = None

    def sample(self, packet: Packet, host_t_s: float, clock: Clock) -> CellSample | None:
        """The reading of a data package; None when it carries none."""
        flag = packet.number("ja")
        if flag is not None:
            self.ended = _ended(flag)
            if self.ended is Ended.ABORTED:
                return None  # its readings came before
        voltage_v, current_a, t_s = packet.number("ab"), packet.number("ba"), packet.number("eb")
        if voltage_v is None or (self.ours and t_s is None):
            return None
        script_t_s = t_s if self.ours and t_s is not None else clock.arrival(host_t_s)
        return CellSample(
            device_t_s=clock.stamp(script_t_s, host_t_s),
            host_t_s=host_t_s,
            voltage_v=voltage_v,
            current_ma=0.0 if current_a is None else current_a * 1e3,
            mode=self.mode,
            stopped_by=self._stopped_by(voltage_v, current_a) if self.ours else "",
        )

    def _stopped_by(self, voltage_v: float, current_a: float | None) -> str:
        """The limit, when one of the window made the device open the circuit; ends of steps are the host's to judge."""
        window, current_ma = self.window, math.nan if current_a is None else current_a * 1e3
        if self.ended is Ended.MAX_VOLTAGE:
            return f"max_voltage_v = {window.max_voltage_v:g} was passed: {voltage_v:.6g}"
        if self.ended is Ended.MIN_VOLTAGE:
            return f"min_voltage_v = {window.min_voltage_v:g} was passed: {voltage_v:.6g}"
        if self.ended is Ended.MAX_CURRENT:
            return f"max_current_ma = {window.max_current_ma:g} was passed: {current_ma:.6g}"
        return "a reading was no number" if self.ended is Ended.NO_NUMBER else ""


def _ended(flag: float) -> Ended:
    try:
        return Ended(int(flag))
    except ValueError:
        return Ended.NO_NUMBER


def found_mode(packets: list[Packet]) -> CellMode:
    """What the packages of a script found running show: the set point of ours, or a current; else open circuit.

    A script that has sent none yet counts as driving.
    """
    if not packets:
        return CellMode.GALVANOSTATIC
    last = packets[-1]
    if last.number("da") is not None and last.number("ba") is not None:
        return CellMode.POTENTIOSTATIC
    if last.number("ba") is not None or last.number("ab") is None:
        return CellMode.GALVANOSTATIC  # of a stranger nothing is known: on is what has to be seen to
    return CellMode.OFF
