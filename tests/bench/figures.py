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


def at_most(name: str, value: float, limit: float, unit: str = "", digits: int = 2) -> Figure:
    """A figure whose goal is an upper bound."""
    return Figure(name, f"{value:.{digits}f} {unit}".strip(), f"<= {limit:g} {unit}".strip(), value <= limit)


def at_least(name: str, value: float, limit: float, unit: str = "", digits: int = 0) -> Figure:
    """A figure whose goal is a lower bound."""
    return Figure(name, f"{value:.{digits}f} {unit}".strip(), f">= {limit:g} {unit}".strip(), value >= limit)


def show(title: str, figures: list[Figure]) -> None:
    """Print one part's figures."""
    table = Table(title=title, title_justify="left", show_edge=False)
    for column in ("figure", "measured", "goal", ""):
        table.add_column(column)
    words = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}
    for figure in figures:
        table.add_row(figure.name, figure.measured, figure.goal, words[figure.met])
    Console(width=120).print(table)
