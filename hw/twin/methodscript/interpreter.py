"""Runs a parsed script in the device's time. A generator: it gives times to wait until, and output.

Runtime errors end a script without `on_finished:` and leave the cell as it is; an abort and a normal end run it.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator

from hw.twin.methodscript.cell import TwinCell
from hw.twin.methodscript.parse import MEASUREMENTS, Node, Script, literal
from hw.twin.methodscript.values import encode

SETTLE_S = 1e-3  # a command takes at least this, so that no loop is for ever at one time
MAX_PACKET = 10
_COMPARE = {
    "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_ARITHMETIC = {
    "add_var": operator.add, "sub_var": operator.sub, "mul_var": operator.mul, "div_var": operator.truediv,
    "mod_var": operator.mod,
}  # fmt: skip
CELL_OFF_MODE, HIGH_SPEED, GALVANOSTAT = 0, 3, 6
Number = float | int


class RuntimeFault(Exception):
    """A script fails while it runs."""

    def __init__(self, code: str, line: int) -> None:
        super().__init__(code)
        self.code, self.line = code, line


class _Break(Exception):
    pass


class _Abort(Exception):
    pass


class Interpreter:
    """One run of one script on one cell."""

    def __init__(self, script: Script, cell: TwinCell, *, galvanostat: bool, window_v: float) -> None:
        self._script, self._cell = script, cell
        self._galvanostat, self._window_v = galvanostat, window_v
        self._numbers: dict[str, Number] = {}
        self._kinds: dict[str, str] = {}
        self._mode = HIGH_SPEED
        self._timer_s = 0.0
        self._tick_s, self._next_tick_s = 0.0, 0.0
        self._packet: list[str] | None = None
        self._measuring = False
        self.abort = self.end_loop = self.halted = False
        self.fault: str | None = None
        """Set from outside: a code to fail with at the next command."""

    def run(self) -> Iterator[float | str]:
        """Gives the device's time until which to wait, or a line to send."""
        try:
            try:
                yield from self._block(self._script.body)
            except _Abort:
                self.abort = False
            self._packet, self._measuring = None, False
            yield from self._block(self._script.on_finished)
        except RuntimeFault as fault:
            yield f"!{fault.code}: Line {fault.line}"
        except _Abort:
            self.abort = False
        yield ""

    def _block(self, nodes: list[Node]) -> Iterator[float | str]:
        for node in nodes:
            while self.halted and not self.abort:
                yield self._cell.t_s + 0.01
            if self.abort:
                raise _Abort
            if self.fault is not None:
                code, self.fault = self.fault, None
                raise RuntimeFault(code, node.line)
            yield from self._node(node)

    def _node(self, node: Node) -> Iterator[float | str]:
        if node.name in MEASUREMENTS:
            yield from self._measure(node)
        elif node.name == "if":
            yield from self._block(node.body if self._holds(node) else node.otherwise)
        elif node.name == "loop":
            yield "L"
            with contextlib.suppress(_Break):
                while self._holds(node):
                    yield from self._block(node.body)
                    yield self._cell.t_s + SETTLE_S
            yield "+"
        elif node.name == "breakloop":
            raise _Break
        elif node.name == "abort":
            raise _Abort
        elif node.name in ("wait", "await_int", "meas"):
            yield from self._wait(node)
        elif node.name == "send_string":
            yield f"T{node.args[0].strip(chr(34))}"
        elif node.name == "pck_end":
            if self._packet is None:
                raise RuntimeFault("0006", node.line)
            line, self._packet = "P" + ";".join(self._packet), None
            yield line
        else:
            getattr(self, f"_do_{node.name}")(node)

    # -- numbers ------------------------------------------------------------

    def _number(self, text: str) -> Number:
        number = literal(text)
        return self._numbers.get(text, 0.0) if number is None else number

    def _holds(self, node: Node) -> bool:
        left, compare, right = node.args
        return bool(_COMPARE[compare](self._number(left), self._number(right)))

    def _do_var(self, node: Node) -> None:
        self._numbers[node.args[0]], self._kinds[node.args[0]] = 0.0, "aa"

    def _do_store_var(self, node: Node) -> None:
        name, number, kind = node.args
        self._numbers[name], self._kinds[name] = self._number(number), kind

    def _do_copy_var(self, node: Node) -> None:
        source, target = node.args
        self._numbers[target], self._kinds[target] = self._number(source), self._kinds.get(source, "aa")

    def _do_alter_vartype(self, node: Node) -> None:
        self._kinds[node.args[0]] = node.args[1]

    def _do_int_to_float(self, node: Node) -> None:
        self._numbers[node.args[0]] = float(self._number(node.args[0]))

    def _do_float_to_int(self, node: Node) -> None:
        self._numbers[node.args[0]] = int(self._number(node.args[0]))

    def _calculate(self, node: Node) -> None:
        name, other = node.args
        left, right = self._number(name), self._number(other)
        if node.name in ("div_var", "mod_var") and right == 0:
            raise RuntimeFault("0028", node.line)
        self._numbers[name] = _ARITHMETIC[node.name](left, right)

    _do_add_var = _do_sub_var = _do_mul_var = _do_div_var = _do_mod_var = _calculate

    # -- time ------------------------------------------------------------

    def _wait(self, node: Node) -> Iterator[float | str]:
        if node.name == "await_int":
            self._next_tick_s = max(self._next_tick_s + self._tick_s, self._cell.t_s)
            yield self._next_tick_s
            return
        yield self._cell.t_s + float(self._number(node.args[0]))
        if node.name == "meas":
            voltage_v, current_ma = self._cell.read()
            kind = node.args[2]
            self._numbers[node.args[1]] = voltage_v if kind == "ab" else current_ma / 1e3
            self._kinds[node.args[1]] = kind

    def _do_set_int(self, node: Node) -> None:
        self._tick_s, self._next_tick_s = float(self._number(node.args[0])), self._cell.t_s

    def _do_timer_start(self, node: Node) -> None:
        self._timer_s = self._cell.t_s

    def _do_timer_get(self, node: Node) -> None:
        self._numbers[node.args[0]], self._kinds[node.args[0]] = self._cell.t_s - self._timer_s, "eb"

    # -- the potentiostat ------------------------------------------------------------

    def _do_set_pgstat_chan(self, node: Node) -> None:
        if self._number(node.args[0]) != 0:
            raise RuntimeFault("0007", node.line)

    def _do_set_pgstat_mode(self, node: Node) -> None:
        mode = int(self._number(node.args[0]))
        if mode not in (0, 2, 3, 4, 6) or (mode == GALVANOSTAT and not self._galvanostat):
            raise RuntimeFault("0021", node.line)
        self._mode = mode
        self._cell.drive = "galvanostatic" if mode == GALVANOSTAT else "potentiostatic"
        if mode == CELL_OFF_MODE:
            self._cell.switch(on=False)

    def _not_within(self, node: Node) -> None:
        if self._measuring:
            raise RuntimeFault("4032", node.line)
        for text in node.args[1:]:
            if node.args[0] in ("ab", "da") and abs(self._number(text)) > self._window_v:
                raise RuntimeFault("4205", node.line)

    _do_set_range = _do_set_range_minmax = _do_set_autoranging = _not_within

    def _do_set_max_bandwidth(self, node: Node) -> None:
        if self._number(node.args[0]) <= 0:
            raise RuntimeFault("0007", node.line)

    def _do_set_acquisition_frac_autoadjust(self, node: Node) -> None:
        """No reading here is long enough for mains hum."""

    def _do_set_e(self, node: Node) -> None:
        self._set(node, float(self._number(node.args[0])), galvanostatic=False)

    def _do_set_i(self, node: Node) -> None:
        self._set(node, float(self._number(node.args[0])), galvanostatic=True)

    def _set(self, node: Node, value: float, *, galvanostatic: bool) -> None:
        if self._measuring:
            raise RuntimeFault("4033", node.line)
        if galvanostatic != (self._mode == GALVANOSTAT):
            raise RuntimeFault("0023", node.line)
        if not galvanostatic and abs(value) > self._window_v:
            raise RuntimeFault("000F", node.line)
        if galvanostatic:
            self._cell.set_a = value
        else:
            self._cell.set_v = value
        self._cell.apply()

    def _do_cell_on(self, node: Node) -> None:
        if self._mode == CELL_OFF_MODE:
            raise RuntimeFault("0023", node.line)
        self._cell.switch(on=True)

    def _do_cell_off(self, node: Node) -> None:
        self._cell.switch(on=False)

    # -- measuring and telling ------------------------------------------------------------

    def _measure(self, node: Node) -> Iterator[float | str]:
        self._check_measurement(node)
        interval_s, duration_s = (float(self._number(text)) for text in node.args[-2:])
        yield f"M{MEASUREMENTS[node.name][1]}"
        next_s = end_s = self._cell.t_s
        end_s += duration_s + 1e-9
        self._measuring, self.end_loop = True, False
        while next_s + interval_s <= end_s and not self.end_loop:
            next_s = max(next_s + interval_s, self._cell.t_s)  # one that was held up goes on from where it is
            yield next_s
            self._readings(node)
            try:
                yield from self._block(node.body)
            except _Break:
                break
        self._measuring = False
        yield "*"

    def _check_measurement(self, node: Node) -> None:
        open_circuit = node.name == "meas_loop_ocp"
        if open_circuit and self._cell.on:
            raise RuntimeFault("0014", node.line)
        if not open_circuit and not self._cell.on:
            raise RuntimeFault("4027", node.line)
        if node.name == "meas_loop_cp" and not self._galvanostat:
            raise RuntimeFault("001B", node.line)
        if not open_circuit and (node.name == "meas_loop_cp") != (self._mode == GALVANOSTAT):
            raise RuntimeFault("0023", node.line)
        if node.name == "meas_loop_ca" and abs(self._number(node.args[2])) > self._window_v:
            raise RuntimeFault("000F", node.line)
        if not float(self._number(node.args[-2])) > 0:
            raise RuntimeFault("005A", node.line)
        if node.name == "meas_loop_cp":
            self._cell.set_a = float(self._number(node.args[2]))
        elif node.name == "meas_loop_ca":
            self._cell.set_v = float(self._number(node.args[2]))
        self._cell.apply()

    def _readings(self, node: Node) -> None:
        voltage_v, current_ma = self._cell.read()
        self._numbers[node.args[0]], self._kinds[node.args[0]] = voltage_v, "ab"
        if node.name != "meas_loop_ocp":
            self._numbers[node.args[1]], self._kinds[node.args[1]] = current_ma / 1e3, "ba"

    def _do_pck_start(self, node: Node) -> None:
        self._packet = []

    def _do_pck_add(self, node: Node) -> None:
        if self._packet is None:
            raise RuntimeFault("0006", node.line)
        if len(self._packet) == MAX_PACKET:
            raise RuntimeFault("401C", node.line)
        name = node.args[0]
        kind = self._kinds.get(name, "aa")
        metadata = ",10,288" if kind == "ba" else ",10" if kind == "ab" else ""
        self._packet.append(encode(kind, self._number(name), metadata))
