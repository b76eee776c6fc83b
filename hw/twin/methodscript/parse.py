"""The device's reading of a script: text to a tree, or an error code with line and column.

Shares nothing with the driver that writes scripts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_LINE = 255
MAX_DEPTH = 8
MAX_VARIABLES = 32
UNITS = {
    "": 0, "a": -18, "f": -15, "p": -12, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip
MEASUREMENTS = {"meas_loop_ocp": (3, "000B"), "meas_loop_ca": (5, "0007"), "meas_loop_cp": (5, "000A")}
"""Measurement loop -> how many arguments it takes, and what its mark says."""
COMMANDS = {
    "var": 1, "store_var": 3, "copy_var": 2, "add_var": 2, "sub_var": 2, "mul_var": 2, "div_var": 2, "mod_var": 2,
    "int_to_float": 1, "float_to_int": 1, "alter_vartype": 2, "wait": 1, "set_int": 1, "await_int": 0,
    "timer_start": 0, "timer_get": 1, "set_pgstat_chan": 1, "set_pgstat_mode": 1, "set_max_bandwidth": 1,
    "set_range": 2, "set_range_minmax": 3, "set_autoranging": 3, "set_e": 1, "set_i": 1,
    "set_acquisition_frac_autoadjust": 1, "cell_off": 0, "meas": 3, "pck_start": 0, "pck_add": 1, "pck_end": 0,
    "send_string": 1, "breakloop": 0, "abort": 0,
}  # fmt: skip
"""Command -> how many arguments it takes."""
OPERATORS = ("<", ">", "<=", ">=", "==", "!=")
_NUMBER = re.compile(r"(-?\d+)([afpnumkMGTPE]?)$")
_WHOLE = re.compile(r"(?:(-?\d+)|0x([0-9A-Fa-f]+)|0b([01]+))i$")
_NAME = re.compile(r"[A-Za-z_]\w*$")
_TOKEN = re.compile(r'"[^"]*"|\S+')
_ALLOWED = re.compile(r"[\x09\x20-\x7e]*$")


class ScriptError(Exception):
    """What the device answers instead of running a script."""

    def __init__(self, code: str, line: int, column: int) -> None:
        super().__init__(f"{code}: Line {line}, Col {column}")
        self.code, self.line, self.column = code, line, column


@dataclass
class Node:
    """One command; `body` and `otherwise` where it opens a block."""

    name: str
    args: list[str]
    line: int
    body: list[Node] = field(default_factory=list)
    otherwise: list[Node] = field(default_factory=list)


@dataclass
class Script:
    """What runs, and what runs at its end or when it is aborted."""

    body: list[Node]
    on_finished: list[Node]


def literal(text: str) -> float | int | None:
    """The number that a literal means: an int of those with ``i``; None for anything else."""
    if whole := _WHOLE.match(text):
        decimal, hexadecimal, binary = whole.groups()
        return int(decimal) if decimal else int(hexadecimal, 16) if hexadecimal else int(binary, 2)
    if number := _NUMBER.match(text):
        power = UNITS[number[2]]
        return int(number[1]) / 10**-power if power < 0 else float(int(number[1]) * 10**power)
    return None


def parse(text: str) -> Script:
    """Raises `ScriptError`."""
    return _Parser(text.split("\n")).script()


class _Parser:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0
        self._variables: set[str] = set()
        self._measuring = False

    def script(self) -> Script:
        body, end = self._block(0, ("on_finished:",))
        finished: list[Node] = []
        if end is not None:
            finished, _ = self._block(0, ())
        return Script(body, finished)

    def _block(self, depth: int, ends: tuple[str, ...]) -> tuple[list[Node], list[tuple[str, int]] | None]:
        """Nodes up to a line that begins with one of `ends`, and that line's words; None at the end of the text."""
        nodes: list[Node] = []
        if depth > MAX_DEPTH:
            raise ScriptError("400D", self._at, 1)
        while self._at < len(self._lines):
            words = self._words(self._lines[self._at])
            self._at += 1
            if not words:
                continue
            if words[0][0] in ends:
                return nodes, words
            nodes.append(self._node(words, depth))
        if depth:
            raise ScriptError("4018", self._at, 1)
        return nodes, None

    def _words(self, line: str) -> list[tuple[str, int]]:
        number = self._at + 1
        if len(line) > MAX_LINE:
            raise ScriptError("0008", number, MAX_LINE)
        if not _ALLOWED.match(line):
            raise ScriptError("4004", number, next(i for i, c in enumerate(line, 1) if not _ALLOWED.match(c)))
        return [(found[0], found.start() + 1) for found in _TOKEN.finditer(line.split("#", maxsplit=1)[0])]

    def _node(self, words: list[tuple[str, int]], depth: int) -> Node:
        name, column = words[0]
        node = Node(name, [text for text, _ in words[1:]], self._at)
        if name in MEASUREMENTS:
            return self._measurement(node, words, depth)
        if name == "loop":
            self._condition(node, words)
            node.body, _ = self._block(depth + 1, ("endloop",))
            return node
        if name == "if":
            return self._choice(node, words, depth)
        if name == "cell_on":
            if len(words) > 2:
                raise ScriptError("0007", self._at, words[2][1])
            return node
        if name not in COMMANDS:
            raise ScriptError("4001", self._at, column)
        if len(node.args) != COMMANDS[name]:
            raise ScriptError("0007", self._at, words[-1][1])
        self._check(node, words)
        return node

    def _check(self, node: Node, words: list[tuple[str, int]]) -> None:
        if node.name == "var":
            if node.args[0] in self._variables:
                raise ScriptError("4026", self._at, words[1][1])
            if not _NAME.match(node.args[0]):
                raise ScriptError("0007", self._at, words[1][1])
            self._variables.add(node.args[0])
            if len(self._variables) > MAX_VARIABLES:
                raise ScriptError("0024", self._at, words[1][1])
            return
        kinds = {"store_var": (2,), "meas": (2,), "set_range": (0,), "set_range_minmax": (0,), "set_autoranging": (0,)}
        skipped = (1,) if node.name == "alter_vartype" else kinds.get(node.name, ())
        for place, (text, column) in enumerate(words[1:]):
            if place not in skipped and node.name != "send_string":
                self._known(text, column)

    def _known(self, text: str, column: int) -> None:
        if literal(text) is None and text not in self._variables:
            raise ScriptError("420B" if _NAME.match(text) else "0007", self._at, column)

    def _condition(self, node: Node, words: list[tuple[str, int]]) -> None:
        if len(node.args) != 3 or node.args[1] not in OPERATORS:
            raise ScriptError("0007", self._at, words[-1][1])
        self._known(*words[1])
        self._known(*words[3])

    def _choice(self, node: Node, words: list[tuple[str, int]], depth: int) -> Node:
        self._condition(node, words)
        node.body, end = self._block(depth + 1, ("elseif", "else", "endif"))
        if end is not None and end[0][0] == "elseif":
            inner = Node("if", [text for text, _ in end[1:]], self._at)
            node.otherwise = [self._choice(inner, end, depth)]
        elif end is not None and end[0][0] == "else":
            node.otherwise, _ = self._block(depth + 1, ("endif",))
        return node

    def _measurement(self, node: Node, words: list[tuple[str, int]], depth: int) -> Node:
        if self._measuring:
            raise ScriptError("400B", self._at, words[0][1])
        if len(node.args) != MEASUREMENTS[node.name][0]:
            raise ScriptError("0007", self._at, words[-1][1])
        for text, column in words[1:]:
            self._known(text, column)
        self._measuring = True
        node.body, _ = self._block(depth + 1, ("endloop",))
        self._measuring = False
        return node
