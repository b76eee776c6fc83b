"""Why: what drives failure, cracking, fade, rate and lag; effect sizes with their intervals."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from daemon.insight.drivers import Drivers, Effect, Fate, drivers
from daemon.report.material import Material
from daemon.report.page import Part, Section, Table
from daemon.report.style import BLUE, GREY, ORANGE, figure

TITLE = "What drives them"
MARKS = {"driver": BLUE, "one of": BLUE, "goes along": ORANGE, "none": GREY}
IN_WORDS = {"driver": "driver", "one of": "one of several", "goes along": "goes along with one", "none": "not told"}
ROW_PX = 24


def section(material: Material) -> Section:
    """What was found in words, every effect with its interval, and what each test was of."""
    if not len(material.run.particle_id):
        return Section("why", TITLE, ["There are no particles."])
    found = drivers(material.run)
    parts: list[Part] = [*found.sentences()]
    tested = [fate for fate in found.fates if fate.effects]
    if tested:
        parts.append(
            "Each point is a property against a fate, per standard deviation of the property; bars are 95 % intervals."
            " For failure and cracking it is the hazard ratio, 1 is none; for the others standard deviations of the"
            " fate, 0 is none. What explains best is a driver, which need not be the cause."
        )
        parts += [_forest(fate) for fate in tested]
        parts.append(_table(found))
    parts += [f"Not used: {name}, {why}." for name, why in found.unknown.items()]
    return Section("why", TITLE, parts)


def _forest(fate: Fate) -> go.Figure:
    ordered = sorted(fate.effects, key=lambda effect: -effect.p)
    made = figure(height=110 + ROW_PX * len(ordered))
    shown: set[str] = set()
    for effect in ordered:
        name = IN_WORDS[effect.standing]
        made.add_trace(
            go.Scatter(
                x=[effect.effect], y=[effect.covariate.replace("_", " ")], mode="markers", name=name, legendgroup=name,
                showlegend=name not in shown, marker={"color": MARKS[effect.standing], "size": 9},
                error_x={"type": "data", "symmetric": False, "array": [effect.hi - effect.effect],
                         "arrayminus": [effect.effect - effect.lo], "thickness": 1.5},
                hovertemplate=f"%{{y}}: %{{x:.3g}}, q = {effect.q:.2g}<extra></extra>",
            )
        )  # fmt: skip
        shown.add(name)
    of_failures = fate.failures is not None
    made.add_vline(1.0 if of_failures else 0.0, line={"color": GREY, "dash": "dash", "width": 1})
    count = f"{fate.failures} of {fate.particles} particles" if of_failures else f"{fate.particles} particles"
    unit = "Hazard ratio" if of_failures else "Effect / standard deviations"
    made.update_xaxes(title=f"{unit} of {fate.words} ({count})", type="log" if of_failures else "linear")
    return made.update_layout(margin={"l": 190})


def _table(found: Drivers) -> Table:
    head = ("fate", "property", "effect", "95 % from", "to", "q", "standing", "particles")
    named: list[tuple[Fate, Effect]] = [
        (fate, effect) for fate in found.fates for effect in fate.effects if effect.standing != "none"
    ]
    rows = [
        (fate.words, each.covariate.replace("_", " "), each.effect, each.lo, each.hi, each.q, IN_WORDS[each.standing],
         each.particles)
        for fate, each in sorted(named, key=lambda pair: np.nan_to_num(pair[1].q))
    ]  # fmt: skip
    caption = (
        "q is adjusted for all tests of this run: of what is named at most 5 % is expected to be false."
        if rows
        else "No property is told to go with any fate."
    )
    return Table(head, rows, caption)
