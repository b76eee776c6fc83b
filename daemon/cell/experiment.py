"""Steps in the wording PyBaMM made common, from text to typed values and back.

``Charge at 1C until 4.2 V``, ``Discharge at C/20 for 10 hours or until 3.0 V``, ``Hold at 4.2 V until C/50``,
``Rest for 1 hour``: an action, then at least one end. Beyond PyBaMM: several ends of different kinds, ends by charge
(``until 0.1 mAh``), microamperes, any letter case. A recording period (``(5 minute period)``) is accepted and has no
effect, because every sample is recorded.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal

from daemon.errors import ExperimentError, ExperimentReason

MAX_TEXT = 200  # the longest sensible step has about 80 characters
MAX_QUOTED = 80

Action = Literal["charge", "discharge", "hold", "rest"]

_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?"
_QUANTITY = re.compile(rf"({_NUMBER}) ?([a-zμω%.°]+)")
_C_FRACTION = re.compile(rf"c ?/ ?({_NUMBER})")
_CLAUSE = re.compile(r" (?:or )?(for|until) ")
_HEAD = re.compile(r"(charge|discharge|hold|rest)(?: at (.+))?")
_PERIOD = re.compile(r" ?\(([^()]*) period\)$")
_TEMPERATURE = re.compile(rf" at ({_NUMBER} ?(?:oc|°c|degc|celsius|k))(?: |$)")

_UNITS: dict[str, tuple[str, float]] = {
    "c": ("rate", 1.0),
    "a": ("current", 1e3),
    "ma": ("current", 1.0),
    "ua": ("current", 1e-3),
    "μa": ("current", 1e-3),
    "v": ("voltage", 1.0),
    "mv": ("voltage", 1e-3),
    "ah": ("charge", 1e3),
    "a.h": ("charge", 1e3),
    "mah": ("charge", 1.0),
    "ma.h": ("charge", 1.0),
    "uah": ("charge", 1e-3),
    "μah": ("charge", 1e-3),
} | {
    unit: ("time", seconds)
    for seconds, units in (
        (1.0, ("s", "sec", "secs", "second", "seconds")),
        (60.0, ("m", "min", "mins", "minute", "minutes")),
        (3600.0, ("h", "hr", "hrs", "hour", "hours")),
    )
    for unit in units
}
_REFUSED_UNITS = {
    "power": ("w", "mw", "uw", "μw", "kw"),
    "resistance": ("ohm", "ohms", "mohm", "kohm", "ω", "mω", "kω"),
    "state of charge": ("%", "percent"),
}


@dataclass(frozen=True)
class Current:
    """A magnitude of current: milliamperes, or a multiple of the capacity per hour (C)."""

    value: float
    unit: Literal["mA", "C"]

    def in_ma(self, capacity_mah: float | None) -> float | None:
        """Milliamperes; None for a C-rate without a capacity."""
        if self.unit == "mA":
            return self.value
        return None if capacity_mah is None else self.value * capacity_mah

    def __str__(self) -> str:
        if self.unit == "mA":
            return f"{_plain(self.value)} mA"
        divisor = round(1 / self.value) if self.value < 1 and 1 / self.value < 1e9 else 1
        return f"C/{divisor}" if divisor > 1 and 1 / divisor == self.value else f"{_plain(self.value)}C"


@dataclass(frozen=True)
class Ends:
    """What ends a step; the first one met does. None where a kind of end was not asked for."""

    duration_s: float | None = None
    voltage_v: float | None = None
    current: Current | None = None
    """The magnitude that a hold's current has to fall to."""
    charge_mah: float | None = None

    def __str__(self) -> str:
        clauses = [] if self.duration_s is None else [f"for {_duration(self.duration_s)}"]
        if self.voltage_v is not None:
            clauses.append(f"until {_plain(self.voltage_v)} V")
        if self.current is not None:
            clauses.append(f"until {self.current}")
        if self.charge_mah is not None:
            clauses.append(f"until {_plain(self.charge_mah)} mAh")
        return " or ".join(clauses)


