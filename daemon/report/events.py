"""Events: what kinds, how often in each cycle, and where on the cell's curve."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from daemon.events import Event
from daemon.report.ensemble import cell_record
from daemon.report.material import Material
from daemon.report.page import Part, Section, Table
from daemon.report.style import CYCLE, GREY, HALF_COLOURS, POTENTIAL, SYMBOLS, cycle_axis, figure, light, line

MAX_MARKS = 1500
"""Of one kind on a curve; evenly chosen beyond, which is said."""
UNITS = {
    "focus_jump": "relative", "illumination_step": "relative", "bubble": "px", "drift_jump": "px",
    "frames_dropped": "count", "camera_lost": "s", "camera_back": "s", "clock_step": "s", "disk_low": "MB",
    "engine_restarted": "count", "outlier": "robust sigmas", "warning": "probability", "lost": "", "saturated": "",
    "cell_limit": "", "cell_lost": "",
}  # fmt: skip
MAX_KINDS = len(SYMBOLS)


def section(material: Material) -> Section:
    """A table, the marked curves, rates by cycle."""
    events = [event for event in material.run.events if np.isfinite(event.t_s)]
    if not events:
        return Section(
            "events", "Events", ["The run has no event: nothing abrupt was told from noise, and nothing failed."]
        )
    kinds = _by_kind(events)
    parts: list[Part] = [_table(kinds)]
    crowded = [name for name, mine in kinds.items() if len(mine) > MAX_MARKS]
    if crowded:
        parts.append(f"Of {', '.join(crowded)} an even choice of {MAX_MARKS} is drawn; table and rates count all.")
    if not len(material.run.echem["t_s"]):
        parts.append("Without a record of the cell events have no potential: they are drawn against time only.")
        return Section("events", "Events", [*parts, _strip(material, kinds)])
    parts += [_on_voltage(material, kinds), *_on_capacity(material, kinds), *_rates(material, kinds)]
    return Section("events", "Events", parts)


def _by_kind(events: list[Event]) -> dict[str, list[Event]]:
    """Most frequent first."""
    kinds: dict[str, list[Event]] = {}
    for event in events:
        kinds.setdefault(event.kind.value, []).append(event)
    return dict(sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0])))


def _table(kinds: dict[str, list[Event]]) -> Table:
    rows = []
    for name, mine in kinds.items():
        sizes = np.array([abs(event.magnitude) for event in mine])
        median = float(np.median(sizes[np.isfinite(sizes)])) if np.isfinite(sizes).any() else None
        particles = len({event.particle_id for event in mine if event.particle_id is not None})
        unit = UNITS.get(name, "contrast")
        rows.append((name, len(mine), particles or None, median, unit if median is not None else ""))
    head = ("kind", "events", "particles concerned", "median magnitude", "unit")
    return Table(head, rows, "Kinds without particles are the instrument's own.")


def _chosen(mine: list[Event]) -> np.ndarray:
    at = np.sort(np.array([event.t_s for event in mine]))
    return at[np.unique(np.linspace(0, len(at) - 1, MAX_MARKS).astype(int))] if len(at) > MAX_MARKS else at


def _marks(name: str, number: int, x: np.ndarray, y: np.ndarray, **options: object) -> go.Scatter:
    marker = {
        "color": CYCLE[number % len(CYCLE)], "symbol": SYMBOLS[number % MAX_KINDS], "size": 7, "opacity": 0.8,
        "line": {"width": 0.5, "color": "white"},
    }  # fmt: skip
    return go.Scatter(x=light(x), y=light(y), mode="markers", name=name, marker=marker, legendgroup=name, **options)


def _on_voltage(material: Material, kinds: dict[str, list[Event]]) -> go.Figure:
    echem = cell_record(material.run.echem)
    made = figure(height=380)
    made.add_trace(line(material.time(echem["t_s"]), echem["voltage_v"], "potential", GREY, width=1.2))
    for number, (name, mine) in enumerate(kinds.items()):
        at = _chosen(mine)
        made.add_trace(_marks(name, number, material.time(at), _at(echem, "voltage_v", at)))
    made.update_xaxes(title=material.time.title)
    return made.update_yaxes(title=POTENTIAL)


def _on_capacity(material: Material, kinds: dict[str, list[Event]]) -> list[Part]:
    """V against the charge passed since the half began, halves of one kind over each other."""
    if not material.halves:
        return ["No current flowed: there is no charge to draw the potential against."]
    made = figure(1, 2, height=380, shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=("charge", "discharge"))
    seen: set[str] = set()
    stride = max(1, sum(len(half.t_s) for half in material.halves) // 20_000)
    for half in material.halves:
        column = 1 if half.half == "charge" else 2
        driven = np.flatnonzero(half.driven)[::stride]
        passed = np.abs(half.charge_mah - half.charge_mah[0])[driven]
        name = f"cycle {half.cycle}"
        made.add_trace(
            line(passed, half.voltage_v[driven], name, HALF_COLOURS[half.half], width=0.8, showlegend=False,
                 opacity=0.5, hovertemplate=name + ", %{x:.4g} mAh, %{y:.3f} V<extra></extra>"),
            1, column,
        )  # fmt: skip
    for number, (name, mine) in enumerate(kinds.items()):
        at = _chosen(mine)
        for column, kind in enumerate(("charge", "discharge"), 1):
            x, y = _placed(material, at, kind)
            if len(x):
                made.add_trace(_marks(name, number, x, y, showlegend=name not in seen), 1, column)
                seen.add(name)
    made.update_xaxes(title="Charge passed in the half / mAh")
    made.update_yaxes(title=POTENTIAL, col=1)
    return [made.update_layout(legend={"y": 1.1}, margin={"t": 64})]


def _placed(material: Material, at: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Charge passed and potential at the events that fall into halves of a kind."""
    xs, ys = [np.empty(0)], [np.empty(0)]
    for half in material.halves:
        if half.half == kind:
            mine = at[(at >= half.start_t_s) & (at < half.end_t_s)]
            xs.append(np.interp(mine, half.t_s, np.abs(half.charge_mah - half.charge_mah[0])))
            ys.append(np.interp(mine, half.t_s, half.voltage_v))
    return np.concatenate(xs), np.concatenate(ys)


