"""From cycle to cycle: heat maps, what cell and particles kept; and charge against discharge."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from daemon.insight.cell_halves import CellHalf
from daemon.report.choice import last_retention, of_cycle
from daemon.report.material import Material
from daemon.report.page import Part, Section, Table
from daemon.report.stats import medians, rank_correlation
from daemon.report.style import BLACK, BLUE, GREY, HALF_COLOURS, band, counted, cycle_axis, figure, light, line

MAPS = {
    "retention": ("Retention of swing", "over first", "Cividis"),
    "rate_per_h": ("Rate over the half's median", "", "Viridis"),
    "lag_s": ("Lag over the half's duration", "", "RdBu"),
}
MAX_CYCLES, MAX_PARTICLES = 150, 1000
"""Of a heat map; beyond, every second (third, ...) is shown."""
SAME_RATE = 0.10  # as the retention of the `cycles` table: mean currents this close are one rate
MIN_PAIRS = 10


def maps(material: Material) -> Section:
    """Particle by cycle, and the retention of the cell beside the particles'."""
    title = "From cycle to cycle"
    numbers = np.unique(material.run.cycles["cycle"].astype(int))
    if not len(numbers):
        why = _why_not(material)
        return Section("cycles", title, [f"No half was measured: {why} There is no retention, rate or lag."])
    parts: list[Part] = []
    if len(numbers) < 2:
        parts.append("Only one cycle was measured: nothing can be said of fading.")
    else:
        parts += _retention(material)
    parts.append(
        "Rows are particles, those that kept least of their swing on top; white is not known (dead, not calibrated, or"
        " the swing does not stand out of noise). Rates are over the median of their half, lags over the time its"
        " current flowed, so that halves at different C-rates compare."
    )
    return Section("cycles", title, [*parts, _heat_maps(material)])


def halves_compared(material: Material) -> Section:
    """Charge against discharge of the standing cycle, particle by particle."""
    title, cycle = "Charge against discharge", material.cycle
    if cycle is None:
        return Section("halves", title, [f"No half was measured: {_why_not(material)}"])
    rows, told = [], []
    made = figure(1, 3, height=360, horizontal_spacing=0.11)
    for column, (name, unit) in enumerate(
        (("rate_per_h", "Rate / (1/h)"), ("lag_s", "Lag / s"), ("swing", "Swing / contrast")), 1
    ):
        charge, discharge = (of_cycle(material.run, name, half, cycle) for half in ("charge", "discharge"))
        rho, low, high, count = rank_correlation(charge, discharge)
        rows.append((unit, count, rho, low, high, _median_ratio(charge, discharge)))
        if not count:
            told.append(f"{unit.split(' /')[0]}: no particle has one on both halves.")
        _scatter(made, material, charge, discharge, column)
        made.update_xaxes(title=f"{unit}, charge", row=1, col=column)
        made.update_yaxes(title=f"{unit}, discharge", row=1, col=column)
    head = ("measure", "particles", "rank correlation", "95 % from", "to", "median of discharge over charge")
    caption = (
        f"Cycle {cycle}. A correlation near 1: the same particles are fast (or late) both ways. Fewer than {MIN_PAIRS}"
        " pairs give none."
    )
    told.append(
        "Equal on both halves is the dashed line. Different mechanisms on charge and discharge move the cloud off it."
    )
    return Section("halves", title, [*told, made, Table(head, rows, caption)])


