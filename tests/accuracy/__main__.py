"""``python -m tests.accuracy [PART ...] [--quick] [--page FILE]``: the accuracy on scenes whose truth is known."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import click

from tests.accuracy.effort import QUICK, WHOLE
from tests.accuracy.page import page
from tests.bench.figures import show

PARTS = ("noise", "stability", "illumination", "registration", "optics", "neighbours")


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--quick", is_flag=True, help="Fewer seeds and shorter runs; writes no page.")
@click.option("--page", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write the page here.")
def main(parts: tuple[str, ...], quick: bool, path: Path | None) -> None:
    """Print the figures of PARTS, all by default."""
    if path and (parts or quick):
        raise click.UsageError("the page holds all parts, at full length")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy comes: its threads cost ten times what they gain
    effort, sections = QUICK if quick else WHOLE, []
    for part in parts or PARTS:
        module = importlib.import_module(f"tests.accuracy.{part}")
        sections.append((module.TITLE, module.INTRO, module.run(effort)))
        show(module.TITLE, sections[-1][2])
    if path:
        path.write_text(page(sections, effort), encoding="utf-8")


if __name__ == "__main__":
    main()
