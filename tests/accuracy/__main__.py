"""``python -m tests.accuracy [PART ...] [--quick] [--page FILE]``: the accuracy on scenes whose truth is known."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import click

from tests.accuracy.effort import QUICK, WHOLE
from tests.accuracy.page import page
from tests.accuracy.parts import PARTS, section
from tests.bench.figures import show


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--quick", is_flag=True, help="Fewer seeds and shorter runs; writes no page.")
@click.option("--page", "path", type=click.Path(path_type=Path, dir_okay=False),
              help="Write the page here; with PARTS, only their sections of the page that is there.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1), default=1, help="Parts measured at once, a process each.")
def main(parts: tuple[str, ...], quick: bool, path: Path | None, jobs: int) -> None:
    """Print the figures of PARTS, all by default."""
    if path and quick:
        raise click.UsageError("the page holds figures of full length")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy comes: its threads cost ten times what they gain
    effort, sections = QUICK if quick else WHOLE, []
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for measured in pool.map(section, parts or PARTS, repeat(effort)):
            sections.append(measured)
            show(measured[0], measured[2])
    if path:
        before = path.read_text(encoding="utf-8") if parts and path.exists() else ""
        path.write_text(page(sections, effort, before), encoding="utf-8")


if __name__ == "__main__":
    main()
