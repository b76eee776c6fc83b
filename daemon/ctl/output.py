"""Printing: tables for people, JSON for programs, sentences on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

WIDE = 400  # columns of a table that goes to a file or a pipe

STATE_STYLES = {
    "ready": "green", "running": "green", "done": "green", "ok": "green", "pass": "green", "active": "green",
    "degraded": "yellow", "starting": "yellow", "preparing": "yellow", "stopping": "yellow", "paused": "yellow",
    "warning": "yellow", "partial": "yellow", "interrupted": "yellow", "failed": "red", "fail": "red", "tripped": "red",
    "lost": "red", "dead": "red", "error": "red", "warn": "yellow",
}  # fmt: skip


def print_json(document: Any) -> None:
    """The document as it came, indented."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def warn(sentence: str) -> None:
    """A sentence on standard error."""
    click.echo(sentence, err=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A plain table, numbers to the right, as wide as it needs when not on a terminal."""
    from rich.table import Table
    from rich.text import Text

    listed = [list(row) for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(columns):
        numeric = any(isinstance(row[i], int | float) for row in listed)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        table.add_row(*(styled(cell) for cell in row))
    console().print(table)


def console() -> Any:
    """Where people read."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def styled(value: Any) -> Any:
    """A value as a table cell: states in their colour, numbers short, nothing as a dash."""
    from rich.text import Text

    text = shown(value)
    return Text(text, style=STATE_STYLES.get(text, ""))


def shown(value: Any) -> str:
    """A value for people: numbers to five digits, what is unknown as a dash, lists and mappings on one line."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_nested(item)}" for name, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        return " ".join(shown(item) for item in value) or "-"
    return str(value)


def _nested(value: Any) -> str:
    text = shown(value)
    return f"({text})" if isinstance(value, Mapping) else text


def listed(document: Any, name: str) -> list[dict[str, Any]]:
    """The rows called `name` of an answer, whatever else it holds; empty when it holds none."""
    rows = document.get(name) if isinstance(document, Mapping) else document
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def section(document: Any, name: str) -> dict[str, Any]:
    """The object called `name` of an answer; empty when there is none."""
    value = document.get(name) if isinstance(document, Mapping) else None
    return value if isinstance(value, dict) else {}
