"""Exporting a run file's tables."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click

from daemon.ctl.options import json_option
from daemon.ctl.output import print_json
from daemon.tables import EXPORT_TABLES

MAX_RANGE = 1_000_000
_FORMATS = ("parquet", "csv", "arrow")


class Ids(click.ParamType):
    """Particle ids: single ones and ranges, by commas."""

    name = "ids"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[int]:
        """``3,7,10-19`` as a set."""
        if not isinstance(value, str):
            return frozenset(value)
        found: set[int] = set()
        for piece in filter(None, (part.strip() for part in value.split(","))):
            match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", piece)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if not first <= last < first + MAX_RANGE:
                self.fail(f"{piece!r} is neither an id nor a range like 10-19", param, ctx)
            found.update(range(first, last + 1))
        if not found:
            self.fail("names no particle", param, ctx)
        return frozenset(found)


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN.db")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Directory to write into.")
@click.option("--format", "file_format", type=click.Choice(_FORMATS), default="parquet", show_default=True)
@click.option("--particles", type=Ids(), help="Only these: ids and ranges by commas, e.g. 3,7,10-19.")
@click.option("--from", "from_s", type=float, help="Earliest time, seconds of run time.")
@click.option("--to", "to_s", type=float, help="Latest time, seconds of run time.")
@click.option(
    "--table", "tables", multiple=True, type=click.Choice(list(EXPORT_TABLES)), help="Only this table; may be repeated."
)
@json_option
def export(run: Path, out: Path, as_json: bool, file_format: Any, tables: tuple[str, ...], **selection: Any) -> None:
    """Write the tables of RUN.db into a directory, one file a table."""
    from daemon.store.export import export_run

    if None not in (selection["from_s"], selection["to_s"]) and selection["from_s"] > selection["to_s"]:
        raise click.UsageError("--from must not be after --to")
    written = with_progress(
        lambda tell: export_run(run, out, format=file_format, tables=tables or None, progress=tell, **selection)
    )
    if as_json:
        print_json({name: str(path) for name, path in written.items()})
        return
    for path in written.values():
        click.echo(str(path))


def with_progress(work: Any, name: str = "tables") -> Any:
    """Run `work` with a progress bar, and the time left, on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=1.0)
        return work(lambda fraction: bar.update(task, completed=fraction))
