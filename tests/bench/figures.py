"""A figure beside its goal, and the table they are printed in."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured number; `goal` in words, `met` None where there is only a peer to compare with."""

    name: str
    measured: str
    goal: str
    met: bool | None = None
    plain: str = ""
    """What a plain pipeline of the field measures on the same frames."""


def at_most(name: str, value: float, limit: float, unit: str = "", digits: int | None = 2, plain: str = "") -> Figure:
    """A figure whose goal is an upper bound; without `digits` in powers of ten."""
    measured = f"{value:.1e}" if digits is None else f"{value:.{digits}f}"
    return Figure(name, f"{measured} {unit}".strip(), f"<= {limit:g} {unit}".strip(), value <= limit, plain)


def between(name: str, value: float, low: float, high: float) -> Figure:
    """A figure whose goal is an interval."""
    return Figure(name, f"{value:.3f}", f"{low:g} to {high:g}", low <= value <= high)


def at_least(name: str, value: float, limit: float, unit: str = "", digits: int = 0) -> Figure:
    """A figure whose goal is a lower bound."""
    return Figure(name, f"{value:.{digits}f} {unit}".strip(), f">= {limit:g} {unit}".strip(), value >= limit)


def show(title: str, figures: list[Figure]) -> None:
    """Print one part's figures."""
    table = Table(title=title, title_justify="left", show_edge=False)
    peer = any(figure.plain for figure in figures)
    for column in ("figure", "measured", *(["plain pipeline"] if peer else []), "goal", ""):
        table.add_column(column)
    words = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}
    for figure in figures:
        plain = [figure.plain] if peer else []
        table.add_row(figure.name, figure.measured, *plain, figure.goal, words[figure.met])
    Console(width=120).print(table)
