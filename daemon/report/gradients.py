"""Gradients within particles: from surface to core, and of rods from end to end, beside where their light has moved."""

from __future__ import annotations

from collections import Counter
from html import escape

import numpy as np
import plotly.graph_objects as go

from daemon.report.material import Material
from daemon.report.page import Html, Part, Row, Section, Table
from daemon.report.pictures import clip_html
from daemon.report.rods import Rod
from daemon.report.style import BLUE, GREEN, ORANGE, band, counted, figure, line

TITLE = "Gradients within particles"
WHYS = {
    "round": "too round for an axis",
    "short": "too short beside the optics' blur",
    "not_measured": "not measured",
    "no_calibration": "without a state-of-charge curve",
}


def section(material: Material) -> Section:
    """Why there is no axial gradient, typical sizes, and the rods with the largest ones."""
    told: list[Part] = []
    whys = Counter(str(row["axial_unknown_why"]) for row in material.axes)
    if not material.axes:
        return Section("gradients", TITLE, ["The run's file does not tell the particles' axes."])
    known = whys.pop("", 0)
    text = f"{counted(known, 'rod')} of {counted(len(material.axes), 'particle')} have an axial gradient."
    if whys:
        text += f" The others: {'; '.join(f'{WHYS.get(why, why)} ({n})' for why, n in whys.most_common())}."
    told.append(text)
    if not material.rods:
        return Section("gradients", TITLE, told)
    told.append(
        "The radial gradient is the SoC of the outermost quarter of the area less that of the innermost; the axial one"
        " that of the last quarter along the long axis less that of the first. The axis runs from o to the arrow. The"
        " shift is how far the light's centroid has moved along it since the baseline, drift taken off."
    )
    told.append(_sizes(material.rods))
    for rod in material.rods:
        told.append(Html(f"<h3>Particle {rod.particle_id}</h3>"))
        told.append(Row([Html(_picture(material, rod)), _traces(material, rod)]))
    return Section("gradients", TITLE, told)


def _sizes(rods: list[Rod]) -> Table:
    rows = [
        (
            rod.particle_id, f"{rod.axis_deg:.0f}°", _largest(rod.axial), _middle(rod.axial_sigma),
            _largest(rod.radial), _middle(rod.radial_sigma), _largest(rod.shift_px), _middle(rod.shift_sigma_px),
        )
        for rod in rods
    ]  # fmt: skip
    head = ("particle", "axis", "axial, largest", "+-", "radial, largest", "+-", "shift, largest / px", "+-")
    return Table(head, rows, "Largest: 95th percentile of the magnitude over the run; +-: median standard deviation.")


def _largest(values: np.ndarray) -> float:
    known = np.abs(values[np.isfinite(values)])
    return float(np.quantile(known, 0.95)) if len(known) else float("nan")


def _middle(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _picture(material: Material, rod: Rod) -> str:
    """The particle in the reference frame, and its axis beside it."""
    clip = ""
    if material.labels is not None and material.reference_dn is not None:
        label = f"particle {rod.particle_id}"
        clip = clip_html(material.reference_dn, material.labels, rod.index, material.pixel_um, label)
    down, right = np.sin(np.radians(rod.axis_deg)), np.cos(np.radians(rod.axis_deg))
    x0, y0, x1, y1 = 40 - 30 * right, 40 - 30 * down, 40 + 30 * right, 40 + 30 * down
    title = escape(f"axis of particle {rod.particle_id}: {rod.axis_deg:.0f} degrees from the image's x axis, downwards")
    head = f"head-{rod.particle_id}"
    return clip + (
        f'<svg class="axis" width="80" height="80" viewBox="0 0 80 80" role="img"><title>{title}</title>'
        f'<defs><marker id="{head}" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto">'
        f'<path d="M0,0 L6,3 L0,6 z" fill="{ORANGE}"/></marker></defs>'
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{ORANGE}" stroke-width="3"'
        f' marker-end="url(#{head})"/>'
        f'<circle cx="{x0:.1f}" cy="{y0:.1f}" r="4" fill="white" stroke="{ORANGE}" stroke-width="2"/></svg>'
    )


def _traces(material: Material, rod: Rod) -> go.Figure:
    """Axial beside radial gradient; below them the shift."""
    made = figure(2, height=340, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.6, 0.4])
    x = material.time(rod.t_s)
    for trace in band(x, rod.axial - rod.axial_sigma, rod.axial + rod.axial_sigma, "axial +- 1 sigma", BLUE):
        made.add_trace(trace, 1, 1)
    made.add_trace(line(x, rod.axial, "axial", BLUE), 1, 1)
    made.add_trace(line(material.time(rod.radial_t_s), rod.radial, "radial", GREEN, width=1), 1, 1)
    size = 1000.0 * material.pixel_um
    scale, unit = (size, "nm") if np.isfinite(size) else (1.0, "px")
    shift, sigma = scale * rod.shift_px, scale * rod.shift_sigma_px
    for trace in band(material.time(rod.radial_t_s), shift - sigma, shift + sigma, "shift +- 1 sigma", ORANGE):
        made.add_trace(trace.update(showlegend=False), 2, 1)
    made.add_trace(line(material.time(rod.radial_t_s), shift, "shift", ORANGE), 2, 1)
    made.update_yaxes(title="Gradient / SoC", row=1, col=1)
    made.update_yaxes(title=f"Shift / {unit}", row=2, col=1)
    made.update_xaxes(title=material.time.title, row=2, col=1)
    return made.update_layout(margin={"t": 66, "b": 44})