def _at(echem: dict[str, np.ndarray], column: str, t_s: np.ndarray) -> np.ndarray:
    known = np.isfinite(echem[column])
    if not known.any():
        return np.full(t_s.shape, np.nan)
    order = np.argsort(echem["t_s"][known], kind="stable")
    return np.interp(t_s, echem["t_s"][known][order], echem[column][known][order], np.nan, np.nan)


def _rates(material: Material, kinds: dict[str, list[Event]]) -> list[Part]:
    """Events a particle in each half of each cycle."""
    particles = int((material.state != "dead").sum())
    if not material.halves or not particles:
        return ["Rates by cycle need halves of the cell's record and a particle that is not dead."]
    own = {name: mine for name, mine in kinds.items() if any(event.particle_id is not None for event in mine)}
    if not own:
        return ["No event concerns a particle: there are no rates by cycle."]
    made = figure(1, 2, height=320, shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=("charge", "discharge"))
    for number, (name, mine) in enumerate(own.items()):
        at = np.array([event.t_s for event in mine])
        for column, kind in enumerate(("charge", "discharge"), 1):
            halves = [half for half in material.halves if half.half == kind]
            counts = np.array([((at >= half.start_t_s) & (at < half.end_t_s)).sum() for half in halves], float)
            cycles = np.array([half.cycle for half in halves])
            trace = go.Scatter(
                x=cycles, y=light(counts / particles), name=name, legendgroup=name, showlegend=column == 1,
                mode="lines+markers", line={"color": CYCLE[number % len(CYCLE)], "width": 1.5},
                marker={"symbol": SYMBOLS[number % MAX_KINDS], "size": 7},
            )  # fmt: skip
            made.add_trace(trace, 1, column)
    cycle_axis(made, len({half.cycle for half in material.halves}))
    made.update_yaxes(title="Events per particle", rangemode="tozero", col=1)
    made.update_layout(legend={"y": 1.12}, margin={"t": 64})
    return [
        f"Rates are per particle that is not dead ({particles} of {len(material.state)}); the last half may be cut.",
        made,
    ]


def _strip(material: Material, kinds: dict[str, list[Event]]) -> go.Figure:
    made = figure(height=120 + 28 * len(kinds))
    for number, (name, mine) in enumerate(kinds.items()):
        at = _chosen(mine)
        made.add_trace(_marks(name, number, material.time(at), np.full(len(at), float(number)), showlegend=False))
    made.update_yaxes(tickvals=list(range(len(kinds))), ticktext=list(kinds), autorange="reversed")
    made.update_layout(margin={"l": 130})
    return made.update_xaxes(title=material.time.title)
