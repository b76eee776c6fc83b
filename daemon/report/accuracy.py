"""How exact the run is: noise against its bound, registration, light, lost frames, calibration and its intervals."""

from __future__ import annotations

from collections import Counter

import numpy as np
import plotly.graph_objects as go

from daemon.report.material import LOOK_FRAMES, Material, padded
from daemon.report.page import Part, Section, Table
from daemon.report.stats import medians, spread
from daemon.report.style import BLUE, GREEN, ORANGE, counted, figure, joined, light, line
from daemon.tables import CALIBRATIONS

MIN_DIFFERENCES = 30
MAD_TO_SIGMA = 1.4826
GAP = 1.5
SERIES_POINTS = 2000
PARTICLE_FLAGS = {
    1: "saturated",
    2: "outside the frame",
    4: "background borrowed from neighbours",
    8: "blended with a neighbour",
}
FRAME_FLAGS = {
    1: "after a gap", 2: "drift unknown", 4: "drift jump", 8: "illumination step", 16: "focus jump",
    32: "constant image", 64: "repeated image", 128: "no light",
}  # fmt: skip
WHY_NOT = {
    "none": "no window of charge yet, no record of the cell, dead, or ends no farther apart than noise",
    "folded": "the contrast turns back on the way, so that two SoC look the same",
    "end_members": "the ends are known; between them a straight line, with a wide interval unless two phases were told",
    "monotone": "a curve through rests or a slow half",
}


def section(material: Material) -> Section:
    """Each source of error in words, with a number where the run knows it."""
    if not len(material.frames["t_s"]):
        return Section("accuracy", "Accuracy", ["The run holds no frame that can be read.", *_losses(material)])
    return Section(
        "accuracy",
        "Accuracy",
        [*_noise(material), *_microscope(material), *_losses(material), *_calibration(material), *_series(material)],
    )


def noise_ratio(material: Material) -> np.ndarray:
    """(P,) scatter of successive frames over what photons and camera predict; NaN with fewer than 30 differences.

    Second differences of three consecutive frames: blind to drift and to a steady rate of charging. A robust scatter
    (1.4826 MAD), so that steps do not count.
    """
    particles = len(material.run.particle_id)
    rows = [np.empty((0, particles))]
    for look in material.looks:
        contrast, sigma = padded(look.contrast, particles), padded(look.contrast_sigma, particles)
        expected = np.sqrt(sigma[:-2] ** 2 + 4.0 * sigma[1:-1] ** 2 + sigma[2:] ** 2)
        with np.errstate(invalid="ignore", divide="ignore"):
            rows.append(np.diff(contrast, 2, axis=0) / np.where(expected > 0, expected, np.nan))
    scaled = np.abs(np.concatenate(rows))
    return MAD_TO_SIGMA * medians(scaled, MIN_DIFFERENCES)


def _noise(material: Material) -> list[Part]:
    ratio = noise_ratio(material)
    sigma = medians(np.concatenate([padded(look.contrast_sigma, len(ratio)) for look in material.looks]))
    predicted, told = spread(sigma), spread(ratio)
    if not predicted.count:
        return ["No particle has a contrast with a known noise."]
    words = (
        "Noise of one frame's contrast, as photons, read noise, background and light predict it: median"
        f" {predicted.median:.2g}, 5 to 95 % of particles {predicted.q05:.2g} to {predicted.q95:.2g}."
    )
    if not told.count:
        return [f"{words} The run has too few consecutive frames to compare it with what they scatter."]
    caution = (
        " Above 1 means more than that bound: flicker, focus, or charging that is not steady from frame to frame,"
        " which a slow camera cannot tell from noise."
    )
    return [
        f"{words} Read off {len(material.looks)} stretches of up to {LOOK_FRAMES} frames, successive frames scatter"
        f" {told.median:.2f} times as much (median; 5 to 95 %: {told.q05:.2f} to {told.q95:.2f}, {told.count}"
        f" particles).{caution}",
        _histogram(ratio),
    ]


def _histogram(ratio: np.ndarray) -> go.Figure:
    known = np.clip(ratio[np.isfinite(ratio)], 0.0, 3.0)
    counts, edges = np.histogram(known, np.linspace(0.0, 3.0, 61))
    made = figure(height=240)
    made.add_trace(
        go.Bar(x=light((edges[1:] + edges[:-1]) / 2), y=counts, width=0.05, marker_color=BLUE, showlegend=False)
    )
    made.add_vline(x=1.0, line={"color": ORANGE, "dash": "dash"})
    made.update_xaxes(title="scatter of successive frames over the predicted noise (3 and above in the last bar)")
    return made.update_yaxes(title="particles")


