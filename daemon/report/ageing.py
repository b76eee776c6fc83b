"""Ageing: what particles lost beside the median one, who was warned of, and how far ahead."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from daemon.report.material import Material
from daemon.report.page import Part, Section, Table
from daemon.report.style import BLUE, GREY, RED, band, counted, cycle_axis, figure, line

TITLE = "Ageing and warnings"
MOST_SHOWN = 40
"""Warned particles drawn one by one; the riskiest."""


def section(material: Material) -> Section:
    """Loss over cycles, the warned ones in red, and a table of them."""
    rows = material.health
    if not rows:
        return Section("ageing", TITLE, [_why_not(material)])
    by_particle: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_particle.setdefault(row["particle_id"], []).append(row)
    last = {identity: mine[-1] for identity, mine in by_particle.items()}
    warned = [identity for identity, row in last.items() if row["warned"]]
    failed = [identity for identity, row in last.items() if row["failed"]]
    warned.sort(key=lambda identity: -(last[identity]["risk"] or 0.0))
    ahead = sum(bool(_first(by_particle[k], "warned") < _first(by_particle[k], "failed")) for k in failed)
    parts: list[Part] = [
        f"{counted(len(warned), 'particle')} of {len(last)} warned of, {len(failed)} failed"
        + (f"; {ahead} of these were warned of in an earlier cycle." if failed else "."),
        "Loss is what a particle's swing lost beside the median particle since the first cycle of the kind; a particle"
        " counts as failed when it is dead or less than 80 % is left beside the median. Lead times are how long"
        " particles warned of have lasted.",
        _losses(by_particle, warned),
    ]
    if warned:
        parts.append(_table(material, by_particle, last, warned))
    return Section("ageing", TITLE, parts)


def _losses(by_particle: dict[int, list[dict[str, Any]]], warned: list[int]) -> go.Figure:
    cycles = np.unique([row["cycle"] for mine in by_particle.values() for row in mine])
    losses = np.full((len(cycles), len(by_particle)), np.nan)
    for k, mine in enumerate(by_particle.values()):
        at = np.searchsorted(cycles, [row["cycle"] for row in mine])
        losses[at, k] = [np.nan if row["loss"] is None else row["loss"] for row in mine]
    some = np.isfinite(losses).any(axis=1)
    made = figure(height=340)
    if some.any():
        low, middle, high = np.nanquantile(losses[some], (0.05, 0.5, 0.95), axis=1)
        for trace in band(cycles[some], low, high, "5 to 95 % of particles", BLUE):
            made.add_trace(trace)
        made.add_trace(line(cycles[some], middle, "median particle", BLUE, width=2))
    places = {identity: k for k, identity in enumerate(by_particle)}
    for number, identity in enumerate(warned[:MOST_SHOWN]):
        values = losses[:, places[identity]]
        made.add_trace(
            line(cycles, values, "warned of", RED, width=1, legendgroup="warned", showlegend=number == 0,
                 text=f"particle {identity}", hovertemplate="%{text}, cycle %{x}: %{y:.3f}<extra></extra>")
        )  # fmt: skip
    made.add_hline(0.2, line={"color": GREY, "dash": "dash", "width": 1})
    cycle_axis(made, len(cycles))
    return made.update_yaxes(title="Loss beside the median particle")


def _table(
    material: Material, by_particle: dict[int, list[dict[str, Any]]], last: dict[int, dict[str, Any]], warned: list[int]
) -> Table:
    words = {event.particle_id: event.detail for event in material.run.events if event.kind.value == "warning"}
    head = ("particle", "first warned, cycle", "loss", "loss a cycle", "lead / cycles", "risk", "in words")
    rows = [
        (identity, int(_first(by_particle[identity], "warned")), last[identity]["loss"], last[identity]["loss_trend"],
         last[identity]["lead_cycles"], last[identity]["risk"], words.get(identity, ""))
        for identity in warned[:MOST_SHOWN]
    ]  # fmt: skip
    more = f"The {MOST_SHOWN} riskiest of {len(warned)}. " if len(warned) > MOST_SHOWN else ""
    return Table(head, rows, f"{more}Risk is fitted to simulated electrodes: it ranks particles.")


def _first(rows: list[dict[str, Any]], name: str) -> float:
    """The first cycle in which it holds; infinite when it never does."""
    return min((row["cycle"] for row in rows if row[name]), default=np.inf)


def _why_not(material: Material) -> str:
    cycles = len(np.unique(material.run.cycles["cycle"]))
    return f"Ageing is told from four whole cycles and eight particles on; this run has {counted(cycles, 'cycle')}."
