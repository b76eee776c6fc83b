"""Phase fronts: which particles have one, of what kind, how fast, and where it stood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np
import plotly.graph_objects as go

from daemon.report.material import Material
from daemon.report.page import Part, Section, Table
from daemon.report.stats import spread
from daemon.report.style import HALF_COLOURS, counted, figure, line

TITLE = "Phase fronts"
REASONS = {
    "no_step": "their levels do not change enough",
    "not_one_crossing": "one crossing does not explain what changed",
    "all_at_once": "they change everywhere at once",
    "too_fast": "they cross between few frames",
    "too_noisy": "the front's place is too unsure",
    "no_outline": "their outline could not be read off the reference",
    "not_measured": "they were not measured throughout",
}


def section(material: Material) -> Section:
    """Counts by mode, speeds, and where the fronts of the standing cycle stood."""
    rows = [row for row in material.fronts if row["cycle"] == material.cycle] or material.fronts
    if not rows:
        return Section("fronts", TITLE, ["No half was measured in which a front could be looked for."])
    with_front = [row for row in rows if row["mode"] != "none"]
    told = f"{counted(len(with_front), 'crossing')} in {len(rows)} half-cycles of particles"
    parts: list[Part] = [f"{told}, cycle {rows[0]['cycle']}."]
    others = Counter(str(row["reason"]) for row in rows if row["mode"] == "none" and row["reason"])
    if others:
        why = "; ".join(f"{REASONS.get(reason, reason)} ({count})" for reason, count in others.most_common())
        parts.append(f"The others show none: {why}.")
    if with_front:
        parts.append(
            "Core fronts move inwards from the edge, axial ones along the major axis from the end where they began."
            " Position is depth from the edge, or distance from that end."
        )
        parts += [_speeds(material, with_front), _positions(material)]
    return Section("fronts", TITLE, parts)


def _speeds(material: Material, rows: list[dict[str, Any]]) -> Table:
    found = []
    for half, mode in product(("charge", "discharge"), ("core", "axial")):
        mine = [row for row in rows if (row["half"], row["mode"]) == (half, mode)]
        if mine:
            speed = spread(np.abs(_known(row["speed_px_per_s"] for row in mine)))
            lasted = _known(row["end_t_s"] for row in mine) - _known(row["onset_t_s"] for row in mine)
            nm = 1000.0 * material.pixel_um * speed.median
            found.append((half, mode, len(mine), speed.median, speed.q25, speed.q75, nm, spread(lasted).median))
    head = ("half", "mode", "crossings", "median speed / (px/s)", "quartiles", "", "/ (nm/s)", "median duration / s")
    return Table(head, found)


def _known(values: Iterable[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)


def _positions(material: Material) -> go.Figure:
    made = figure(1, 2, height=340, horizontal_spacing=0.1, subplot_titles=("core", "axial"))
    shown: set[str] = set()
    for mode, half, series in material.front_series:
        column = 1 if mode == "core" else 2
        made.add_trace(
            line(material.time(series["t_s"]), series["front_px"], half, HALF_COLOURS[half], width=1,
                 legendgroup=half, showlegend=half not in shown, opacity=0.6),
            1, column,
        )  # fmt: skip
        shown.add(half)
    made.update_xaxes(title=material.time.title)
    return made.update_yaxes(title="Front / px", col=1)
