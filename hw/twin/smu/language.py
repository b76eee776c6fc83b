"""SCPI as an instrument reads it: program messages cut into commands, headers matched long or short, errors queued.

After IEEE 488.2 and SCPI 1999: commands are separated by ``;``, and one that does not begin with ``:`` goes on where
the header before it ended. A mnemonic is written in full or as its capitals.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MOST_ERRORS = 16
UNDEFINED_HEADER = (-113, "Undefined header")
DATA_TYPE = (-104, "Data type error")
MISSING = (-109, "Missing parameter")
TOO_MANY = (-108, "Parameter not allowed")
CONFLICT = (-221, "Settings conflict")
OUT_OF_RANGE = (-222, "Parameter data out of range")
OVERFLOW = (-350, "Queue overflow")
INTERRUPTED = (-410, "Query INTERRUPTED")
UNTERMINATED = (-420, "Query UNTERMINATED")


class ScpiError(Exception):
    """A command is refused: `code` and `text` go to the error queue."""

    def __init__(self, error: tuple[int, str]) -> None:
        super().__init__(error[1])
        self.code, self.text = error


class ErrorQueue:
    """Oldest first; when full the newest is replaced by -350."""

    def __init__(self) -> None:
        self._errors: deque[tuple[int, str]] = deque()

    def add(self, error: tuple[int, str]) -> None:
        """Append one."""
        if len(self._errors) >= MOST_ERRORS:
            self._errors[-1] = OVERFLOW
        else:
            self._errors.append(error)

    def take(self) -> str:
        """The oldest as the instrument tells it; ``0,"No error"`` when there is none."""
        code, text = self._errors.popleft() if self._errors else (0, "No error")
        return f'{code},"{text}"'

    def clear(self) -> None:
        """Forget all."""
        self._errors.clear()

    def __len__(self) -> int:
        return len(self._errors)


@dataclass(frozen=True)
class Command:
    """One command: its header in capitals with the query mark, and its parameters."""

    header: str
    parameters: list[str]


Handler = Callable[[list[str]], Any]
"""Takes the parameters; what it answers, or None."""


class CommandTable:
    """Patterns as the manual prints them, ``SOURce:VOLTage[:LEVel]?``, and what each does."""

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self._handlers = [(_pattern(name), handler) for name, handler in handlers.items()]

    def handler(self, header: str) -> Handler:
        """Raises `ScpiError`."""
        for pattern, handler in self._handlers:
            if pattern.fullmatch(header):
                return handler
        raise ScpiError(UNDEFINED_HEADER)


def _pattern(name: str) -> re.Pattern[str]:
    parts = re.split(r"(\[|\]|:)", name.removesuffix("?"))
    text = ""
    for part in parts:
        if part == "[":
            text += "(?:"
        elif part == "]":
            text += ")?"
        elif part == ":":
            text += ":"
        elif part:
            short = re.sub(r"[a-z]+", "", part)
            text += f"(?:{re.escape(part.upper())}|{re.escape(short)})"
    return re.compile(text + (r"\?" if name.endswith("?") else ""))


def commands(message: str) -> Iterator[Command]:
    """The commands of one program message."""
    path = ""
    for unit in _split(message, ";"):
        head, _, rest = unit.strip().partition(" ")
        if not head:
            continue
        header = head.upper()
        if not header.startswith(("*", ":")) and path:
            header = f"{path}:{header}"
        header = header.removeprefix(":")
        if not header.startswith("*"):
            path = header.removesuffix("?").rpartition(":")[0]
        yield Command(header, [part.strip() for part in _split(rest, ",") if part.strip()])


def _split(text: str, mark: str) -> list[str]:
    """At marks that stand outside of quotes."""
    parts, quoted = [""], ""
    for letter in text:
        if quoted:
            quoted = "" if letter == quoted else quoted
        elif letter in "\"'":
            quoted = letter
        elif letter == mark:
            parts.append("")
            continue
        parts[-1] += letter
    return parts


def number(parameters: list[str], place: int = 0, low: float = float("-inf"), high: float = float("inf")) -> float:
    """A numeric parameter within its range. Raises `ScpiError`."""
    if len(parameters) <= place:
        raise ScpiError(MISSING)
    try:
        value = float(parameters[place])
    except ValueError:
        raise ScpiError(DATA_TYPE) from None
    if not low <= value <= high:
        raise ScpiError(OUT_OF_RANGE)
    return value


def switch(parameters: list[str], place: int = 0) -> bool:
    """ON, OFF, 1 or 0. Raises `ScpiError`."""
    if len(parameters) <= place:
        raise ScpiError(MISSING)
    known = {"ON": True, "1": True, "OFF": False, "0": False}
    if parameters[place].upper() not in known:
        raise ScpiError(DATA_TYPE)
    return known[parameters[place].upper()]


def choice(parameters: list[str], *names: str, place: int = 0) -> str:
    """One of `names`, each written as the manual prints it, given with or without quotes. Raises `ScpiError`."""
    if len(parameters) <= place:
        raise ScpiError(MISSING)
    given = parameters[place].strip("\"'").upper()
    for name in names:
        if given in (name.upper(), re.sub(r"[a-z]+", "", name)):
            return name
    raise ScpiError(DATA_TYPE)
