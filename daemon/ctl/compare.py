"""Comparing run files: batches, cells, protocols."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from daemon.ctl.files import file_sentences, writable
from daemon.ctl.output import print_json, warn
from daemon.errors import ClientError, ClientReason, StoreError, StoreReason

STANDARD_OUTPUT = Path("-")


def _groups(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, list[Path]]:
    """``LABEL=FILE[,FILE...]`` options; a label that comes again goes on."""
    groups: dict[str, list[Path]] = {}
    for text in given:
        label, equals, files = text.partition("=")
        paths = [Path(name.strip()) for name in files.split(",") if name.strip()]
        if not equals or not label.strip() or not paths:
            raise click.BadParameter(f"{text!r} is not LABEL=FILE[,FILE...]", ctx, option)
        groups.setdefault(label.strip(), []).extend(paths)
    return groups


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN.db]...")
@click.option("--group", "groups", multiple=True, callback=_groups, metavar="LABEL=FILE[,FILE...]",
              help="Run files of cells that belong together; may be repeated.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="The page to write.")
@click.option("--json", "json_out", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
              help="Everything as JSON into FILE, - for standard output.")  # fmt: skip
@click.option("--alpha", type=click.FloatRange(1e-6, 0.2), default=0.01, show_default=True,
              help="Chance of calling equal groups different, a quantity.")  # fmt: skip
@click.option("--cell-sd", type=click.FloatRange(0, 10),
              help="For groups of one cell: relative standard deviation of the rate between equal cells.")  # fmt: skip
@click.pass_context
def compare(
    ctx: click.Context, runs: tuple[Path, ...], groups: dict[str, list[Path]], out: Path | None, json_out: Path | None,
    alpha: float, cell_sd: float | None,
) -> None:  # fmt: skip
    """Compare runs: typical rate and its spread, inactive particles, retention.

    A run file is one cell, and without --group a group of its own. Cells of one batch or protocol belong into one
    --group: the cell is the replicate.
    """
    if json_out is None and ctx.meta.get("photometryctl.json", False):
        json_out = STANDARD_OUTPUT
    named = _named(runs, groups)
    files = [path for paths in named.values() for path in paths]
    targets = [path for path in (out, json_out) if path is not None and path != STANDARD_OUTPUT]
    if len(named) < 2:
        raise click.UsageError("name at least two groups: two files, or --group twice")
    if out is None and json_out is None:
        raise click.UsageError("--out or --json must say where the comparison goes")
    if {path.resolve() for path in files} & {path.resolve() for path in targets}:
        raise click.UsageError("the comparison would overwrite a run file")
    for path in targets:
        writable(path)
    found = _compared(named, alpha, cell_sd)
    _write(found, out, json_out)


def _named(runs: tuple[Path, ...], groups: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Files without a group are groups of their own, named by the file, or by the path where names are equal."""
    stems = [path.stem for path in runs]
    named = {label: list(paths) for label, paths in groups.items()}
    for path in runs:
        label = path.stem if stems.count(path.stem) == 1 and path.stem not in groups else str(path)
        named.setdefault(label, []).append(path)
    return named


def _compared(named: dict[str, list[Path]], alpha: float, cell_sd: float | None) -> Any:
    from daemon.insight.batches import compare as run

    loaded = {label: [loaded_run(path) for path in paths] for label, paths in named.items()}
    refuse_twins(each for group in loaded.values() for each in group)
    return run(loaded, alpha, cell_sd)


def refuse_twins(runs: Iterable[Any]) -> None:
    """Raises `ClientError` when two of the loaded runs are one."""
    seen: dict[str, Path] = {}
    for each in runs:
        identity = str(each.metadata.get("run_id") or each.path.resolve())
        if identity in seen:
            sentence = f"'{seen[identity]}' and '{each.path}' are the same run, which cannot stand for two cells"
            raise ClientError(ClientReason.BAD_FILE, sentence)
        seen[identity] = each.path


def loaded_run(path: Path) -> Any:
    """A run's tables, if they fit each other. Raises `StoreError`."""
    from daemon.insight.run_data import RunData

    run = RunData.load(path)
    if not set(run.cycles["particle_id"].tolist()) <= set(run.particle_id.tolist()):
        raise StoreError(StoreReason.CORRUPT, f"'{path}' has cycles of particles that it does not have")
    return run


def _write(found: Any, out: Path | None, json_out: Path | None) -> None:
    document = found.as_dict()
    if out is not None:
        from daemon.report.compare_page import compare_page

        with file_sentences(str(out), "written"):
            out.write_text(compare_page(found), encoding="utf-8")
    for sentence in found.warnings:
        warn(f"warning: {sentence}")
    if json_out == STANDARD_OUTPUT:
        print_json(document)
        return
    if json_out is not None:
        with file_sentences(str(json_out), "written"):
            json_out.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for sentence in found.verdict():
        click.echo(sentence)
    for path in (out, json_out):
        if path is not None:
            click.echo(str(path))
