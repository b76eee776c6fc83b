"""Compiling the kernels ahead of the first start."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from daemon.ctl.options import json_option
from daemon.ctl.output import print_json
from daemon.errors import ClientError, ClientReason


@click.command()
@json_option
def warm(as_json: bool) -> None:
    """Compile every kernel into the cache, so that the first start is as quick as any.

    The cache is NUMBA_CACHE_DIR where it is set, else beside the kernels: run it as the service's user, with the
    service's environment.
    """
    try:
        warmth = _with_progress()
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        raise ClientError(
            ClientReason.BAD_FILE, "compiled kernels cannot be written: set NUMBA_CACHE_DIR to a directory that can be"
        ) from error
    if as_json:
        print_json(asdict(warmth))
        return
    done = f"{warmth.compiled} kernels compiled, {warmth.loaded} loaded in {warmth.seconds:.1f} s"
    click.echo(f"{done}; the cache is {warmth.cache_dir}")


def _with_progress() -> Any:
    """With a progress bar on a terminal, and a line for each step elsewhere, both on standard error."""
    from daemon.warmup import warm_all

    if not sys.stderr.isatty():
        return warm_all(_in_lines(lambda line: click.echo(line, err=True)))
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("kernels", total=None)

        def tell(name: str, done: int, total: int) -> None:
            bar.update(task, description=name or "kernels", completed=done, total=total)

        return warm_all(tell)


def _in_lines(say: Callable[[str], None]) -> Callable[[str, int, int], None]:
    def tell(name: str, done: int, total: int) -> None:
        if name:
            say(f"{done + 1}/{total} {name}")

    return tell
