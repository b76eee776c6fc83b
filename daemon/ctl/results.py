"""Results of a run: particles, traces, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from daemon.ctl.client import Client, ask
from daemon.ctl.files import file_sentences, writable
from daemon.ctl.options import Connection, connection_options, json_option
from daemon.ctl.output import listed, print_json, print_table
from daemon.ctl.runs import chosen_run, quoted
from daemon.tables import PARTICLE_STATES

_RUN = click.option("--run", "run_id", help="The run; the one in progress, else the newest, when absent.")
_SHOWN = (
    "particle_id", "y_px", "x_px", "area_px", "equivalent_diameter_um", "brightness_e", "front_mode", "calibration",
    "state",
)  # fmt: skip
DEFAULT_COLUMNS = "contrast,contrast_sigma,soc"


@click.command()
@_RUN
@click.option(
    "--state", "states", multiple=True, type=click.Choice(PARTICLE_STATES), help="Only these; may be repeated."
)
@connection_options
@json_option
def particles(connection: Connection, run_id: str | None, states: tuple[str, ...], as_json: bool) -> None:
    """The particles of a run."""

    async def conversation(client: Client) -> Any:
        return await client.get(f"/runs/{quoted(await chosen_run(client, run_id))}/particles")

    document = ask(connection, conversation)
    rows = [row for row in listed(document, "particles") if not states or row.get("state") in states]
    if as_json:
        print_json(document | {"particles": rows})
        return
    print_table(_SHOWN, ([row.get(name) for name in _SHOWN] for row in rows))


@click.command()
@click.argument("particle_id", type=click.IntRange(0), metavar="ID")
@_RUN
@click.option("--columns", default=DEFAULT_COLUMNS, show_default=True, help="Columns of the traces table, by commas.")
@click.option("--from", "from_s", type=float, help="Earliest time, seconds of run time.")
@click.option("--to", "to_s", type=float, help="Latest time, seconds of run time.")
@click.option("--points", type=click.IntRange(1, 100_000), default=100, show_default=True,
              help="Reduced to about so many, with every extreme kept.")  # fmt: skip
@connection_options
@json_option
def trace(
    connection: Connection,
    particle_id: int,
    *,
    run_id: str | None,
    columns: str,
    from_s: float | None,
    to_s: float | None,
    points: int,
    as_json: bool,
) -> None:
    """The series of particle ID."""
    query = {"particles": particle_id, "columns": columns, "from": from_s, "to": to_s, "points": points}

    async def conversation(client: Client) -> Any:
        return await client.get(f"/runs/{quoted(await chosen_run(client, run_id))}/traces", **query)

    document = ask(connection, conversation)
    if as_json:
        print_json(document)
        return
    for series in listed(document, "traces"):
        names = [name for name, values in series.items() if isinstance(values, list)]
        print_table(names, zip(*(series[name] for name in names), strict=False))


@click.command()
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The PNG to write.")
@click.option("--overlay", type=click.Choice(["masks", "soc", "state"]), help="What to draw over the frame.")
@connection_options
def frame(connection: Connection, out: Path, overlay: str | None) -> None:
    """The newest frame as a picture."""
    writable(out)
    with file_sentences(str(out), "written"):
        ask(connection, lambda client: client.download("/frame.png", out, "image/png", overlay=overlay))
    click.echo(f"{out} written")
