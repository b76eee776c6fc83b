"""dQ/dV of the cell beside dC/dV of the particles: peaks that each particle has at a potential of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from daemon.insight.cell_halves import CellHalf, substantial
from daemon.insight.dvdq import Derivative, VoltageGrid, by_potential, suited_step_v
from daemon.report.material import Material
from daemon.report.page import Part, Section, Table
from daemon.report.stats import medians, spread
from daemon.report.style import BLACK, BLUE, GREY, ORANGE, POTENTIAL, band, duration, figure, line

POINTS = 400
"""Means of the half that is differentiated."""
ASKED = 25
"""Particles that say how stiff the curves must be."""
MIN_CHANGE_SIGMAS = 30.0
"""Of a particle's own change in the half over the noise of a point: below, its derivative is noise."""
SINGLES_ROOM = 1.6  # of the quartiles: one noisy particle must not flatten all
HALF_WORDS = "dQ/dV needs a half of the cell's record with a potential that moves and frames taken meanwhile"


@dataclass(frozen=True)
class HalfDerivatives:
    """One half differentiated; shares of the own change per volt, positive in the half's direction."""

    half: CellHalf
    cell: Derivative
    """Of the charge, mAh/V."""
    particles: Derivative
    """(G, K)"""
    index: np.ndarray
    """(K,) particle indices."""
    width_mv: float
    """Full width at half maximum of what an infinitely sharp step becomes."""


def section(material: Material) -> Section:
    """The slowest cycle: closest to equilibrium."""
    title = "Differential capacity: cell and particles"
    halves = slowest(material)
    if not halves:
        return Section("derivatives", title, [_why_not(material)])
    found, told = [], []
    for half in halves:
        try:
            found.append(differentiated(material, half))
        except ValueError as error:
            told.append(f"The {half.half} of cycle {half.cycle} cannot be differentiated: {error}.")
    if not found:
        return Section("derivatives", title, list(told))
    parts: list[Part] = [
        f"Cycle {found[0].half.cycle}, the slowest with frames ({_c_rate(material, found[0].half)}). Above, the cell's"
        " dQ/dV; below, the particles' dC/dV, each as a share of its own change of contrast, on the same grid and"
        f" with the same smoothing (a sharp step becomes {_widths(found)} wide). Contrast is not proportional to"
        " charge: compare where peaks lie and how they differ from particle to particle, not their height with the"
        " cell's.",
        *told,
        _figure(material, found),
        *_shifts(found),
    ]
    return Section("derivatives", title, parts)


def slowest(material: Material) -> list[CellHalf]:
    """The halves of the slowest cycle in which frames were taken, at most one of a kind."""
    t_s = material.traces.t_s
    usable = [
        half for half in substantial(material.halves)
        if half.whole and ((t_s >= half.start_t_s) & (t_s <= half.drive_end_t_s)).any()
    ]  # fmt: skip
    if not usable:
        return []
    first = min(usable, key=lambda half: (round(half.mean_current_ma, 6), -half.passed_mah))
    return [half for half in usable if half.cycle == first.cycle]


