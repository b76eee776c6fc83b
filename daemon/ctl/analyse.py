"""Analysing a recording offline."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from daemon.ctl.files import file_sentences, writable
from daemon.ctl.options import json_option
from daemon.ctl.output import print_json, warn
from daemon.errors import StoreError, StoreReason

LOST = {"camera.lost": "lost by the camera", "recording.unreadable": "left out"}


def _pairs(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """``key=value`` options; a value is JSON where it reads as such, else text."""
    values = {}
    for pair in given:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{pair!r} is not key=value", ctx, option)
        try:
            values[key.strip()] = json.loads(text)
        except ValueError:
            values[key.strip()] = text.strip()
    return values


@click.command()
@click.argument("recording", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run file to write.")
@click.option("--pixel-size-nm", type=click.FloatRange(0, min_open=True), help="Object-side size of a pixel.")
@click.option("--set", "overrides", multiple=True, callback=_pairs, metavar="KEY=VALUE",
              help="A value in place of the recording's own or of a setting; may be repeated.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the run file when it exists.")
@json_option
def analyse(
    recording: Path, out: Path, *, pixel_size_nm: float | None, overrides: dict[str, Any], force: bool, as_json: bool
) -> None:
    """Analyse RECORDING (HDF5 or TIFF) into a run file, as fast as it goes.

    docs/recordings.md lists what --set takes, e.g. --set frame_interval_s=0.01 --set masks.threshold_sigma=4.
    """
    if pixel_size_nm is not None:
        overrides = overrides | {"pixel_size_nm": pixel_size_nm}
    writable(out)
    if out.exists() and not force:
        raise StoreError(StoreReason.EXISTS, f"'{out}' exists already (--force replaces it)")
    summary = _into_place(recording, out, overrides)
    for fault in summary.faults:
        warn(f"fault: {_fault_sentence(fault)}")
    if as_json:
        print_json({"out": str(out)} | json.loads(json.dumps(asdict(summary), default=str)))
        return
    rate = f", {summary.frames / summary.seconds:.0f} frames/s" if summary.seconds > 0 else ""
    lost = "".join(f", {count} frames {LOST.get(why, why)}" for why, count in summary.dropped.items())
    click.echo(f"{out}: {summary.frames} frames, {summary.particles} particles in {summary.seconds:.1f} s{rate}{lost}")
    if summary.noise is not None:
        click.echo("; ".join(summary.noise.sentences()))


def _into_place(recording: Path, out: Path, overrides: dict[str, Any]) -> Any:
    """Analyse; what `out` holds already stays until the new file is whole."""
    if not out.exists():
        return _with_progress(recording, out, overrides)
    with (
        file_sentences(str(out), "written"),
        tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as directory,
    ):
        replacement = Path(directory) / out.name
        summary = _with_progress(recording, replacement, overrides)
        for leftover in ("-wal", "-shm"):  # they belong to the file that is replaced
            out.with_name(out.name + leftover).unlink(missing_ok=True)
        replacement.replace(out)
    return summary


def _with_progress(recording: Path, out: Path, overrides: dict[str, Any]) -> Any:
    """Analyse with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from daemon.offline import analyse as run

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("frames", total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        return run(recording, out, overrides=overrides, progress=tell)


def _fault_sentence(fault: Any) -> str:
    """A fault as a sentence, whether it is (code, detail, index) or a detail alone."""
    if isinstance(fault, str):
        return fault
    detail = fault.get("detail") if isinstance(fault, dict) else fault[1]
    return str(detail)
