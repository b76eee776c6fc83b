"""The cell: pause, resume, off, experiments."""

from __future__ import annotations

from typing import Any

import click

from daemon.ctl.client import Client, ask
from daemon.ctl.files import read_document
from daemon.ctl.options import Connection, connection_options, json_option
from daemon.ctl.output import print_json, section, shown


@click.group()
def cell() -> None:
    """Pause, resume or switch off the cell, or run an experiment on it."""


def _tell(answer: Any, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    values = section(answer, "values")
    readings = ", ".join(f"{shown(values[name])} {unit}" for name, unit in _READINGS if values.get(name) is not None)
    detail = answer.get("detail") if isinstance(answer, dict) else ""
    state = answer.get("state", "?") if isinstance(answer, dict) else "?"
    click.echo(f"the cell is {state}" + (f" ({readings})" if readings else "") + (f": {detail}" if detail else ""))


_READINGS = (("voltage_v", "V"), ("current_ma", "mA"))


@cell.command()
@connection_options
@json_option
def pause(connection: Connection, as_json: bool) -> None:
    """Open circuit; the experiment can go on later."""
    _tell(ask(connection, lambda client: client.send("POST", "/cell/pause")), as_json)


@cell.command()
@connection_options
@json_option
def resume(connection: Connection, as_json: bool) -> None:
    """Go on after a pause."""
    _tell(ask(connection, lambda client: client.send("POST", "/cell/resume")), as_json)


@cell.command()
@click.option("--reason", help="Why, for the record.")
@connection_options
@json_option
def off(connection: Connection, reason: str | None, as_json: bool) -> None:
    """Cell off and experiment ended, before anything else."""
    _tell(ask(connection, lambda client: client.send("POST", "/cell/off", reason=reason)), as_json)


@cell.command()
@click.argument("file")
@connection_options
@json_option
def experiment(connection: Connection, file: str, as_json: bool) -> None:
    """Run the experiment in FILE (TOML or JSON, '-': standard input): steps, cycles, capacity_mah, limits."""
    body = read_document(file)

    async def conversation(client: Client) -> Any:
        return await client.finish(await client.send("POST", "/cell/experiment", body))

    _tell(ask(connection, conversation), as_json)
