"""What can happen on the ways through a script, by the emulated device's own reading of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hw.twin.methodscript.interpreter import Interpreter, _Break
from hw.twin.methodscript.parse import MEASUREMENTS, Node, Script


@dataclass
class PlainCell:
    """A cell of one capacity and one resistance, whose time passes only when it is told to."""

    open_v: float = 3.6
    ohm: float = 100.0
    farad: float = 1.0
    t_s: float = 0.0
    on: bool = False
    drive: str = "galvanostatic"
    set_a: float = 0.0
    set_v: float = 0.0
    log: list[tuple[float, float, float, bool]] = field(default_factory=list)
    """Time, voltage, current and whether the circuit is closed, at every reading."""

    @property
    def current_a(self) -> float:
        if not self.on:
            return 0.0
        return self.set_a if self.drive == "galvanostatic" else (self.set_v - self.open_v) / self.ohm

    def advance(self, t_s: float) -> None:
        while self.t_s < t_s:
            step_s = min(t_s - self.t_s, 0.02 * self.ohm * self.farad)
            self.open_v += self.current_a * step_s / self.farad
            self.t_s += step_s

    def apply(self) -> None: ...

    def switch(self, on: bool) -> None:
        self.on = on

    def read(self) -> tuple[float, float]:
        voltage_v = self.open_v + self.ohm * self.current_a
        self.log.append((self.t_s, voltage_v, self.current_a, self.on))
        return voltage_v, 1e3 * self.current_a


def ends(script: Script) -> set[bool]:
    """Whether the cell is on at the end of each way through, also of those on which it is aborted anywhere."""
    seen: set[bool] = set()
    after = _through(script.body, {False}, seen)
    starts = {on for _, on in after} | seen
    return {on for _, on in _through(script.on_finished, starts, set())}


def _through(nodes: list[Node], states: set[bool], seen: set[bool]) -> set[tuple[str, bool]]:
    """How a block ends (`next`, or `break` out of a loop) and with which state; `seen` gets every state on the way."""
    out: set[tuple[str, bool]] = set()
    for node in nodes:
        seen |= states
        if node.name == "cell_on":
            states = {True}
        elif node.name == "cell_off":
            states = {False}
        elif node.name == "breakloop":
            return out | {("break", on) for on in states}
        elif node.name == "abort":
            return out
        elif node.name == "if":
            ways = _through(node.body, states, seen) | _through(node.otherwise, states, seen)
            out |= {way for way in ways if way[0] == "break"}
            states = {on for how, on in ways if how == "next"}
        elif node.name == "loop" or node.name in MEASUREMENTS:
            if node.name in MEASUREMENTS:
                assert states == {node.name != "meas_loop_ocp"}, f"{node.name} with the cell {states}"
            states = states | {on for _, on in _through(node.body, states, seen)}
        if not states:
            return out
    seen |= states
    return out | {("next", on) for on in states}


def loops(nodes: list[Node]) -> list[Node]:
    """All measurement loops."""
    found = []
    for node in nodes:
        found += [node] if node.name in MEASUREMENTS else []
        found += loops(node.body) + loops(node.otherwise)
    return found


def leaves(script: Script, loop: Node, **numbers: float) -> bool:
    """Whether one pass through the loop's body leaves it, with these readings; other variables are 0."""
    run = Interpreter(script, PlainCell(), galvanostat=True, window_v=10.0)
    run._numbers |= {"x": 0, "n": 0, "f": 0, "w": 1.0} | numbers
    run._do_timer_get = lambda node: None
    run._measuring = True
    try:
        for _ in run._block(loop.body):
            pass
    except _Break:
        return True
    return False


def play(script: Script, cell: PlainCell, most: int = 2_000_000) -> list[str]:
    """Run a script to its end; the lines it sends."""
    lines = []
    for _, item in zip(range(most), Interpreter(script, cell, galvanostat=True, window_v=10.0).run(), strict=False):
        if isinstance(item, str):
            lines.append(item)
        else:
            cell.advance(item)
    assert lines[-1] == ""
    return lines
