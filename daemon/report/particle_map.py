"""Where the particles are and what each is like: the masks on the reference frame, coloured by a measure of choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from PIL import ImageColor

from daemon.report.choice import crack_counts, last_retention, of_cycle
from daemon.report.material import Material
from daemon.report.page import Part, Section
from daemon.report.pictures import overlay_uri, reference_uri, scale_colours
from daemon.report.style import STATE_COLOURS, counted, figure, joined, light
from daemon.tables import PARTICLE_STATES

MAP_WIDTH = 860
"""Screen pixels of the picture, about."""
APART = 1e-7  # plotly takes images of exactly one place and size for one image
LIMITS = (2.0, 98.0)
"""Percentiles that a colour scale spans: one odd particle must not take all of it."""


@dataclass(frozen=True)
class Colouring:
    """One way to colour the particles."""

    name: str
    title: str
    values: np.ndarray
    scale: str
    low: float
    high: float

    @property
    def place(self) -> np.ndarray:
        """(P,) in 0..1 on the scale."""
        return (self.values - self.low) / (self.high - self.low)


def section(material: Material) -> Section:
    """The map, or why there is none."""
    run = material.run
    if not len(run.particle_id):
        return Section("map", "Particle map", ["The run has no particles: nothing was found in the reference frame."])
    parts: list[Part] = [_words(material)]
    if material.reference_dn is None or material.labels is None:
        parts.append("The run file holds no sound reference frame with masks; the map shows centres only.")
    if not np.isfinite(material.pixel_um):
        parts.append(
            "The size of a pixel is not known: places are in pixels, and no particle has a size in micrometres."
        )
    parts += _unknown(material)
    parts.append(_map(material, colourings(material)))
    return Section("map", "Particle map", parts)


def colourings(material: Material) -> list[Colouring]:
    """What the map can be coloured by beside the state, without what nothing is known of."""
    run, cycle = material.run, material.cycle
    unit_interval = (0.0, 1.0)
    found = [
        Colouring("SoC at the end", "SoC", last_known(material.traces.soc), "Viridis", *unit_interval),
        _ranged("Lag, charge", "s", of_cycle(run, "lag_s", "charge", cycle), "RdBu", even=True),
        _ranged("Lag, discharge", "s", of_cycle(run, "lag_s", "discharge", cycle), "RdBu", even=True),
        Colouring("Retention", "swing over first", last_retention(run), "Cividis", 0.5, 1.05),
        _ranged("Swing", "contrast", of_cycle(run, "swing", "charge", cycle), "Viridis"),
    ]
    cracks = crack_counts(run).astype(float)
    if cracks.any():
        found.append(Colouring("Cracks", "count", cracks, "YlOrRd", 0.0, max(2.0, float(cracks.max()))))
    return [each for each in found if np.isfinite(each.values).any()]


def last_known(values: np.ndarray) -> np.ndarray:
    """(P,) the last finite value of each column of (M, P)."""
    known = np.isfinite(values)
    last = values.shape[0] - 1 - np.argmax(known[::-1], axis=0) if len(values) else np.zeros(values.shape[1], int)
    found = np.take_along_axis(values, last[None], 0)[0] if len(values) else np.full(values.shape[1], np.nan)
    return np.where(known.any(axis=0), found, np.nan).astype(float)


def _ranged(name: str, title: str, values: np.ndarray, scale: str, even: bool = False) -> Colouring:
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, LIMITS) if len(known) else (0.0, 1.0)
    if even:
        high = max(abs(low), abs(high))
        low = -high
    if high <= low:
        low, high = low - 0.5, low + 0.5
    return Colouring(name, title, values, scale, float(low), float(high))


def _words(material: Material) -> str:
    run = material.run
    states = [f"{int((material.state == name).sum())} {name}" for name in PARTICLE_STATES]
    cycle = material.cycle
    lag = f" Lag and swing are those of cycle {cycle}." if cycle is not None else ""
    return (
        f"{counted(len(run.particle_id), 'particle')}: {joined(states)}.{lag} Grey: not known. Outlines are the masks'."
    )


def _unknown(material: Material) -> list[Part]:
    run, told = material.run, []
    if not np.isfinite(material.traces.soc).any():
        told.append("SoC is missing for all: no particle could be calibrated (see Accuracy).")
    if not np.isfinite(run.cycles["lag_s"]).any():
        told.append("Lags, retention and swing need halves of the cell's record, and there are none.")
    return list(told)


def _map(material: Material, colours: list[Colouring]) -> go.Figure:
    scale_um = material.pixel_um if np.isfinite(material.pixel_um) else 1.0
    unit = "µm" if np.isfinite(material.pixel_um) else "px"
    shape = material.labels.shape if material.labels is not None else _extent(material)
    made = figure(height=int(MAP_WIDTH * shape[0] / shape[1]) + 120)
    groups = [_state_traces(material, scale_um), *([_trace(material, c, scale_um)] for c in colours)]
    images = _images(material, colours, shape, scale_um)
    for number, traces in enumerate(groups):
        for trace in traces:
            made.add_trace(trace.update(visible=number == 0))
    made.update_layout(images=images, updatemenus=[_menu(colours, groups, len(images))])
    made.update_layout(legend={"y": -0.08, "yanchor": "top"}, margin={"t": 50})
    height, width = (scale_um * (side - 0.5) for side in shape)
    made.update_xaxes(title=f"x / {unit}", range=[-0.5 * scale_um, width], constrain="domain", showgrid=False)
    made.update_yaxes(
        title=f"y / {unit}", range=[height, -0.5 * scale_um], scaleanchor="x", constrain="domain", showgrid=False
    )
    return made


def _images(material: Material, colours: list[Colouring], shape: tuple[int, int], scale_um: float) -> list[dict]:
    if material.reference_dn is None or material.labels is None:
        return []
    names = list(STATE_COLOURS)
    states = np.array([names.index(each) if each in names else np.nan for each in material.state]) / (len(names) - 1)
    own = np.array([ImageColor.getrgb(colour) for colour in STATE_COLOURS.values()])
    overlays = [overlay_uri(material.labels, states, own)]
    overlays += [overlay_uri(material.labels, each.place, scale_colours(each.scale)) for each in colours]
    whole = {
        "xref": "x", "yref": "y", "x": -0.5 * scale_um, "y": -0.5 * scale_um, "sizex": shape[1] * scale_um,
        "sizey": shape[0] * scale_um, "sizing": "stretch", "layer": "below", "yanchor": "top",
    }  # fmt: skip
    below = whole | {"source": reference_uri(material.reference_dn)}
    own_size = [{"sizex": shape[1] * scale_um * (1.0 + APART * k)} for k in range(1, len(overlays) + 1)]
    return [
        below,
        *(whole | own_size[k] | {"source": uri, "visible": k == 0} for k, uri in enumerate(overlays)),
    ]


def _menu(colours: list[Colouring], groups: list[list[go.Scatter]], images: int) -> dict:
    names = ["State", *(each.name for each in colours)]
    buttons = []
    for number, name in enumerate(names):
        shown = [number == owner for owner, traces in enumerate(groups) for _ in traces]
        layout = {f"images[{1 + k}].visible": k == number for k in range(images - 1)}
        buttons.append({"label": name, "method": "update", "args": [{"visible": shown}, layout]})
    return {
        "type": "buttons", "direction": "right", "buttons": buttons, "x": 0.0, "xanchor": "left", "y": 1.0,
        "yanchor": "bottom", "showactive": True, "pad": {"b": 8}, "font": {"size": 11},
    }  # fmt: skip


def _state_traces(material: Material, scale_um: float) -> list[go.Scatter]:
    traces = []
    for name, colour in STATE_COLOURS.items():
        mine = np.flatnonzero(material.state == name)
        if len(mine):
            traces.append(_points(material, mine, scale_um, f"{name} ({len(mine)})", {"color": colour, "size": 5}))
    return traces


def _trace(material: Material, colour: Colouring, scale_um: float) -> go.Scatter:
    marker = {
        "color": light(colour.values), "colorscale": colour.scale, "cmin": colour.low, "cmax": colour.high, "size": 5,
        "showscale": True, "colorbar": {"title": {"text": colour.title}, "thickness": 12, "len": 0.8},
    }  # fmt: skip
    known = np.flatnonzero(np.isfinite(colour.values))
    marker["color"] = light(colour.values[known])
    trace = _points(material, known, scale_um, colour.name, marker)
    return trace.update(
        showlegend=False, hovertemplate="%{text}<br>" + colour.name + " %{marker.color:.3g}<extra></extra>"
    )


def _points(material: Material, which: np.ndarray, scale_um: float, name: str, marker: dict) -> go.Scatter:
    table = material.run.particles
    size = table["equivalent_diameter_um"]
    text = [
        f"particle {int(table['particle_id'][k])}, {table['state'][k]}, calibration {table['calibration'][k]}"
        + (f", {size[k]:.3g} µm" if np.isfinite(size[k]) else f", {table['area_px'][k]:.0f} px")
        for k in which
    ]
    return go.Scatter(
        x=light(scale_um * table["x_px"][which]), y=light(scale_um * table["y_px"][which]), mode="markers", name=name,
        text=text, hovertemplate="%{text}<extra></extra>", marker=marker | {"line": {"width": 0.5, "color": "white"}},
    )  # fmt: skip


def _extent(material: Material) -> tuple[int, int]:
    sides = (np.nanmax(material.run.particles[name], initial=1.0) for name in ("y_px", "x_px"))
    height, width = (int(side) + 20 for side in sides)
    return height, width