@dataclass(frozen=True)
class Step:
    """One step. `current` is set for charge and discharge, `voltage_v` for hold; ``str()`` parses to the same step."""

    kind: Action
    ends: Ends
    current: Current | None = None
    voltage_v: float | None = None

    def __str__(self) -> str:
        at = f" at {self.current}" if self.current else ""
        if self.voltage_v is not None:
            at = f" at {_plain(self.voltage_v)} V"
        return f"{self.kind.capitalize()}{at} {self.ends}"


def parse_experiment(texts: Iterable[str]) -> tuple[Step, ...]:
    """Every step, in order. Raises `ExperimentError` naming the first faulty step by its number, counted from 1."""
    return tuple(parse_step(text, number) for number, text in enumerate(texts, start=1))


def parse_step(text: str, number: int = 1) -> Step:
    """One step from its sentence. Raises `ExperimentError`: step number, text and what is wrong."""
    try:
        return _parse(_normalised(text))
    except _Refusal as refusal:
        what = str(refusal) if str(refusal).isprintable() else ascii(str(refusal))[1:-1]
        raise ExperimentError(refusal.reason, f"{step_name(number, text)}: {what}") from None


def step_name(number: int, text: str) -> str:
    """How error messages name a step; long or odd text is cut and escaped."""
    quoted = ascii(text) if not text.isprintable() else f"'{text}'"
    return f"step {number} ({quoted if len(quoted) <= MAX_QUOTED else quoted[: MAX_QUOTED - 4] + '...' + quoted[-1]})"


class _Refusal(Exception):
    def __init__(self, reason: ExperimentReason, what: str) -> None:
        super().__init__(what)
        self.reason = reason


def _syntax(what: str) -> _Refusal:
    return _Refusal(ExperimentReason.SYNTAX, what)


def _bad(what: str) -> _Refusal:
    return _Refusal(ExperimentReason.BAD_VALUE, what)


def _unsupported(what: str) -> _Refusal:
    return _Refusal(ExperimentReason.UNSUPPORTED, what)


