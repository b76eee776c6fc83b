"""A run file's report: every section in one table, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from daemon.report import (
    accuracy,
    ageing,
    average,
    cycles,
    derivatives,
    distributions,
    ensemble,
    events,
    fronts,
    gallery,
    gradients,
    kinetics,
    particle_map,
    provenance,
    summary,
    why,
)
from daemon.report.material import Material, Progress, gather
from daemon.report.page import Section, page

SECTIONS: tuple[Callable[[Material], Section], ...] = (
    summary.section,
    particle_map.section,
    ensemble.section,
    average.section,
    derivatives.section,
    gallery.section,
    gradients.section,
    fronts.section,
    events.section,
    cycles.maps,
    cycles.halves_compared,
    ageing.section,
    distributions.section,
    why.section,
    kinetics.section,
    accuracy.section,
    provenance.section,
)
"""A section is a function of the material; add it here."""
READING_SHARE = 0.3
"""Of the time of a long run's report; the rest is sections."""
KINETICS_WORK = 96
"""What fitting kinetic models takes, in other sections."""


def report_run(
    run: Path, out: Path, particles: Sequence[int] | None = None, progress: Progress = lambda share: None
) -> None:
    """Write the report of the run file `run` to the HTML file `out`, replacing it; equal runs give equal bytes.

    `particles` are the ids of the gallery in place of those that matter. `progress` is told the share done and may
    raise to give up. Raises `StoreError`, and `OSError` of writing.
    """
    out.write_text(report_html(run, particles, progress), encoding="utf-8")


def report_html(run: Path, particles: Sequence[int] | None, progress: Progress) -> str:
    """The document. Raises `StoreError`."""
    material = gather(run, particles, lambda share: progress(READING_SHARE * share))
    work = [KINETICS_WORK if section is kinetics.section else 1 for section in SECTIONS]
    sections = []
    for number, section in enumerate(SECTIONS, 1):
        sections.append(section(material))
        progress(READING_SHARE + (1.0 - READING_SHARE) * sum(work[:number]) / sum(work))
    title = str(material.run.metadata.get("run_id") or run.stem)
    return page(f"Report of {title}", summary.facts(material), sections)
