"""Events: what happened, and what happens."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import click

from daemon.ctl.client import Client
from daemon.ctl.options import Connection, connection_options, json_option
from daemon.ctl.output import shown, warn
from daemon.errors import InstrumentError
from daemon.events import EventKind


@click.command()
@click.option(
    "--follow", "-f", is_flag=True, help="Wait for further events; resumes by itself after a lost connection."
)
@click.option("--after", type=click.IntRange(0), default=0, help="Only events with a higher sequence number.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice([kind.value for kind in EventKind]), metavar="KIND",
              help="Only this kind; may be repeated.")  # fmt: skip
@connection_options
@json_option
def events(connection: Connection, follow: bool, after: int, kinds: tuple[str, ...], as_json: bool) -> None:
    """Events of all runs, oldest first. With --json one object a line."""
    try:
        asyncio.run(_print_events(connection, follow, after, frozenset(kinds), as_json))
    except KeyboardInterrupt:
        if not follow:
            raise


async def _print_events(connection: Connection, follow: bool, after: int, kinds: frozenset[str], as_json: bool) -> None:
    async with Client(connection) as client:
        feed = client.follow_events(after, _say_lost) if follow else client.events(after)
        async with aclosing(feed) as source:
            async for event in source:
                if not kinds or event.get("kind") in kinds:
                    click.echo(json.dumps(event, ensure_ascii=False) if as_json else line(event))


def _say_lost(error: InstrumentError) -> None:
    warn(f"{error.detail}; reconnecting")


def line(event: dict[str, Any]) -> str:
    """An event on one line: sequence number, run time, whom it concerns, what, how much."""
    particle = event.get("particle_id")
    who = "instrument" if particle is None else f"particle {particle}"
    magnitude, sigma = event.get("magnitude"), event.get("magnitude_sigma")
    amount = "" if magnitude is None else shown(magnitude) + ("" if sigma is None else f" ± {shown(sigma)}")
    t_s = event.get("t_s")
    time = "-" if not isinstance(t_s, int | float) else f"{t_s:.3f} s"
    fields = f"{shown(event.get('seq')):>6}  {time:>12}  {who:<13}  {shown(event.get('kind')):<17}  {amount:<20}"
    return f"{fields}  {event.get('detail') or ''}".rstrip()