def differentiated(material: Material, half: CellHalf) -> HalfDerivatives:
    """Raises `ValueError` with a sentence where the half does not allow it."""
    columns = ("contrast", "contrast_sigma")
    traces = material.run.traces(POINTS, half.start_t_s, half.drive_end_t_s, columns=columns)
    driven = half.driven
    voltage = np.interp(traces.t_s, half.t_s[driven], half.voltage_v[driven], np.nan, np.nan)
    charge = np.interp(traces.t_s, half.t_s[driven], half.charge_mah[driven], np.nan, np.nan)
    share, sigma, index = _shares(material, traces.contrast.astype(float), traces.contrast_sigma)
    ordered, both = by_potential(voltage, np.column_stack([np.abs(charge - half.charge_mah[0]), share]))
    passed, share = both[:, 0], both[:, 1:]
    grid = VoltageGrid(ordered, suited_step_v(ordered, passed))
    asked = share[:, :: max(1, share.shape[1] // ASKED)]
    stiffness = grid.shared_stiffness(passed / max(passed.max(), 1e-12), asked)
    cell, particles = grid.differentiate(passed, stiffness), grid.differentiate(share, stiffness, sigma)
    return HalfDerivatives(half, cell, particles, index, 1000.0 * grid.resolution_v(stiffness))


def _shares(material: Material, contrast: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, K) contrasts as shares of each particle's own change, (K,) noise of a point, (K,) indices."""
    few = max(1, len(contrast) // 50)
    noise = medians(sigma)
    begin, end = contrast[:few].mean(axis=0), contrast[-few:].mean(axis=0)
    with np.errstate(invalid="ignore"):
        good = np.isfinite(contrast).all(axis=0) & (np.abs(end - begin) > MIN_CHANGE_SIGMAS * noise)
    good &= material.active & (material.run.particles["calibration"] != "folded")
    span = np.where(good, end - begin, 1.0)
    return ((contrast - begin) / span)[:, good], np.abs(noise / span)[good], np.flatnonzero(good)


def _figure(material: Material, found: list[HalfDerivatives]) -> go.Figure:
    titles = [f"{each.half.half}, {_c_rate(material, each.half)}" for each in found]
    columns = len(found)
    made = figure(
        2, columns, height=520, shared_xaxes=True, vertical_spacing=0.05, horizontal_spacing=0.09, subplot_titles=titles
    )
    for column, each in enumerate(found, 1):
        first = column == 1
        volts = each.cell.voltage_v
        made.add_trace(line(volts, each.cell.slope, "cell, dQ/dV", BLACK, width=2, showlegend=first), 1, column)
        if each.particles.slope.shape[1]:
            low, middle, high = np.quantile(each.particles.slope, (0.25, 0.5, 0.75), axis=1)
            for trace in band(volts, low, high, "middle half of particles", BLUE):
                made.add_trace(trace.update(showlegend=bool(trace.name) and first), 2, column)
            made.add_trace(line(volts, middle, "median particle, dC/dV", BLUE, width=2, showlegend=first), 2, column)
            _singles(made, material, each, column)
            room = SINGLES_ROOM * float(np.abs([low, high]).max())
            made.update_yaxes(range=[min(0.0, SINGLES_ROOM * float(low.min())), room], row=2, col=column)
        made.update_xaxes(title=POTENTIAL, row=2, col=column)
    made.update_yaxes(title="dQ/dV / mAh/V", row=1, col=1)
    made.update_yaxes(title="dC/dV / own change per V", row=2, col=1)
    return made.update_layout(legend={"y": 1.08}, margin={"t": 70})


def _singles(made: go.Figure, material: Material, each: HalfDerivatives, column: int) -> None:
    """The gallery's particles, thin."""
    for choice in material.chosen:
        at = np.flatnonzero(each.index == choice.index)
        if len(at):
            colour, name = (ORANGE, "unusual") if choice.kind == "unusual" else (GREY, "others of the gallery")
            first = column == 1 and not any(trace.name == name for trace in made.data)
            identity = int(material.run.particle_id[choice.index])
            made.add_trace(
                line(each.cell.voltage_v, each.particles.slope[:, at[0]], name, colour, width=0.8, legendgroup=name,
                     showlegend=first, hovertemplate=f"particle {identity}, %{{x:.3f}} V<extra></extra>"),
                2, column,
            )  # fmt: skip


def _shifts(found: list[HalfDerivatives]) -> list[Part]:
    rows = []
    for each in found:
        later = 1000.0 if each.half.half == "charge" else -1000.0
        shift = later * (each.particles.peak_v - each.cell.peak_v)
        told = spread(shift)
        rows.append((
            each.half.half, float(each.cell.peak_v), told.count, len(shift), told.median, told.median_lo,
            told.median_hi,
            told.q25, told.q75,
        ))  # fmt: skip
    head = (
        "half", "cell's peak / V", "particles with a peak", "of", "peak after the cell's, median / mV", "95 % from /"
        " mV",
        "to / mV", "25 % / mV", "75 % / mV",
    )  # fmt: skip
    caption = (
        "A particle's peak that lies later in the half (higher on charge, lower on discharge) is its own polarisation."
        " Peaks at the ends of the potential range, or below five sigma, do not count."
    )
    return [Table(head, rows, caption)]


def _why_not(material: Material) -> str:
    if not len(material.run.echem["t_s"]):
        return f"{HALF_WORDS}; the run has no record of the cell."
    return f"{HALF_WORDS}; the record has no such whole half ({len(material.halves)} found)."


def _c_rate(material: Material, half: CellHalf) -> str:
    lasted = duration(half.drive_end_t_s - half.start_t_s)
    rate = half.mean_current_ma / material.capacity_mah
    return (
        f"{half.mean_current_ma:.3g} mA, {rate:.3g}C, {lasted}"
        if np.isfinite(rate)
        else f"{half.mean_current_ma:.3g} mA"
    )


def _widths(found: list[HalfDerivatives]) -> str:
    return " and ".join(f"{each.width_mv:.0f} mV" for each in found)