def cell_retention(halves: list[CellHalf], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Cycles and the charge of each whole half over that of the first at the same rate."""
    mine = [half for half in halves if half.half == kind and half.whole]
    firsts: list[CellHalf] = []
    cycles, kept = [], []
    for half in mine:
        same = [f for f in firsts if abs(half.mean_current_ma - f.mean_current_ma) <= SAME_RATE * f.mean_current_ma]
        if not same:
            firsts.append(half)
        cycles.append(half.cycle)
        kept.append(half.passed_mah / (same[0] if same else half).passed_mah)
    return np.array(cycles, int), np.array(kept, float)


def _why_not(material: Material) -> str:
    if not len(material.run.echem["t_s"]):
        return "the run has no record of the cell."
    if not material.halves:
        return "no current flowed."
    return "no half of the cell's record ended within the frames, or no particle was there to be measured."


def _retention(material: Material) -> list[Part]:
    made = figure(1, 2, height=320, shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=("charge", "discharge"))
    told = []
    for column, kind in enumerate(("charge", "discharge"), 1):
        numbers, values = material.run.by_cycle("retention", kind)
        some = np.isfinite(values).any(axis=1)
        numbers, values = numbers[some], values[some]
        first = column == 1
        if len(numbers):
            low, middle, high = np.nanquantile(values, (0.25, 0.5, 0.75), axis=1)
            for trace in band(numbers, low, high, "middle half of particles", BLUE):
                made.add_trace(trace.update(showlegend=bool(trace.name) and first), 1, column)
            made.add_trace(line(numbers, middle, "median particle", BLUE, width=2, showlegend=first), 1, column)
        cycles, kept = cell_retention(material.halves, kind)
        made.add_trace(line(cycles, kept, "charge of the cell", BLACK, dash="dash", showlegend=first), 1, column)
        told += _last_kept(kind, numbers, values, cycles, kept)
    faded = last_retention(material.run)
    known = int(np.isfinite(faded).sum())
    if known:
        told.append(f"{int((faded < 0.8).sum())} of {known} particles kept less than 80 %.")
    cycle_axis(made, len(np.unique(material.run.cycles["cycle"])))
    made.update_yaxes(title="kept, over the first at that rate", col=1)
    return [*told, made.update_layout(legend={"y": 1.12}, margin={"t": 64})]


def _last_kept(kind: str, numbers: np.ndarray, values: np.ndarray, cycles: np.ndarray, kept: np.ndarray) -> list[str]:
    """The last half that was not the first of its rate."""
    later = np.flatnonzero((np.isfinite(values) & (values != 1.0)).any(axis=1))
    if not len(later):
        return [f"Each {kind} was the first at its rate: nothing of fading can be told from them."]
    last = later[-1]
    middle, count = float(np.nanmedian(values[last])), int(np.isfinite(values[last]).sum())
    own = kept[cycles == numbers[last]]
    cell = f", the cell {own[0]:.0%} of its charge" if len(own) else ""
    return [
        f"In the {kind} of cycle {numbers[last]} the median particle kept {middle:.0%} of its swing"
        f" ({counted(count, 'particle')}){cell}, each against the first {kind} at that rate."
    ]


def _heat_maps(material: Material) -> go.Figure:
    order = np.argsort(np.nan_to_num(last_retention(material.run), nan=np.inf), kind="stable")
    order = order[:: max(1, -(-len(order) // MAX_PARTICLES))][::-1]
    made = figure(1, 2, height=560, shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=("charge", "discharge"))
    for number, (name, (_, unit, scale)) in enumerate(MAPS.items()):
        both = [_comparable(material, name, kind) for kind in ("charge", "discharge")]
        low, high = _limits(name, np.concatenate([values.ravel() for _, values in both]))
        for column, (numbers, values) in enumerate(both, 1):
            stride = max(1, -(-len(numbers) // MAX_CYCLES))
            trace = go.Heatmap(
                x=numbers[::stride], y=[f"particle {k}" for k in material.run.particle_id[order]],
                z=light(values[::stride][:, order].T), zmin=low, zmax=high, colorscale=scale, showscale=column == 2,
                visible=number == 0, colorbar={"title": {"text": unit}, "thickness": 12},
                hovertemplate="%{y}, cycle %{x}: %{z:.3g}<extra></extra>",
            )  # fmt: skip
            made.add_trace(trace, 1, column)
    buttons = [
        {"label": label, "method": "restyle", "args": [{"visible": [k // 2 == number for k in range(2 * len(MAPS))]}]}
        for number, (label, _, _) in enumerate(MAPS.values())
    ]
    menu = {
        "type": "buttons",
        "direction": "right",
        "buttons": buttons,
        "x": 0,
        "xanchor": "left",
        "y": 1.06,
        "yanchor": "bottom",
    }
    made.update_layout(updatemenus=[menu], margin={"t": 84})
    cycle_axis(made, len(np.unique(material.run.cycles["cycle"])))
    made.update_yaxes(showticklabels=False, ticks="")
    return made.update_yaxes(title="particles", col=1)


def _comparable(material: Material, name: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """((C,) cycles, (C, P) values) that do not change with the C-rate alone."""
    numbers, values = material.run.by_cycle(name, kind)
    if name == "rate_per_h":
        middle = medians(values.T)
        return numbers, values / np.where(middle > 0, middle, np.nan)[:, None]
    if name == "lag_s":
        lasted = {h.cycle: h.drive_end_t_s - h.start_t_s for h in material.halves if h.half == kind}
        return numbers, values / np.array([lasted.get(number, np.nan) for number in numbers.tolist()])[:, None]
    return numbers, values


def _limits(name: str, values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if name == "retention":
        return 0.5, 1.1
    low, high = np.percentile(known, (2, 98)) if len(known) else (0.0, 1.0)
    return (-max(abs(low), abs(high)), max(abs(low), abs(high))) if name == "lag_s" else (float(low), float(high))


def _scatter(made: go.Figure, material: Material, charge: np.ndarray, discharge: np.ndarray, column: int) -> None:
    good = np.flatnonzero(np.isfinite(charge) & np.isfinite(discharge))
    if not len(good):
        return
    both = np.concatenate([charge[good], discharge[good]])
    ends = np.array([both.min(), both.max()])
    made.add_trace(line(ends, ends, "equal", GREY, dash="dash", width=1, showlegend=False, hoverinfo="skip"), 1, column)
    made.add_trace(
        go.Scatter(
            x=light(charge[good]), y=light(discharge[good]), mode="markers", showlegend=False,
            text=[f"particle {k}" for k in material.run.particle_id[good]],
            hovertemplate="%{text}: %{x:.3g}, %{y:.3g}<extra></extra>",
            marker={"color": HALF_COLOURS["charge"], "size": 5, "opacity": 0.6},
        ),
        1, column,
    )  # fmt: skip


def _median_ratio(charge: np.ndarray, discharge: np.ndarray) -> float:
    good = np.isfinite(charge) & np.isfinite(discharge) & (charge > 0) & (discharge > 0)
    return float(np.median(discharge[good] / charge[good])) if good.any() else float("nan")
