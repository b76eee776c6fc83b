"""Kinetic models of the particles that matter: rates and diffusivities, and the model's prediction over the trace."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from daemon.errors import InsightError
from daemon.insight.models import FitResult, Models, fit_models
from daemon.insight.step_rates import soc_sigmas, step_slopes
from daemon.report.material import Material
from daemon.report.page import Part, Section, Table
from daemon.report.style import BLUE, ORANGE, figure, line

TITLE = "Kinetic models"
DRAWN = 6
POINTS = 800


def section(material: Material) -> Section:
    """Of the gallery's particles; all of them are `photometryctl models`."""
    wanted = [int(material.run.particle_id[choice.index]) for choice in material.chosen]
    if not wanted:
        return Section("kinetics", TITLE, ["No particle was chosen to be modelled."])
    return Section("kinetics", TITLE, [*_modelled(material, wanted), *_steps(material)])


def _modelled(material: Material, wanted: list[int]) -> list[Part]:
    try:
        with np.errstate(all="ignore"):
            found = fit_models(material.run, wanted)
    except InsightError as error:
        return [f"No kinetics can be told: {error.detail}."]
    fits = [fit for fit in found.results if fit.particle_id in wanted]
    parts: list[Part] = [_in_words(found), _table(fits)]
    drawn = [fit for fit in fits if len(fit.predicted) and np.isfinite(fit.rate_per_h)][:DRAWN]
    if drawn:
        parts += [
            "The model knows the cell's voltage; at each point it is drawn to the measured charge by a tenth, so that"
            " the distance shows what it does not explain.",
            _overlay(material, drawn),
        ]
    parts.append("The command photometryctl models writes every particle's parameters as PyBaMM parameter sets.")
    return parts


def _steps(material: Material) -> list[Part]:
    """Rates over overpotential of the gallery's particles; nothing in a run without potential steps."""
    run = material.run
    if not len(run.rates["particle_id"]):
        return []
    told = step_slopes(run.rates, run.particle_id, soc_sigmas(run))
    if told.reason:
        return [f"No rate over overpotential can be told from its potential steps: {told.reason}."]
    least, most = (1e3 * volts for volts in told.overpotential_v)
    known = np.isfinite(told.slope_per_h_v)
    words = (
        f"Potential steps tell how {known.sum()} particles' rates answer to overpotential ({least:.0f} to {most:.0f}"
        " mV): the slope of rate over overpotential at none, by Butler and Volmer, with 90 % intervals."
    )
    head = ("particle", "slope / (1/(h V))", "from", "to", "over the median particle's", "known to", "steps")
    middle = float(np.median(told.slope_per_h_v[known]))
    rows = [
        (int(run.particle_id[k]), told.slope_per_h_v[k], told.slope_lo_per_h_v[k], told.slope_hi_per_h_v[k],
         told.slope_per_h_v[k] / middle, told.relative_sigma[k], int(told.steps[k]))
        for k in (choice.index for choice in material.chosen)
    ]  # fmt: skip
    return [words, Table(head, rows, "The last but one is a standard deviation of what stands before it, relative.")]


def _in_words(found: Models) -> str:
    kind = "transformation" if found.two_phase else "exchange at SoC 0.5"
    told = f"Rates of {kind} in 1/h of a particle's own charge, with 90 % intervals. U: {found.equilibrium_origin}."
    if np.isfinite(found.scale_sigma):
        told += f" Their common scale is known to {found.scale_sigma:.0%}, a comparison of particles far better."
    return told


def _table(fits: list[FitResult]) -> Table:
    head = ("particle", "rate / (1/h)", "from", "to", "D / (m2/s)", "from", "to", "missed by / SoC", "not told")
    rows = [
        (fit.particle_id, fit.rate_per_h, fit.rate_lo_per_h, fit.rate_hi_per_h, fit.diffusivity_m2_s,
         fit.diffusivity_lo_m2_s, fit.diffusivity_hi_m2_s, _missed(fit), fit.reason)
        for fit in fits
    ]  # fmt: skip
    return Table(head, rows, "A dash is not known; one end of an interval may be known alone, as a bound.")


def _missed(fit: FitResult) -> float:
    if len(fit.predicted) != len(fit.soc):
        return float("nan")  # two phases: a rate of passages, no course
    gap = fit.soc - fit.predicted
    gap = gap[np.isfinite(gap)]
    return float(np.sqrt(np.mean(gap**2))) if len(gap) else float("nan")


def _overlay(material: Material, fits: list[FitResult]) -> go.Figure:
    rows = -(-len(fits) // 2)
    titles = [f"particle {fit.particle_id}" for fit in fits]
    spacing = {"horizontal_spacing": 0.07, "vertical_spacing": 0.5 / (rows + 1)}
    made = figure(rows, 2, height=90 + 190 * rows, subplot_titles=titles, **spacing)
    for place, fit in enumerate(fits):
        at, first = (place // 2 + 1, place % 2 + 1), place == 0
        step = max(1, -(-len(fit.t_s) // POINTS))
        x = material.time(fit.t_s[::step])
        made.add_trace(line(x, fit.soc[::step], "measured", BLUE, legendgroup="m", showlegend=first), *at)
        made.add_trace(line(x, fit.predicted[::step], "model", ORANGE, width=1, legendgroup="p", showlegend=first), *at)
    made.update_yaxes(title="SoC", col=1, range=[-0.05, 1.05])
    made.update_yaxes(col=2, range=[-0.05, 1.05])
    return made.update_xaxes(title=material.time.title, row=rows)
