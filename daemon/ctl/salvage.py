"""Damaged files: what is wrong with one, and a new run file of what is still good."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon.ctl.files import writable
from daemon.ctl.options import json_option
from daemon.ctl.output import print_json, print_table, warn
from daemon.errors import StoreError
from daemon.store.lock import StateLock

if TYPE_CHECKING:  # the command's start waits for nothing it may not need
    from daemon.store.check import CheckOutcome


@click.command()
@click.argument("damaged", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run file to write; must not exist.")
@json_option
def salvage(damaged: Path, out: Path, as_json: bool) -> None:
    """Recover from the damaged run FILE, into a new one, everything that its check sums vouch for."""
    from daemon.store.salvage import salvage as recover

    writable(out)
    with _unused(damaged):
        found = recover(damaged, out, lambda text: warn(text) if sys.stderr.isatty() else None)
    if as_json:
        print_json({"out": str(out), "lost": found.lost, **asdict(found)})
        return
    tables = sorted({*found.recovered, *found.lost})
    print_table(("table", "recovered", "lost"), [
        (table, found.recovered.get(table, 0), found.lost.get(table, 0) if table in found.expected else None)
        for table in tables
    ])  # fmt: skip
    for why, what in _by_reason(found.unread):
        warn(f"SQLite could not read {what}: {why}")
    if found.unproven:
        warn(f"{found.unproven} rows have no check sum: a file of an earlier version")
    click.echo(f"{out}: {sum(found.recovered.values())} rows, {found.from_pages} of them found in pages only")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@json_option
@click.pass_context
def verify(ctx: click.Context, files: tuple[Path, ...], as_json: bool) -> None:
    """Read all of each run FILE or catalogue and compare every check sum; exit code 1 unless all are sound."""
    from daemon.store.check import check_file

    told, all_sound = [], True
    for path in files:
        try:
            outcome = check_file(path)
        except StoreError as error:
            all_sound = False
            told.append({"path": str(path), "is_sound": False, "code": error.code, "unread": str(error)})
            if not as_json:
                click.echo(f"{path}: not checked")
            warn(f"photometryctl: {error}")
            continue
        all_sound &= outcome.is_sound
        told.append({**asdict(outcome), "path": str(path), "is_sound": outcome.is_sound})
        if not as_json:
            _print_outcome(outcome)
    if as_json:
        print_json(told)
    ctx.exit(0 if all_sound else 1)


def _print_outcome(outcome: CheckOutcome) -> None:
    kept = "" if outcome.has_proof else ", of an earlier version: rows have no check sums"
    click.echo(f"{outcome.path}: {'sound' if outcome.is_sound else 'DAMAGED'}, {outcome.rows} rows checked{kept}")
    for finding in outcome.findings:
        click.echo(f"  {finding}")


def _by_reason(sentences: list[str]) -> list[tuple[str, str]]:
    """Sentences `what: why` as (why, all of it that shares it)."""
    found: dict[str, list[str]] = {}
    for sentence in sentences:
        what, _, why = sentence.rpartition(": ")
        found.setdefault(why, []).append(what or sentence)
    return [(why, ", ".join(what)) for why, what in found.items()]


@contextmanager
def _unused(path: Path) -> Iterator[None]:
    """Hold the lock of the state directory that the file lies in, if it lies in one. Raises `StoreError` (LOCKED)."""
    folders = (path.absolute().parent, path.absolute().parent.parent)
    locks = [StateLock(folder / "photometryd.lock") for folder in folders if (folder / "photometryd.lock").exists()]
    try:
        for lock in locks:
            lock.acquire()
        yield
    finally:
        for lock in locks:
            lock.release()
