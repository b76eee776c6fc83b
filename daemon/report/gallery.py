"""The particles that matter, one by one: a picture, the reason, their traces."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from daemon.events import Event
from daemon.report.choice import Choice, last_retention, of_cycle
from daemon.report.material import Material
from daemon.report.page import Html, Part, Row, Section, Table
from daemon.report.pictures import clip_html, strip_html
from daemon.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SYMBOLS, band, figure, light, line

MAX_MARKS = 200
"""Events drawn on one trace; a particle with more shows the largest."""
MARKED = {"step": GREY, "crack": RED, "lost": PURPLE}


def section(material: Material) -> Section:
    """Each chosen particle under its own heading."""
    if not material.chosen:
        return Section("gallery", "Particles that matter", ["No active particle to show, and none failed or cracked."])
    kinds = {choice.kind for choice in material.chosen}
    absent = [kind for kind in ("failed", "cracked", "unusual") if kind not in kinds]
    parts: list[Part] = []
    if "asked for" not in kinds and absent:
        parts.append(f"None of the particles is {' or '.join(absent)} by what the run could tell.")
    if not material.run.cycles["cycle"].size:
        parts.append("Without measured halves of the cell nothing can be called unusual or typical.")
    parts.append(
        "The gradient is the SoC of the outermost quarter of the area less that of the innermost. The pictures are cut"
        " from the run's reference frame; orange is the particle's mask, dotted blue its neighbours'."
    )
    for place, choice in enumerate(material.chosen):
        parts += _entry(material, place, choice)
    return Section("gallery", "Particles that matter", parts)


def _entry(material: Material, place: int, choice: Choice) -> list[Part]:
    run, k = material.run, choice.index
    identity = int(run.particle_id[k])
    heading = Html(f"<h3>Particle {identity}: {choice.kind}</h3>")
    clip = ""
    if material.labels is not None and material.reference_dn is not None:
        clip = clip_html(material.reference_dn, material.labels, k, material.pixel_um, f"particle {identity}")
    missing = "" if clip else '<p class="note">No picture: the newest masks do not hold it.</p>'
    left = Html(clip or missing)
    strips = [Html(strip_html(clip, material.time.at(float(clip.t_s[0])))) for clip in material.clips[place]]
    return [heading, choice.reason, Row([left, _facts(material, k), _traces(material, place, k)]), *strips]


def _facts(material: Material, k: int) -> Table:
    run, cycle = material.run, material.cycle
    table = run.particles
    size_um = float(table["equivalent_diameter_um"][k])
    size = ("diameter / µm", size_um) if np.isfinite(size_um) else ("area / px", float(table["area_px"][k]))
    rows = [("state", table["state"][k]), ("calibration", table["calibration"][k]), size]
    rows += [(f"lag, {half} / s", float(of_cycle(run, "lag_s", half, cycle)[k])) for half in ("charge", "discharge")]
    rows += [
        (f"rate, {half} / (1/h)", float(of_cycle(run, "rate_per_h", half, cycle)[k]))
        for half in ("charge", "discharge")
    ]
    rows.append(("retention", float(last_retention(run)[k])))
    rows.append(("events", len(_events(material, k))))
    return Table(("", ""), [row for row in rows if not (isinstance(row[1], float) and np.isnan(row[1]))])


def _traces(material: Material, place: int, k: int) -> go.Figure:
    """SoC with its interval, or contrast; below it the gradient, or the layers' contrasts."""
    details, x = material.details, material.time(material.details.t_s)
    soc = details.soc[:, place]
    by_soc = bool(np.isfinite(soc).any())
    made = figure(2, height=360, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.6, 0.4])
    values = soc if by_soc else details.contrast[:, place]
    if by_soc:
        for trace in band(x, details.soc_lo[:, place], details.soc_hi[:, place], "90 % interval", BLUE):
            made.add_trace(trace, 1, 1)
    made.add_trace(line(x, values, "SoC" if by_soc else "contrast", BLUE), 1, 1)
    for trace in _marks(material, k, values):
        made.add_trace(trace, 1, 1)
    _below(made, material, place)
    made.update_yaxes(title="SoC" if by_soc else "Contrast", row=1, col=1)
    made.update_xaxes(title=material.time.title, row=2, col=1)
    return made.update_layout(margin={"t": 66, "b": 44})


def _below(made: go.Figure, material: Material, place: int) -> None:
    details, x = material.details, material.time(material.details.t_s)
    gradient, sigma = details.gradient[:, place], details.gradient_sigma[:, place]
    if np.isfinite(gradient).any():
        for trace in band(x, gradient - sigma, gradient + sigma, "gradient +- 1 sigma", GREEN):
            made.add_trace(trace.update(showlegend=False), 2, 1)
        made.add_trace(line(x, gradient, "gradient", GREEN), 2, 1)
        made.update_yaxes(title="Gradient / SoC", row=2, col=1)
        return
    made.add_trace(line(x, details.layers[:, place, 0], "surface", ORANGE, width=1), 2, 1)
    made.add_trace(line(x, details.layers[:, place, 3], "core", GREEN, width=1), 2, 1)
    made.update_yaxes(title="Layers' contrast", row=2, col=1)


def _events(material: Material, k: int) -> list[Event]:
    identity = int(material.run.particle_id[k])
    return [event for event in material.run.events if event.particle_id == identity]


def _marks(material: Material, k: int, values: np.ndarray) -> list[go.Scatter]:
    """A mark for each event at the trace's value, by kind."""
    t_s = material.details.t_s
    known = np.isfinite(values)
    if not known.any():
        return []
    marks = []
    events = _events(material, k)
    for kind in sorted({event.kind.value for event in events}):
        mine = [event for event in events if event.kind.value == kind]
        mine = sorted(mine, key=lambda event: -abs(np.nan_to_num(event.magnitude)))[:MAX_MARKS]
        at = np.array([event.t_s for event in mine])
        marker = {"color": MARKED.get(kind, PURPLE), "size": 7, "line": {"width": 0.5, "color": "white"}}
        marker["symbol"] = SYMBOLS[sorted(MARKED).index(kind)] if kind in MARKED else "triangle-up"
        marks.append(
            go.Scatter(
                x=light(material.time(at)), y=light(np.interp(at, t_s[known], values[known])), mode="markers",
                name=kind, marker=marker,
            )
        )  # fmt: skip
    return marks
