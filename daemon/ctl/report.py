"""The report of a run file."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from daemon.ctl.export import Ids
from daemon.ctl.files import file_sentences, writable
from daemon.ctl.options import json_option
from daemon.ctl.output import print_json


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN.db")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The HTML file to write.")
@click.option("--particles", type=Ids(), help="The gallery's: ids and ranges by commas, e.g. 3,7,10-19.")
@json_option
def report(run: Path, out: Path, as_json: bool, particles: frozenset[int] | None) -> None:
    """Write the report of RUN.db: one HTML file that opens with no network."""
    from daemon.report.build import report_run

    writable(out)
    chosen = None if particles is None else sorted(particles)
    with (
        file_sentences(str(out), "written"),
        tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as directory,
    ):
        made = Path(directory) / out.name  # what is there already stays until the new one is whole
        _with_progress(lambda tell: report_run(run, made, chosen, tell))
        size_mb = made.stat().st_size / 1e6
        made.replace(out)
    if as_json:
        print_json({"out": str(out), "size_mb": round(size_mb, 2)})
    else:
        click.echo(f"{out}: {size_mb:.1f} MB")


def _with_progress(work: Any) -> Any:
    """Run `work` with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("report", total=1.0)
        return work(lambda fraction: bar.update(task, completed=fraction))
