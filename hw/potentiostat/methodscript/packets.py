"""What a running script sends: data packages, marks of its loops, errors, its end. Pure parsing.

A data package is ``P`` and values separated by ``;``. A value is two letters of kind, seven hexadecimal digits offset
by 2^27, and a letter of the power of ten (``i``: a whole number; five spaces and ``nan``: no number), then
comma-separated metadata: ``1h`` status bits, ``2hh`` the range.
"""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass

OFFSET = 1 << 27
POWERS = {
    "a": -18, "f": -15, "p": -12, "n": -9, "u": -6, "m": -3, " ": 0, "i": 0,
    "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip
OVERLOAD = 0x2
_VALUE = re.compile(r"([a-z]{2})(?:([0-9A-Fa-f]{7})([afpnum kMGTPEi])|     nan)((?:,[0-9A-Za-z]+)*)")
_ERROR = re.compile(r"!([0-9A-Fa-f]{4})(?::\s*(.*))?$")
_MARK = re.compile(r"(?:[L+*-]|[MC][0-9A-Fa-f]*)$")


class PacketError(ValueError):
    """A line that begins like a data package and is none."""


@dataclass(frozen=True)
class Value:
    """One value of a data package; NaN where the device had none."""

    kind: str
    number: float
    status: int = 0
    range_id: int | None = None

    @property
    def overloaded(self) -> bool:
        """The reading stands at the end of its range."""
        return bool(self.status & OVERLOAD)


@dataclass(frozen=True)
class Packet:
    """A data package."""

    values: tuple[Value, ...]

    def number(self, kind: str) -> float | None:
        """The first value of this kind, None without one."""
        return next((value.number for value in self.values if value.kind == kind), None)


@dataclass(frozen=True)
class Mark:
    """A loop begins or ends: ``L`` ``+``, ``M<id>`` ``*``, ``C<n>`` ``-``."""

    text: str


@dataclass(frozen=True)
class Text:
    """What a script said by `send_string`."""

    text: str


@dataclass(frozen=True)
class Fault:
    """The device stopped with an error: four hexadecimal digits and where in the script."""

    code: str
    place: str


@dataclass(frozen=True)
class End:
    """The script ended: an empty line."""


@dataclass(frozen=True)
class Garbage:
    """A line that no script sends."""

    line: bytes
    reason: str


Message = Packet | Mark | Text | Fault | End | Garbage


def parse_line(line: bytes) -> Message:
    """The meaning of one line, without its end. Never raises: what cannot be read is `Garbage`."""
    text = line.decode("ascii", "replace")
    if not text:
        return End()
    return _message(text) or Garbage(line, "no line of a script")


def _message(text: str) -> Message | None:
    if fault := _ERROR.search(text):
        return Fault(fault[1].upper(), (fault[2] or "").strip())
    if text[0] == "P":
        with contextlib.suppress(PacketError):
            return parse_packet(text)
        return None
    if text[0] == "T":
        return Text(text[1:])
    return Mark(text) if _MARK.match(text) else None


def parse_packet(text: str) -> Packet:
    """A line that begins with ``P``. Raises `PacketError`."""
    return Packet(tuple(_value(part) for part in text[1:].split(";")))


def _value(text: str) -> Value:
    found = _VALUE.fullmatch(text)
    if found is None:
        raise PacketError(f"no value: '{text}'")
    kind, digits, power, metadata = found.groups()
    number = math.nan if digits is None else scaled(int(digits, 16) - OFFSET, POWERS[power])
    status, range_id = 0, None
    for token in metadata.split(",")[1:]:
        if token[0] == "1":
            status = _hexadecimal(token[1:])
        elif token[0] == "2":
            range_id = _hexadecimal(token[1:])
    return Value(kind, number, status, range_id)


def _hexadecimal(digits: str) -> int:
    try:
        return int(digits, 16)
    except ValueError:
        raise PacketError(f"no metadata: '{digits}'") from None


def scaled(whole: int, power: int) -> float:
    """whole * 10^power, rounded once: 4.2 V sent as 4200000 u is the float 4.2."""
    return whole / 10**-power if power < 0 else float(whole * 10**power)
