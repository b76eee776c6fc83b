"""The ensemble over time: the spread of the particles beside the cell's voltage and current."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from daemon.api.reduce import bucket_starts, bucket_width_s, extreme_rows
from daemon.insight.run_data import Columns
from daemon.photometry.ensemble import weighted
from daemon.report.choice import first_cracks
from daemon.report.material import Material
from daemon.report.page import Part, Section
from daemon.report.style import BLACK, BLUE, GREEN, ORANGE, POTENTIAL, band, counted, figure, light, line

QUANTILES = (5.0, 25.0, 50.0, 75.0, 95.0)
MIN_PARTICLES = 4  # below, quartiles are single particles
CELL_ROWS = 6000
"""Samples of the cell drawn; every extreme is among them."""


def section(material: Material) -> Section:
    """Bands of SoC, or of contrast where no particle is calibrated, over voltage and current."""
    return Section("ensemble", "The ensemble and its spread", [*_words(material), *_figure(material)])


def spread_over_time(values: np.ndarray) -> np.ndarray:
    """(5, M) `QUANTILES` over the particles of (M, P); NaN where fewer than `MIN_PARTICLES` are known."""
    enough = np.isfinite(values).sum(axis=1) >= MIN_PARTICLES
    found = np.full((len(QUANTILES), len(values)), np.nan)
    if enough.any():
        found[:, enough] = np.nanpercentile(values[enough], QUANTILES, axis=1)
    return found


def active_soc(material: Material) -> np.ndarray:
    """(M, P) SoC of the particles that are active at the end and calibrated; NaN otherwise, and from a crack on.

    A crack changes a particle's scale, so that its curve no longer holds.
    """
    soc = np.where(material.active, material.traces.soc, np.nan).astype(float)
    whole_until = first_cracks(material.run)
    return np.where(material.traces.t_s[:, None] < whole_until, soc, np.nan)


def mean_soc(material: Material) -> np.ndarray:
    """(M,) area-weighted, over the same particles: what an average over the field sees."""
    areas = np.nan_to_num(material.run.particles["area_px"])
    return np.array([weighted(row, areas)[0] for row in active_soc(material)])


def cell_record(echem: Columns, rows: int = CELL_ROWS) -> Columns:
    """The cell's record with at most about `rows` rows, every extreme of voltage and current kept."""
    if len(echem["t_s"]) <= rows:
        return echem
    order = np.argsort(echem["t_s"], kind="stable")
    t_s = echem["t_s"][order]
    values = np.stack([echem[name][order] for name in ("voltage_v", "current_ma")])
    starts = bucket_starts(t_s, bucket_width_s(float(t_s[-1] - t_s[0]), rows, 2))
    keep = order[extreme_rows(values, starts)]
    return {name: column[keep] for name, column in echem.items()}


def _words(material: Material) -> list[Part]:
    soc, traces = active_soc(material), material.traces
    known = int(np.isfinite(soc).any(axis=0).sum())
    told: list[Part] = []
    if not len(traces.t_s):
        return ["The run holds no frame that can be read: nothing is known of its particles over time."]
    if known >= MIN_PARTICLES:
        quantiles = spread_over_time(soc)
        width = quantiles[3] - quantiles[1]
        at = int(np.nanargmax(np.where(np.isfinite(width), width, -1.0)))
        told.append(
            f"SoC of {counted(known, 'calibrated active particle')} of {len(material.state)}. The middle half of them"
            f" is at most {width[at]:.2f} wide, at {material.time.at(float(traces.t_s[at]))}; half of the time it is"
            f" wider than {np.nanmedian(width):.2f}. Each point is a mean over {_per_point(material)}."
        )
        cracked = int((np.isfinite(first_cracks(material.run)) & material.active).sum())
        if cracked:
            told.append(
                f"{counted(cracked, 'active particle')} cracked and count until then only: their curves no longer hold."
            )
    else:
        told.append(
            f"SoC is known for {counted(known, 'active particle')}, too few for a spread: contrast is shown instead."
            " SoC needs a calibration from rests or a half at C/20 or slower, and the cell's record."
        )
    if not len(material.run.echem["t_s"]):
        told.append("The run has no record of the cell: voltage, current and everything that rests on them is missing.")
    elif np.isfinite(material.capacity_mah):
        told.append(
            f"1C is {material.capacity_mah:.3g} mA ({material.capacity_origin}); positive current charges the cell."
        )
    told.append(
        "At constant current the current fixes the mean rate of all particles: that mean says nothing of their"
        " kinetics. How much they differ shows in the width of the bands, in their lags, and when the potential steps."
    )
    return told


def _per_point(material: Material) -> str:
    frames, points = len(material.frames["t_s"]), max(len(material.traces.t_s), 1)
    return counted(max(1, round(frames / points)), "frame")


def _figure(material: Material) -> list[Part]:
    traces, echem = material.traces, cell_record(material.run.echem)
    soc = active_soc(material)
    by_soc = int(np.isfinite(soc).any(axis=0).sum()) >= MIN_PARTICLES
    values = soc if by_soc else np.where(material.active, traces.contrast, np.nan).astype(float)
    with_cell = bool(len(echem["t_s"]))
    if not with_cell and not np.isfinite(values).any():
        return []
    rows = 3 if with_cell else 1
    heights = [0.5, 0.28, 0.22] if with_cell else [1.0]
    made = figure(rows, height=720 if with_cell else 380, shared_xaxes=True, vertical_spacing=0.04, row_heights=heights)
    for trace in _bands(material, values, by_soc):
        made.add_trace(trace, 1, 1)
    made.update_yaxes(title="SoC" if by_soc else "Contrast F/F0 - 1", row=1, col=1)
    if by_soc:
        made.update_yaxes(range=[-0.03, 1.03], row=1, col=1)
    if with_cell:
        x = material.time(echem["t_s"])
        made.add_trace(line(x, echem["voltage_v"], "voltage", GREEN, showlegend=False), 2, 1)
        made.add_trace(line(x, echem["current_ma"], "current", ORANGE, showlegend=False), 3, 1)
        made.update_yaxes(title=POTENTIAL, row=2, col=1)
        made.update_yaxes(title="Current / mA", row=3, col=1)
    made.update_xaxes(title=material.time.title, row=rows, col=1)
    return [made]


def _bands(material: Material, values: np.ndarray, by_soc: bool) -> list[go.Scatter]:
    x, q = material.time(material.traces.t_s), spread_over_time(values)
    traces = [
        *band(x, q[0], q[4], "5 to 95 % of particles", BLUE, 0.15),
        *band(x, q[1], q[3], "middle half", BLUE, 0.3),
    ]
    traces.append(line(x, q[2], "median particle", BLUE, width=2))
    if by_soc:
        traces.append(line(x, mean_soc(material), "area-weighted mean", BLACK, dash="dash"))
    else:
        traces += [_few(x, values)] if not np.isfinite(q).any() else []
    return traces


def _few(x: np.ndarray, values: np.ndarray) -> go.Scatter:
    """Every particle by itself, where there are too few for a spread: one trace with gaps between."""
    columns = [k for k in range(values.shape[1]) if np.isfinite(values[:, k]).any()]
    gap = np.array([np.nan])
    xs = np.concatenate([np.concatenate([x, gap]) for _ in columns] or [gap])
    ys = np.concatenate([np.concatenate([values[:, k], gap]) for k in columns] or [gap])
    return go.Scatter(x=light(xs), y=light(ys), mode="lines", line={"color": BLUE, "width": 1}, name="single particles")