def _normalised(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise _syntax(f"a step has at most {MAX_TEXT} characters, this one has {len(text)}")
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def _parse(text: str) -> Step:
    text = _without_period(text)
    if temperature := _TEMPERATURE.search(text):
        raise _unsupported(f"this instrument cannot set a temperature ('at {temperature[1]}')")
    head, *clauses = _CLAUSE.split(text)
    action, at = _action(head)
    if action == "rest":
        return Step("rest", _ends(action, clauses))
    if action == "hold":
        voltage_v = _quantity(at, "hold", "voltage").value
        return Step("hold", _ends(action, clauses), voltage_v=voltage_v)
    current = _current(at, action)
    return Step(action, _ends(action, clauses), current=current)


def _without_period(text: str) -> str:
    found = _PERIOD.search(text)
    if not found:
        return text
    period = found[1] if found[1][:1].isdigit() else f"1 {found[1]}"
    if _quantity(period, "period", "time").value <= 0:
        raise _bad("a recording period must be longer than nothing")
    return text[: found.start()]


def _action(head: str) -> tuple[Action, str]:
    """The verb and what follows ``at`` (empty for a rest)."""
    found = _HEAD.fullmatch(head)
    if found is None:
        raise _no_action(head)
    action, at = found[1], found[2] or ""
    if action == "rest" and at:
        raise _syntax("a rest has no current or voltage")
    if action != "rest" and not at:
        raise _syntax(f"{action} at which {'voltage' if action == 'hold' else 'current'}?")
    return action, at  # type: ignore[return-value]  # the pattern knows only actions


def _no_action(head: str) -> _Refusal:
    if not head:
        return _syntax("it is empty")
    first = head.split(" ", maxsplit=1)[0]
    if first == "run":
        return _unsupported("drive cycles cannot be run")
    if first in ("charge", "discharge", "hold", "rest"):
        return _syntax(f"'{head[len(first) :].strip()}' is not understood after '{first}'")
    return _syntax(f"it begins with '{first}', not with Charge, Discharge, Hold or Rest")


@dataclass(frozen=True)
class _Quantity:
    value: float
    """In mA, V, mAh, s, or multiples of C."""
    dimension: str


def _quantity(text: str, where: str, *expected: str) -> _Quantity:
    """A number with its unit. Raises `_Refusal` naming `where` it stood and what was `expected` there."""
    wanted = " or a ".join("current" if name == "rate" else name for name in expected if name != "current")
    wanted = wanted or "current"
    if fraction := _C_FRACTION.fullmatch(text):
        divisor = _finite(fraction[1], text)
        if divisor <= 0:
            raise _bad(f"'{text}' divides by nothing" if divisor == 0 else f"'{text}' is negative")
        found = _Quantity(1 / divisor if divisor > 1e-300 else math.inf, "rate")
    else:
        found = _number_and_unit(text, where, wanted)
    if found.dimension not in expected:
        raise _bad(f"{where} takes a {wanted}, '{text}' is a {_called(found.dimension)}")
    if not math.isfinite(found.value):
        raise _bad(f"'{text}' is too large")
    return found


def _number_and_unit(text: str, where: str, wanted: str) -> _Quantity:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise _syntax(f"{where} takes a {wanted} with its unit, '{text}' is none")
    unit = match[2]
    for refused, units in _REFUSED_UNITS.items():
        if unit in units:
            raise _unsupported(f"this instrument controls current or voltage, '{text}' is a {refused}")
    if unit not in _UNITS:
        raise _syntax(f"'{unit}' is not a unit of {wanted} ('{text}')")
    dimension, factor = _UNITS[unit]
    return _Quantity(_finite(match[1], text) * factor, dimension)


def _finite(number: str, text: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise _bad(f"'{text}' is too large")
    return value


def _called(dimension: str) -> str:
    return {"rate": "current"}.get(dimension, dimension)


def _current(text: str, where: str) -> Current:
    found = _quantity(text, where, "current", "rate")
    if found.value <= 0:
        hint = "write 'Rest' for no current" if found.value == 0 else "the verb gives the direction"
        raise _bad(f"the current must be positive, '{text}' is not; {hint}")
    return Current(found.value, "C" if found.dimension == "rate" else "mA")


def _ends(action: Action, clauses: list[str]) -> Ends:
    """The ends from alternating keywords and values."""
    if not clauses:
        raise _Refusal(ExperimentReason.UNBOUNDED, f"this {action} never ends")
    ends = Ends()
    for keyword, text in zip(clauses[::2], clauses[1::2], strict=True):
        one = _duration_end(text) if keyword == "for" else _state_end(action, text)
        ends = _merged(ends, one)
    if action == "rest" and ends.duration_s is None:
        raise _Refusal(ExperimentReason.UNBOUNDED, "a rest ends by time only")
    return ends


def _duration_end(text: str) -> Ends:
    seconds = _quantity(text, "'for'", "time").value
    if seconds <= 0:
        raise _bad(f"a step must take longer than nothing, '{text}' does not")
    return Ends(duration_s=seconds)


def _state_end(action: Action, text: str) -> Ends:
    if action == "rest":
        raise _syntax("a rest ends by time only")
    allowed = ("current", "rate", "charge") if action == "hold" else ("voltage", "charge")
    found = _quantity(text, f"'until' of a {action}", *allowed)
    if found.dimension == "voltage":
        return Ends(voltage_v=found.value)
    if found.value <= 0:
        raise _bad(f"the end must be positive, '{text}' is not")
    if found.dimension == "charge":
        return Ends(charge_mah=found.value)
    return Ends(current=_current(text, "'until'"))


def _merged(ends: Ends, more: Ends) -> Ends:
    new = {field.name: value for field in fields(Ends) if (value := getattr(more, field.name)) is not None}
    if any(getattr(ends, name) is not None for name in new):
        raise _syntax("it has two ends of the same kind")
    return replace(ends, **new)


def _plain(value: float) -> str:
    """The shortest text that reads back as the same number."""
    text = repr(value)
    return text.removesuffix(".0")


def _duration(seconds: float) -> str:
    for name, factor in (("hour", 3600.0), ("minute", 60.0)):
        count = seconds / factor
        if count >= 1 and count == int(count) and count * factor == seconds:
            return f"{_plain(count)} {name}{'' if count == 1 else 's'}"
    return f"{_plain(seconds)} second{'' if seconds == 1 else 's'}"
