"""How the particles differ: distributions of rate, lag, hysteresis, swing and size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from daemon.insight.cell_halves import CellHalf
from daemon.report.choice import of_cycle
from daemon.report.material import Material
from daemon.report.page import Part, Section, Table
from daemon.report.stats import spread
from daemon.report.style import GREEN, HALF_COLOURS, figure, joined

TAILS = (0.5, 99.5)
"""Percentiles drawn; what lies beyond is in the table's numbers, not in the picture."""
MAX_BINS = 40


@dataclass(frozen=True)
class Measure:
    """One quantity of the particles."""

    title: str
    values: dict[str, np.ndarray]
    """By half, or under an empty name."""


def section(material: Material) -> Section:
    """Histograms and a table; what is missing is said."""
    found = measures(material)
    known = [each for each in found if any(np.isfinite(values).any() for values in each.values.values())]
    missing = [each.title.split(" /")[0].lower() for each in found if each not in known]
    parts: list[Part] = []
    cycle = material.cycle
    if cycle is not None:
        parts.append(f"Cycle {cycle}{_at_rate(material, cycle)}: the latest in which nearly all could be measured.")
        parts.append(_given(material))
    if missing:
        parts.append(f"Not known for any particle: {joined(missing)}. {_why(material, cycle)}".strip())
    if not known:
        return Section("distributions", "Distributions", parts)
    return Section("distributions", "Distributions", [*parts, _histograms(known), _table(known)])


def measures(material: Material) -> list[Measure]:
    """Rate, lag, hysteresis and swing of the standing cycle's halves, and size."""
    run, cycle = material.run, material.cycle

    def halves(column: str) -> dict[str, np.ndarray]:
        return {half: of_cycle(run, column, half, cycle) for half in ("charge", "discharge")}

    size_um = run.particles["equivalent_diameter_um"]
    size = ("Diameter / µm", size_um) if np.isfinite(size_um).any() else ("Area / px", run.particles["area_px"])
    return [
        Measure("Rate / (1/h)", halves("rate_per_h")),
        Measure("Lag / s", halves("lag_s")),
        Measure("Hysteresis / V", {"": np.fmax(*halves("hysteresis_v").values())}),
        Measure("Swing / contrast", halves("swing")),
        Measure(size[0], {"": size[1]}),
    ]


def _given(material: Material) -> str:
    cv = material.run.ensemble["rate_cv"]
    known = cv[np.isfinite(cv)]
    told = (
        f" Their spread over the mean, measuring noise subtracted, was {known[-1]:.0%} in the last half."
        if len(known)
        else ""
    )
    return "The mean of the rates is what the current made it; only how they differ is the particles' own." + told


def _at_rate(material: Material, cycle: int) -> str:
    mine: list[CellHalf] = [half for half in material.halves if half.cycle == cycle]
    if not mine or not np.isfinite(material.capacity_mah):
        return ""
    rates = [f"{half.half} at {half.mean_current_ma / material.capacity_mah:.3g}C" for half in mine]
    return f" ({joined(rates)}; 1C by {material.capacity_origin})"


def _why(material: Material, cycle: int | None) -> str:
    if cycle is None:
        why = "the run has no record of the cell" if not len(material.run.echem["t_s"]) else "no half was measured"
        return f"They need halves of the cell's record; {why}."
    return "Rates need a calibrated SoC; hysteresis needs a charge and a discharge of one cycle."


def _histograms(found: list[Measure]) -> go.Figure:
    columns = 3
    rows = -(-len(found) // columns)
    made = figure(rows, columns, height=270 * rows + 40, vertical_spacing=0.22, horizontal_spacing=0.08)
    named: set[str] = set()
    for number, each in enumerate(found):
        row, column = number // columns + 1, number % columns + 1
        for half, values in each.values.items():
            drawn, edges = _bins(each, values)
            if not len(drawn):
                continue
            counts, _ = np.histogram(drawn, edges)
            bar = go.Bar(
                x=(edges[1:] + edges[:-1]) / 2, y=counts, width=np.diff(edges), name=half or "all", opacity=0.65,
                marker_color=HALF_COLOURS.get(half, GREEN), legendgroup=half,
                showlegend=bool(half) and half not in named,
                hovertemplate="%{x:.3g}: %{y}<extra></extra>",
            )  # fmt: skip
            named.add(half)
            made.add_trace(bar, row, column)
        made.update_xaxes(title=each.title, row=row, col=column)
        made.update_yaxes(title="particles" if column == 1 else None, row=row, col=column)
    return made.update_layout(barmode="overlay", bargap=0)


def _bins(each: Measure, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is drawn of a half, and edges that both halves share."""
    both = np.concatenate([part[np.isfinite(part)] for part in each.values.values()])
    low, high = np.percentile(both, TAILS)
    count = int(np.clip(2 * len(both) ** (1 / 3), 5, MAX_BINS))  # Rice's rule
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return values[(values >= low) & (values <= high)], np.linspace(low, high, count + 1)


def _table(found: list[Measure]) -> Table:
    rows = []
    for each in found:
        for half, values in each.values.items():
            told = spread(values)
            if told.count:
                rows.append((
                    each.title, half, told.count, told.median, told.median_lo, told.median_hi, told.q25, told.q75,
                    told.q05,
                    told.q95,
                ))  # fmt: skip
    head = ("measure", "half", "particles", "median", "95 % from", "to", "25 %", "75 %", "5 %", "95 %")
    caption = (
        "The interval is the median's, from order statistics: how sure the median of such a field is, not how wide the"
        " particles spread. Particles of one field share one cell: cells differ more."
    )
    return Table(head, rows, caption)
