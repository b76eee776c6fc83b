"""The report's first words: what the run found, in a few sentences."""

from __future__ import annotations

import numpy as np

from daemon.report.average import hidden
from daemon.report.choice import crack_counts, last_retention
from daemon.report.material import Material
from daemon.report.page import Section
from daemon.report.stats import share_interval
from daemon.report.style import counted


def section(material: Material) -> Section:
    """Only what is known."""
    told = [*_activity(material), *_spread(material), *_damage(material), *_missing(material)]
    return Section("summary", "In short", told)


def facts(material: Material) -> list[str]:
    """Lines under the title."""
    about = material.run.metadata
    t_s = material.frames["t_s"]
    length = f", {material.time(float(t_s[-1] - t_s[0])):.3g} {material.time.unit}" if len(t_s) else ""
    cell = f", {counted(len(material.halves), 'half-cycle')}" if material.halves else ""
    return [
        f"Run {about.get('run_id', material.run.path.name)}, began {about.get('started_utc') or 'at an unknown time'}.",
        f"{counted(len(material.run.particle_id), 'particle')}, {counted(len(t_s), 'frame')}{length}{cell}.",
    ]


def _activity(material: Material) -> list[str]:
    state = material.state
    present = int((state != "lost").sum())
    if not present:
        return ["No particle is left to speak of." if len(state) else "No particle was found."]
    dead = int((state == "dead").sum())
    low, high = share_interval(dead, present)
    if not material.run.cycles["cycle"].size and not dead:
        return [f"{counted(present, 'particle')}; which of them are inactive is not known, since no half was measured."]
    lost = int((state == "lost").sum())
    left = f" {counted(lost, 'particle')} left the frame or were removed." if lost else ""
    return [
        f"{dead} of {present} particles are inactive: {dead / present:.1%}, 95 % interval {low:.1%} to {high:.1%} for a"
        f" field like this one.{left}"
    ]


def _spread(material: Material) -> list[str]:
    found = hidden(material)
    if not np.isfinite(found.share):
        return []
    return [f"On average {found.share:.0%} of the particles are more than 0.1 of SoC away from their own mean."]


def _damage(material: Material) -> list[str]:
    counts, retention = crack_counts(material.run), last_retention(material.run)
    told = []
    if counts.any():
        told.append(f"{counted(int(counts.sum()), 'crack')} in {counted(int((counts > 0).sum()), 'particle')}.")
    known = np.isfinite(retention)
    cycles = np.unique(material.run.cycles["cycle"]).size
    if known.any() and cycles > 1:
        told.append(f"After {cycles} cycles the median particle keeps {np.median(retention[known]):.0%} of its swing.")
    return told


def _missing(material: Material) -> list[str]:
    run, told = material.run, []
    if not len(run.echem["t_s"]):
        told.append("No record of the cell: no SoC, no cycles.")
    elif material.cycle is None:
        told.append("No half of the cell's record was measured: no lags, rates or retention.")
    if len(run.particle_id) and not np.isfinite(material.traces.soc).any():
        told.append("No particle is calibrated: contrast stands in for SoC.")
    if not np.isfinite(material.pixel_um):
        told.append("No pixel size: lengths are in pixels.")
    return told