def _microscope(material: Material) -> list[Part]:
    frames = material.frames
    nm = 1000.0 * material.pixel_um
    rows = []
    for name, title, scale in (
        ("drift_sigma_px", "registration, one sigma / px", 1.0), ("drift_sigma_px", "registration, one sigma / nm", nm),
        ("drift_y_px", "drift y / px", 1.0), ("drift_x_px", "drift x / px", 1.0),
        ("illumination", "illumination over its baseline", 1.0), ("focus", "focus measure", 1.0),
    ):  # fmt: skip
        told = spread(scale * frames[name].astype(float))
        if told.count:
            rows.append((title, told.median, told.q05, told.q95))
    if not rows:
        return ["Drift, light and focus are not known for any frame."]
    table = Table(("over all frames", "median", "5 %", "95 %"), rows)
    flags = frames["flags"].astype(np.int64)
    found = [f"{int((flags & bit > 0).sum())} {name}" for bit, name in FRAME_FLAGS.items() if (flags & bit).any()]
    told_flags = f"Of {len(flags)} frames: {joined(found)}." if found else f"None of {len(flags)} frames is flagged."
    return [table, told_flags, *_particle_flags(material)]


def _particle_flags(material: Material) -> list[Part]:
    values = [look.flags.ravel() for look in material.looks if look.flags.size]
    if not values:  # none was looked at, or all of it is damaged
        return []
    flags = np.concatenate(values).astype(np.int64)
    shares = [(name, float((flags & bit > 0).mean())) for bit, name in PARTICLE_FLAGS.items()]
    told = [f"{share:.2g} {name}" for name, share in shares if share > 0]
    return [f"Share of single values that need care, in those stretches: {joined(told)}."] if told else []


def _losses(material: Material) -> list[Part]:
    told: list[Part] = []
    corrupt = max(material.traces.corrupt_chunks, material.details.corrupt_chunks)
    if corrupt:
        told.append(f"{counted(corrupt, 'stretch')} of frames in the file are damaged and left out of everything here.")
    if material.drops:
        lost: Counter[tuple[str, str]] = Counter()
        for row in material.drops:
            lost[str(row["stage"]), str(row["reason"])] += int(row["count"] or 0)
        rows = [(stage, reason, count) for (stage, reason), count in sorted(lost.items())]
        told.append(Table(("lost at", "reason", "frames"), rows))
    events = [event for event in material.run.events if event.kind.value == "frames_dropped"]
    camera = sum(event.magnitude for event in events if np.isfinite(event.magnitude))
    if camera and not material.drops:  # a file from before these said so; what a reader left out is among them
        told.append(f"The camera's own counter misses {camera:.0f} frames.")
    missing = missing_frames(material.frames["t_s"])
    if missing:
        told.append(
            f"By their spacing in time {counted(missing, 'frame')} are missing (gaps over {GAP} usual intervals)."
        )
    if not told:
        told.append("No frame was lost: nothing was dropped, and none is missing by the spacing in time.")
    return told


def missing_frames(t_s: np.ndarray) -> int:
    """Frames that would fit into the gaps between those stored; a change of the frame rate looks like gaps, too."""
    step = np.diff(t_s)
    usual = float(np.median(step)) if len(step) else 0.0
    gaps = step[step > GAP * usual]
    return int(np.round(gaps / usual - 1.0).sum()) if usual > 0 else 0


def _calibration(material: Material) -> list[Part]:
    """How many of each kind, and how wide their intervals are."""
    kinds, traces = material.run.particles["calibration"], material.traces
    with np.errstate(invalid="ignore"):
        width = (traces.soc_hi - traces.soc_lo).astype(float)
    rows = []
    for kind in CALIBRATIONS:
        mine = kinds == kind
        if mine.any():
            told = spread(width[:, mine].ravel())
            rows.append((kind, int(mine.sum()), told.median, told.q95, WHY_NOT[kind]))
    head = ("calibration", "particles", "width of the 90 % interval of SoC, median", "95 %", "meaning")
    return [Table(head, rows)] if rows else []


def _series(material: Material) -> list[Part]:
    frames = material.frames
    stride = max(1, -(-len(frames["t_s"]) // SERIES_POINTS))
    x = material.time(frames["t_s"][::stride])
    made = figure(3, height=480, shared_xaxes=True, vertical_spacing=0.05)
    made.add_trace(line(x, frames["drift_y_px"][::stride], "drift y", BLUE, width=1), 1, 1)
    made.add_trace(line(x, frames["drift_x_px"][::stride], "drift x", ORANGE, width=1), 1, 1)
    made.add_trace(line(x, frames["illumination"][::stride], "illumination", GREEN, width=1, showlegend=False), 2, 1)
    made.add_trace(line(x, frames["focus"][::stride], "focus", GREEN, width=1, showlegend=False), 3, 1)
    for row, title in enumerate(("Drift / px", "Illumination", "Focus measure"), 1):
        made.update_yaxes(title=title, row=row, col=1)
    made.update_xaxes(title=material.time.title, row=3, col=1)
    return [made]
