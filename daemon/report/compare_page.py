"""The page of a comparison: the verdict in words first, then what it rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import cycle as repeat

import numpy as np
import plotly.graph_objects as go

from daemon.insight.batches import Comparison, log_rates, relative_rates
from daemon.insight.cells import Cell, inactive, location
from daemon.insight.pairs import RATIOS, WORDS, Pair, told
from daemon.insight.protocol import Condition
from daemon.insight.random_effects import detectable
from daemon.report.page import Html, Part, Section, Table, page

COLOURS = ("#1f5fa8", "#c2571a", "#2b8a57", "#8a3b8f", "#8c6d1f", "#4a5568")
COVERAGE = 0.95
CELL_SDS = (0.0, 0.02, 0.05, 0.1)
"""Spreads between equal cells for which it is told how many cells it takes."""
MOST_CELLS = 12
WIDEST = 2.0
"""Ends of longer intervals are not drawn; the table has them."""
HOW = (
    "Rates are compared in halves of the same kind whose mean current agrees within 10 %, the first ones, equally"
    " many of each cell, as logarithms: the typical rate is Huber's location, the spread the standard deviation by"
    " Gini's mean difference. With two cells or more in a group the cells are the replicates: a random effect a"
    " cell, Hartung and Knapp's standard error, t with cells minus groups as its degrees of freedom. With one cell"
    " each the particles are compared (inactive ones by Fisher's exact test), which says nothing of the groups.",
    "Each quantity is a question of its own at the level named; the column p (Holm) holds for all rows together."
    " Effects have intervals at one minus that level, all else at 95 %. Noise of the measurement is part of the"
    " spread.",
)


def compare_page(found: Comparison) -> str:
    """The whole document. Equal comparisons give equal pages."""
    colours = dict(zip(found.groups, repeat(COLOURS), strict=False))
    sections = [
        Section("verdict", "Verdict", [_listed(found.verdict()), *_warned(found.warnings)]),
        Section("effects", "Effects", [_effects(found), _pair_table(found)]),
        Section("rates", "Rates", _rates(found, colours)),
        Section("inactive", "Inactive particles", _inactive(found, colours)),
        Section("retention", "Retention", _retention(found, colours)),
        Section("cells", "Cells and protocols", [_cell_table(found), _protocol_table(found)]),
        Section("power", "What it takes", _power(found)),
        Section("how", "How this is computed", HOW),
    ]
    count = len(found.sources)
    facts = [
        f"{' against '.join(found.groups)}: {count} {'cell' if count == 1 else 'cells'},"
        f" {sum(cell.particles for cell in found.cells)} particles, level {found.alpha:g}"
    ]
    return page("Comparison", facts, sections)


def _listed(sentences: Sequence[str]) -> Html:
    return Html(f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in sentences)}</ul>")


def _warned(warnings: Sequence[str]) -> list[Part]:
    return [Html(f'<p class="note">{escape(each)}</p>') for each in warnings]


def _effects(found: Comparison) -> go.Figure:
    """Effects with their intervals, one line a pair and quantity."""
    figure = go.Figure()
    for pair in reversed([each for each in found.pairs if math.isfinite(each.effect)]):
        label = f"{WORDS[pair.quantity]}<br>{escape(pair.b)} against {escape(pair.a)}"
        lo, hi = _within(pair)
        figure.add_scatter(
            x=[100 * pair.effect], y=[label], mode="markers", showlegend=False,
            marker={"size": 10, "color": COLOURS[1] if pair.differs else COLOURS[5],
                    "symbol": "circle" if pair.basis == "cells" else "circle-open"},
            error_x={"type": "data", "symmetric": False, "array": [100 * (hi - pair.effect)],
                     "arrayminus": [100 * (pair.effect - lo)]},
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": "#667085", "dash": "dot"})
    rows = max(1, len(figure.data))
    return _laid_out(
        figure, f"Effects with {100 * (1 - found.alpha):g} % intervals; open circles: one cell each",
        "difference (% of rate and spread, percentage points of fractions)", "", 140 + 60 * rows,
    )  # fmt: skip


def _within(pair: Pair) -> tuple[float, float]:
    """The interval, cut where it would make the others too short to see."""
    if not (math.isfinite(pair.lo) and math.isfinite(pair.hi)):
        return pair.effect, pair.effect
    return min(pair.effect, max(-1.0, pair.lo)), max(pair.effect, min(WIDEST, pair.hi))


def _pair_table(found: Comparison) -> Table:
    head = ["quantity", "", "effect", "interval", "p", "p (Holm)", "replicates", "verdict", "seen nine times in ten",
            "power to see", "cells differ by", "cells needed"]  # fmt: skip
    return Table(head, [_pair_row(pair) for pair in found.pairs], "Open questions have no numbers: see the verdict.")


def _pair_row(pair: Pair) -> list[object]:
    basis = {"cells": f"cells, {pair.free:.0f} free" if pair.free else "cells", "given": "spread of cells given",
             "particles": "particles of one cell each", "none": "none"}[pair.basis]  # fmt: skip
    power = (
        f"{told(pair, pair.reference)}: {pair.power_at_reference:.2f}"
        if math.isfinite(pair.power_at_reference)
        else "–"
    )
    unit = " %" if pair.quantity in RATIOS else " points"
    interval = f"{told(pair, pair.lo)} to {told(pair, pair.hi)}" if math.isfinite(pair.lo) else "–"
    differ = f"{100 * pair.cell_sd:.2g}{unit}" if math.isfinite(pair.cell_sd) else "–"
    return [
        WORDS[pair.quantity], f"{pair.b} against {pair.a}", told(pair, pair.effect),
        interval, pair.p, pair.p_holm, basis, pair.verdict,
        told(pair, pair.detectable), power, differ, pair.cells_needed,
    ]  # fmt: skip


def _rates(found: Comparison, colours: dict[str, str]) -> list[Part]:
    if not found.conditions:
        return ["The runs share no half of one kind and current."]
    parts: list[Part] = [_distributions(found, colours)]
    for each, logs in zip(found.conditions, log_rates(found.sources, found.conditions), strict=True):
        parts.append(_violins(found, each, logs, colours))
    return parts


def _distributions(found: Comparison, colours: dict[str, str]) -> go.Figure:
    """How the relative rates are distributed, a line a cell."""
    figure, shown = go.Figure(), set()
    for cell, values in zip(found.sources, relative_rates(found.sources, found.conditions), strict=True):
        known = np.sort(values[np.isfinite(values)])
        if not len(known):
            continue
        figure.add_scatter(
            x=np.exp(known), y=(np.arange(len(known)) + 0.5) / len(known), mode="lines",
            line={"color": colours[cell.group]}, name=escape(cell.group), legendgroup=cell.group,
            showlegend=cell.group not in shown, hovertext=escape(cell.name),
        )  # fmt: skip
        shown.add(cell.group)
    figure.update_xaxes(type="log")
    return _laid_out(
        figure, "Rates over the mean of the cells, a line a cell", "relative rate", "share of particles below"
    )


def _violins(found: Comparison, each: Condition, logs: Sequence[np.ndarray], colours: dict[str, str]) -> go.Figure:
    figure = go.Figure()
    for cell, values in zip(found.sources, logs, strict=True):
        typical = location(values)
        if not math.isfinite(typical.value):
            continue
        name, colour = escape(cell.name), colours[cell.group]
        figure.add_violin(
            x=[name] * int(np.isfinite(values).sum()), y=np.exp(values[np.isfinite(values)]), line={"color": colour},
            points=False, showlegend=False, spanmode="hard", opacity=0.5,
        )  # fmt: skip
        lo, hi = (math.exp(value) for value in typical.interval(COVERAGE))
        middle = math.exp(typical.value)
        figure.add_scatter(
            x=[name], y=[middle], mode="markers", marker={"color": colour, "size": 9}, showlegend=False,
            error_y={"type": "data", "symmetric": False, "array": [hi - middle], "arrayminus": [middle - lo]},
        )  # fmt: skip
    return _laid_out(figure, f"Rates, {each.words}; typical rate with its 95 % interval", "", "rate (1/h)")


def _inactive(found: Comparison, colours: dict[str, str]) -> list[Part]:
    from statsmodels.stats.proportion import proportion_confint

    figure, rows = go.Figure(), []
    for cell in found.sources:
        counts = inactive(cell)
        if counts is None:
            rows.append([cell.group, cell.name, None, None, None, None])
            continue
        share = counts[0] / counts[1]
        wilson = proportion_confint(*counts, alpha=1 - COVERAGE, method="wilson")
        exact = proportion_confint(*counts, alpha=1 - COVERAGE, method="beta")
        figure.add_bar(
            x=[escape(cell.name)], y=[100 * share], marker={"color": colours[cell.group]}, showlegend=False,
            error_y={"type": "data", "symmetric": False, "array": [100 * (wilson[1] - share)],
                     "arrayminus": [100 * (share - wilson[0])]},
        )  # fmt: skip
        rows.append(
            [
                cell.group,
                cell.name,
                f"{counts[0]} of {counts[1]}",
                f"{100 * share:.1f} %",
                _range(wilson),
                _range(exact),
            ]
        )
    head = ["group", "cell", "inactive", "fraction", "95 %, Wilson", "95 %, Clopper and Pearson"]
    title = "Inactive particles with Wilson's 95 % interval"
    return [_laid_out(figure, title, "", "inactive (%)"), Table(head, rows)]


def _range(ends: tuple[float, float]) -> str:
    return f"{100 * max(0.0, ends[0]):.1f} to {100 * ends[1]:.1f} %"


def _retention(found: Comparison, colours: dict[str, str]) -> list[Part]:
    figures: list[Part] = []
    for condition in found.conditions:
        figure, shown = go.Figure(), set()
        for number, cell in enumerate(found.sources):
            cycles, middle, sigma = _retained(cell, condition.half, condition.cycles.get(number, []))
            if not len(cycles):
                continue
            figure.add_scatter(
                x=cycles, y=100 * middle, mode="lines+markers", line={"color": colours[cell.group]},
                name=escape(cell.group), legendgroup=cell.group, showlegend=cell.group not in shown,
                hovertext=escape(cell.name),
                error_y={"type": "data", "array": 196 * sigma, "thickness": 1},
            )  # fmt: skip
            shown.add(cell.group)
        if figure.data:
            title = f"Retention, {condition.words}: typical particle with its 95 % interval, a line a cell"
            figures.append(_laid_out(figure, title, "cycle", "retention (%)"))
    return figures or ["No second half of one kind and current that the runs share: nothing to retain yet."]


def _retained(cell: Cell, half: str, cycles: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    numbers, values = cell.run.by_cycle("retention", half)
    found = [(number, location(row)) for number, row in zip(numbers, values, strict=True) if number in cycles]
    known = [(number, each) for number, each in found if math.isfinite(each.value)]
    if len(known) < 2:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    return (
        np.array([number for number, _ in known]),
        np.array([each.value for _, each in known]),
        np.array([each.sigma for _, each in known]),
    )


def _cell_table(found: Comparison) -> Table:
    head = ["group", "cell", "run", "started", "electrode", "capacity (mAh)", "pixel (nm)", "particles", "with a rate",
            "median diameter (um)", "typical rate", "spread of ln rate", "retention"]  # fmt: skip
    rows = []
    for cell, number in zip(found.sources, found.cells, strict=True):
        facts, diameter = cell.run.metadata, cell.run.particles["equivalent_diameter_um"]
        known = diameter[np.isfinite(diameter)]
        rows.append(
            [number.group, number.cell, facts.get("run_id"), facts.get("started_utc"), facts.get("electrode"),
             facts.get("capacity_mah"), facts.get("pixel_size_nm"), number.particles, number.counts["rate"],
             float(np.median(known)) if len(known) else None, number.values["rate"], number.values["spread"],
             number.values["retention"]]
        )  # fmt: skip
    return Table(head, rows, "The typical rate is relative to the mean of the cells.")


def _protocol_table(found: Comparison) -> Table:
    head = ["cell", "halves", "voltage (V)", "currents (mA)", "C-rates", "compared"]
    rows = []
    for number, cell in enumerate(found.sources):
        volts = cell.run.echem["voltage_v"]
        known = volts[np.isfinite(volts)]
        window = f"{known.min():.2f} to {known.max():.2f}" if len(known) else "no record"
        used = [f"{len(each.cycles[number])} x {each.words}" for each in found.conditions if number in each.cycles]
        rows.append(
            [cell.name, len(cell.halves), window, _values([half.current_ma for half in cell.halves]),
             _values([half.c_rate for half in cell.halves]), ", ".join(used) or "nothing"]
        )  # fmt: skip
    return Table(head, rows)


def _values(values: Sequence[float]) -> str:
    """Distinct values to two digits, slowest first."""
    return ", ".join(dict.fromkeys(f"{v:.2g}" for v in sorted(v for v in values if math.isfinite(v)))) or "–"


def _power(found: Comparison) -> list[Part]:
    """Smallest shifts of the typical rate that cells like these show, by how many there are of them."""
    sigmas = [
        cell.sigmas["rate"] for cell in found.cells if math.isfinite(cell.sigmas["rate"]) and cell.sigmas["rate"] > 0
    ]
    if not sigmas:
        return ["Without rates there is nothing to reckon with."]
    own, figure = float(np.median(sigmas)), go.Figure()
    counts = np.arange(2, MOST_CELLS + 1)
    for cell_sd in CELL_SDS:
        shifts = [detectable(math.sqrt(2 / n * (own**2 + cell_sd**2)), 2.0 * (n - 1), found.alpha) for n in counts]
        figure.add_scatter(
            x=counts, y=100 * np.expm1(shifts), mode="lines+markers", name=f"cells differ by {100 * cell_sd:g} %"
        )
    figure.add_hline(y=15, line={"color": "#667085", "dash": "dot"})
    figure.update_yaxes(type="log")
    words = (
        f"A cell's typical rate is known to {100 * own:.2g} % over its particles (one standard deviation, median of the"
        " cells). What more cells would show, for several spreads between equal cells:"
    )
    title = f"Smallest shift of the typical rate seen with power 0.9 at {found.alpha:g}"
    return [words, _laid_out(figure, title, "cells a group", "shift (%)")]


def _laid_out(figure: go.Figure, title: str, x: str, y: str, height: int = 380) -> go.Figure:
    figure.update_layout(
        title={"text": title, "font": {"size": 15}}, template="plotly_white", height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 50}, xaxis_title=x, yaxis_title=y,
    )  # fmt: skip
    return figure
