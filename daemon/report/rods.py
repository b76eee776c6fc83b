"""The rods a report shows: those with the largest axial gradients, and their series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.insight.run_data import RunData
from daemon.store.axial_traces import CENTROIDS, AxialTraces
from daemon.store.reader import RunReader

SHOWN = 4
LOOKS = 600
"""Instants at which all rods' gradients are looked at: a screen shows no more."""
POINTS = 1000
TOGETHER_S = 1.0
LARGE = 0.95
MANY = 400
"""Rods looked at; of more, every second (third, ...)."""


@dataclass(frozen=True)
class Rod:
    """One rod: its axial gradient at (n,) `t_s`; its radial one and the centroid's shift at (m,) `radial_t_s`."""

    index: int
    particle_id: int
    axis_deg: float
    t_s: np.ndarray
    axial: np.ndarray
    axial_sigma: np.ndarray
    radial_t_s: np.ndarray
    radial: np.ndarray
    radial_sigma: np.ndarray
    shift_px: np.ndarray
    shift_sigma_px: np.ndarray


def rods_of(run: RunData, reader: RunReader, axes: list[dict[str, Any]], shown: int = SHOWN) -> list[Rod]:
    """The largest of the rods in `axes` (rows of `RunReader.axes`) by their axial gradients, largest first."""
    place = {identity: k for k, identity in enumerate(run.particle_id.tolist())}
    rows = [row for row in axes if not row["axial_unknown_why"] and row["particle_id"] in place]
    rows = rows[:: max(1, -(-len(rows) // MANY))]
    span = reader.time_range()
    if not rows or span is None:
        return []
    ids = np.array([row["particle_id"] for row in rows], np.int64)
    indices = np.array([place[identity] for identity in ids.tolist()])
    t_s, axial, sigma = _looked_at(reader, _traces(run, reader, ids, indices), indices, span)
    known = np.isfinite(axial)
    largest = np.array(
        [np.quantile(np.abs(a[k]), LARGE) if k.any() else -1.0 for a, k in zip(axial.T, known.T, strict=True)]
    )
    chosen = [int(k) for k in np.argsort(-largest, kind="stable")[:shown] if largest[k] >= 0]
    if not chosen:
        return []
    means = run.traces(POINTS, indices=indices[chosen])
    shift, shift_sigma = _shifts(run, reader, ids[chosen], indices[chosen], means.t_s)
    return [
        Rod(
            int(indices[k]), int(ids[k]), float(rows[k]["axis_deg"]), t_s, axial[:, k], sigma[:, k], means.t_s,
            means.gradient[:, q], means.gradient_sigma[:, q], shift[:, q], shift_sigma[:, q],
        )
        for q, k in enumerate(chosen)
    ]  # fmt: skip


def _traces(run: RunData, reader: RunReader, ids: np.ndarray, indices: np.ndarray) -> AxialTraces:
    known = {q: run.calibrations[k] for q, k in enumerate(indices.tolist())}
    return AxialTraces(reader, ids, indices, {q: row for q, row in known.items() if row is not None})


def _looked_at(
    reader: RunReader, traces: AxialTraces, indices: np.ndarray, span: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) times, (n, K) axial gradients and their standard deviations: means over a second or one block."""
    times, values, sigmas, last = [], [np.empty((0, len(indices)))], [np.empty((0, len(indices)))], -np.inf
    for at in np.linspace(*span, LOOKS).tolist():
        blocks = reader.axial(at, at, indices)
        if not len(blocks.t_s):
            continue
        nearest = float(blocks.t_s[np.abs(blocks.t_s - at).argmin()])
        near = np.abs(blocks.t_s - nearest) <= TOGETHER_S / 2.0
        if nearest <= last:
            continue
        last = nearest
        gradient, sigma = traces.gradients(blocks)
        times.append(nearest)
        values.append(gradient[near].mean(axis=0, keepdims=True))
        sigmas.append(np.sqrt((sigma[near] ** 2).mean(axis=0, keepdims=True) / near.sum()))
    return np.array(times), np.concatenate(values), np.concatenate(sigmas)


def _shifts(
    run: RunData, reader: RunReader, ids: np.ndarray, indices: np.ndarray, t_s: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(m, K) shifts of means between the times half-way from one of `t_s` to the next."""
    edges = (t_s[1:] + t_s[:-1]) / 2.0
    names = ("contrast", "contrast_sigma", *CENTROIDS)
    sums, count = np.zeros((len(names), len(t_s), len(ids))), np.zeros((len(t_s), len(ids)))
    for chunk in reader.iter_chunks(columns=names, indices=indices):
        columns = np.stack([chunk.particle_columns[name].astype(float) for name in names])
        known = np.isfinite(columns).all(axis=0)
        row = np.searchsorted(edges, chunk.frame_columns["t_s"])
        columns[1] **= 2
        for part, values in zip(sums, np.where(known, columns, 0.0), strict=True):
            np.add.at(part, row, values)
        np.add.at(count, row, known.astype(float))
    with np.errstate(all="ignore"):
        means = dict(zip(names, sums / count, strict=True))
        means["contrast_sigma"] = np.sqrt(means["contrast_sigma"] / count)
        found = _traces(run, reader, ids, indices).of(t_s, means)
    return found["centroid_shift_px"], found["centroid_shift_sigma_px"]
