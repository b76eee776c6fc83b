"""What an average over all particles hides: a diffraction pattern or a cycler sees the mean alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from scipy.ndimage import median_filter

from daemon.events import EventKind
from daemon.insight.cell_halves import CellHalf, substantial
from daemon.insight.run_data import RunData
from daemon.report.choice import of_cycle
from daemon.report.ensemble import active_soc, mean_soc
from daemon.report.material import Material
from daemon.report.page import Part, Section, Table
from daemon.report.stats import spread
from daemon.report.style import BLACK, HALF_COLOURS, duration, figure, light, line

NEAR = 0.1
"""Of SoC: within this of the mean a particle counts as represented by it."""
LEVELS = (0.25, 0.5, 0.75)
BINS = np.linspace(0.0, 1.0, 21)
MAP_POINTS, MAP_PARTICLES = 800, 300
MIN_PARTICLES = 5
SEEN_SIGMAS = 3.0
AROUND = 21
"""Points over which the usual bend of the mean is taken."""
TOGETHER, ONE_BY_ONE = 0.8, 0.4
"""Ratios of durations above which particles react together, below which one after the other. Words only."""


@dataclass(frozen=True)
class Hidden:
    """How far the particles are from their mean, over the driven part of the run."""

    share: float
    """Mean share of particles farther than `NEAR` from the mean."""
    sure: float
    """The same, counting only those whose whole 90 % interval lies beyond."""
    worst: float
    worst_t_s: float


def section(material: Material) -> Section:
    """Words and numbers, then the pictures."""
    soc = active_soc(material)
    if np.isfinite(soc).any(axis=0).sum() < MIN_PARTICLES:
        parts: list[Part] = [
            "Fewer than five active particles have a SoC: what their mean hides cannot be told. Onsets and durations"
            " need the cell's record, SoC a calibration as well."
        ]
        return Section("average", "What the average hides", [*parts, *_timing(material)])
    mean, found = mean_soc(material), hidden(material)
    parts = [
        "The area-weighted mean over the particles is what a diffraction pattern or the cell's charge would show of"
        f" this field. On average {found.share:.0%} of the particles are more than {NEAR} of SoC away from it,"
        f" {found.sure:.0%} surely so (their whole 90 % interval); at worst {found.worst:.0%}, at"
        f" {material.time.at(found.worst_t_s)}.",
        *_timing(material),
        *_steps(material),
        _kymograph(material, soc, mean),
        "Below: where the particles are when their mean passes a quarter, half and three quarters. One hump at the"
        " mean is a solid solution whose particles go together; humps at 0 and 1 are particles that go one after the"
        " other, which the mean shows as a slow common change.",
        *_distributions(material, soc, mean),
    ]
    return Section("average", "What the average hides", parts)


def hidden(material: Material) -> Hidden:
    """Shares over all points with five known particles at least; NaN without any."""
    traces, soc, mean = material.traces, active_soc(material), mean_soc(material)[:, None]
    known = np.isfinite(soc)
    count = known.sum(axis=1)
    with np.errstate(invalid="ignore"):
        away = known & (np.abs(soc - mean) > NEAR)
        sure = away & ((traces.soc_lo > mean + NEAR) | (traces.soc_hi < mean - NEAR))
    good = count >= MIN_PARTICLES
    if not good.any():
        return Hidden(*([float("nan")] * 4))
    share, surely = (each.sum(axis=1)[good] / count[good] for each in (away, sure))
    worst = int(share.argmax())
    return Hidden(float(share.mean()), float(surely.mean()), float(share[worst]), float(traces.t_s[good][worst]))


def ensemble_durations(run: RunData, halves: list[CellHalf]) -> dict[tuple[int, str], float]:
    """Seconds the current flowed in each half."""
    return {(half.cycle, half.half): half.drive_end_t_s - half.start_t_s for half in halves}


def _timing(material: Material) -> list[Part]:
    """Onsets and durations of the standing cycle."""
    run, cycle = material.run, material.cycle
    if cycle is None:
        return ["No half of the cell's record was measured: onsets, durations and lags are not known."]
    whole = ensemble_durations(run, material.halves)
    rows, told = [], []
    for half in ("charge", "discharge"):
        onset, lasted = (of_cycle(run, name, half, cycle) for name in ("onset_t_s", "duration_s"))
        span_s = whole.get((cycle, half), float("nan"))
        onsets, durations = spread(onset), spread(lasted)
        if not durations.count:
            continue
        rows.append(
            (half, durations.count, onsets.q95 - onsets.q05, durations.median, durations.q25, durations.q75, span_s)
        )
        ratio = durations.median / span_s
        if np.isfinite(ratio):
            how = (
                "together" if ratio > TOGETHER else "one after the other" if ratio < ONE_BY_ONE else "partly one by one"
            )
            told.append(
                f"On {half} of cycle {cycle} the current flows for {duration(span_s)}; a particle needs {ratio:.0%} of"
                f" that (median, 5 to 95 % of its own change): they react {how}."
            )
    head = (
        "half",
        "particles",
        "onsets, 5 to 95 % / s",
        "duration, median / s",
        "25 % / s",
        "75 % / s",
        "current / s",
    )
    caption = f"Cycle {cycle}. Onset: 5 % of a particle's own change; duration: from there to 95 %."
    return [*told, Table(head, rows, caption)] if rows else list(told)


def _steps(material: Material) -> list[Part]:
    """Steps of single particles beside what each does to the mean."""
    run, t_s = material.run, material.traces.t_s
    places = {identity: k for k, identity in enumerate(run.particle_id.tolist())}
    steps = [e for e in run.events if e.kind in (EventKind.STEP, EventKind.CRACK) and e.particle_id in places]
    if not steps or len(t_s) < 2:
        return ["No particle made an abrupt step that was told from noise."]
    sizes = np.array([abs(event.magnitude) for event in steps])
    areas = np.nan_to_num(run.particles["area_px"])
    share = areas[[places[event.particle_id] for event in steps]] / max(areas[material.active].sum(), 1.0)
    bend = _usual_bend(mean_contrast(material))[np.clip(np.searchsorted(t_s, [e.t_s for e in steps]), 0, len(t_s) - 1)]
    seen = int((sizes * share > SEEN_SIGMAS * bend).sum())
    return [
        f"{len(steps)} abrupt steps of single particles (median {np.nanmedian(sizes):.2g} of contrast) were told from"
        f" noise. Each moves the mean of all by its share of the area, {np.nanmedian(sizes * share):.1g}; at {seen} of"
        f" them that is more than {SEEN_SIGMAS:g} times what the mean bends there anyway from point to point. The other"
        f" {len(steps) - seen} cannot be seen in the mean."
    ]


def mean_contrast(material: Material) -> np.ndarray:
    """(M,) area-weighted over active particles."""
    contrast = np.where(material.active, material.traces.contrast, np.nan)
    areas = np.where(np.isfinite(contrast), np.nan_to_num(material.run.particles["area_px"]), 0.0)
    whole = areas.sum(axis=1)
    return np.where(whole > 0, np.nansum(contrast * areas, axis=1) / np.where(whole > 0, whole, 1.0), np.nan)


def _usual_bend(mean: np.ndarray) -> np.ndarray:
    """(M,) median second difference around each point: what a single step must exceed to be seen."""
    bend = np.abs(np.diff(mean, 2))
    bend = np.concatenate([bend[:1], bend, bend[-1:]]) if len(bend) else np.full(len(mean), np.nan)
    return median_filter(np.nan_to_num(bend), size=AROUND, mode="nearest")


def _kymograph(material: Material, soc: np.ndarray, mean: np.ndarray) -> go.Figure:
    """A row a particle, earliest first, the mean above it."""
    when = np.argmax(np.where(np.isfinite(soc), soc, -1.0) >= 0.5, axis=0)
    columns = np.flatnonzero(np.isfinite(soc).any(axis=0))
    columns = columns[np.argsort(when[columns], kind="stable")]
    columns = columns[:: max(1, -(-len(columns) // MAP_PARTICLES))]
    stride = max(1, -(-len(soc) // MAP_POINTS))
    x = material.time(material.traces.t_s[::stride])
    made = figure(2, height=460, shared_xaxes=True, vertical_spacing=0.04, row_heights=[0.3, 0.7])
    made.add_trace(line(x, mean[::stride], "mean", BLACK, showlegend=False), 1, 1)
    ids = material.run.particle_id[columns]
    cells = np.round(200 * soc[::stride][:, columns].T) / 200
    made.add_trace(
        go.Heatmap(
            x=light(x), y=[f"particle {k}" for k in ids], z=light(cells), zmin=0, zmax=1,
            colorscale="Viridis", colorbar={"title": {"text": "SoC"}, "thickness": 12, "len": 0.65, "y": 0.33},
            hovertemplate="%{y}, %{x:.4g}: SoC %{z:.2f}<extra></extra>",
        ),
        2, 1,
    )  # fmt: skip
    made.update_yaxes(title="mean SoC", range=[-0.03, 1.03], row=1, col=1)
    made.update_yaxes(title="particles, first to pass 0.5 below", showticklabels=False, row=2, col=1)
    made.update_xaxes(title=material.time.title, row=2, col=1)
    return made


def _distributions(material: Material, soc: np.ndarray, mean: np.ndarray) -> list[Part]:
    """Histograms of SoC when the mean passes `LEVELS` in the halves of the standing cycle."""
    cycle = material.cycle
    halves = {half.half: half for half in substantial(material.halves) if half.cycle == cycle}
    if not halves:
        return []
    made = figure(1, 3, height=280, shared_yaxes=True, subplot_titles=[f"mean SoC {level}" for level in LEVELS])
    for name, half in halves.items():
        inside = np.flatnonzero((material.traces.t_s >= half.start_t_s) & (material.traces.t_s <= half.end_t_s))
        for column, level in enumerate(LEVELS, 1):
            crossing = _crossing(mean[inside], level)
            if crossing is None:
                continue
            row = soc[inside[crossing]]
            counts, _ = np.histogram(row[np.isfinite(row)], BINS)
            bar = go.Bar(
                x=light((BINS[1:] + BINS[:-1]) / 2), y=counts, name=name, marker_color=HALF_COLOURS[name], opacity=0.65,
                legendgroup=name, showlegend=column == 1, width=0.05,
            )  # fmt: skip
            made.add_trace(bar, 1, column)
    made.update_layout(barmode="overlay", legend={"y": 1.12}, margin={"t": 60})
    made.update_xaxes(title="SoC of a particle", range=[0, 1])
    made.update_yaxes(title="particles", col=1)
    return [made]


def _crossing(values: np.ndarray, level: float) -> int | None:
    """First index at which the series lies on the other side of `level` than at its start."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return None
    side = values[known] >= level
    changed = np.flatnonzero(side != side[0])
    return int(known[changed[0]]) if len(changed) else None
