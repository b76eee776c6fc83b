"""The service's log: by level and time, as it comes, and from its files when the daemon is dead."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from daemon.ctl.client import Client, ask
from daemon.ctl.field import CONFIG_PATH, configured_site
from daemon.ctl.options import Connection, connection_options, json_option
from daemon.ctl.output import listed, warn
from daemon.errors import ClientError, ClientReason, InstrumentError

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "": 1}
FOLLOW_FROM_S = 60.0  # what is shown first: the lines that made one look
MAX_SINCE_S = 400 * 86_400.0


class Moment(click.ParamType):
    """A time, as seconds, minutes, hours or days back, or in ISO 8601; local where it has no offset."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """What was written as a time with an offset."""
        if isinstance(value, datetime):
            return value
        back = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd]?)", value)
        if back:
            seconds = float(back[1]) * UNITS_S[back[2]]
            if seconds > MAX_SINCE_S:
                self.fail(f"{value} is more than 400 days back", param, ctx)
            return datetime.now(UTC) - timedelta(seconds=seconds)
        try:
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time: write 90s, 10m, 2h, 3d or 2026-01-02T03:04:05+01:00", param, ctx)


@click.command()
@click.option("--level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True,
              help="Least important level.")  # fmt: skip
@click.option(
    "--since", type=Moment(), help="90s, 10m, 2h, 3d back, or an ISO 8601 time; all that is kept when absent."
)
@click.option("--follow", "-f", is_flag=True, help="Wait for further lines; resumes after a lost connection.")
@click.option("--config", "config_path", type=click.Path(path_type=Path), default=CONFIG_PATH, show_default=True,
              help="Configuration that names the state directory when the daemon does not answer.")  # fmt: skip
@click.option("--state-dir", type=click.Path(path_type=Path), help="State directory; as configured when absent.")
@connection_options
@json_option
def logs(
    connection: Connection,
    level: str,
    since: datetime | None,
    follow: bool,
    config_path: Path,
    state_dir: Path | None,
    as_json: bool,
) -> None:
    """The service's log, oldest line first. With --json one object a line."""
    if follow:
        try:
            asyncio.run(_follow(connection, level, since, as_json))
        except KeyboardInterrupt:
            return
        return
    query = {"level": level, "since": since.isoformat() if since else None}
    try:
        entries = listed(ask(connection, lambda client: client.get("/logs", **query)), "entries")
    except ClientError as error:
        if error.reason not in (ClientReason.NOT_RUNNING, ClientReason.TIMEOUT):
            raise
        warn(f"{error.detail}; reading the files of its log")
        entries = _from_files(level, since, state_dir or configured_site(config_path, None).state_dir)
    for entry in entries:
        _print(entry, as_json)


async def _follow(connection: Connection, level: str, since: datetime | None, as_json: bool) -> None:
    begin = since or datetime.now(UTC) - timedelta(seconds=FOLLOW_FROM_S)
    async with Client(connection) as client, aclosing(client.follow_logs(level, begin, _say_lost)) as entries:
        async for entry in entries:
            _print(entry, as_json)


def _say_lost(error: InstrumentError) -> None:
    warn(f"{error.detail}; reconnecting")


def _from_files(level: str, since: datetime | None, state_dir: Path) -> list[dict[str, Any]]:
    from daemon.diagnostics.log_reader import LogReader
    from daemon.diagnostics.logs import LogRing, log_file

    if not log_file(state_dir).exists():
        raise ClientError(ClientReason.BAD_FILE, f"there is no log at '{log_file(state_dir)}' that can be read")
    found = LogReader(LogRing(), state_dir)(since_utc=since, level=level, follow=False)
    return found if isinstance(found, list) else []


def _print(entry: dict[str, Any], as_json: bool) -> None:
    from daemon.diagnostics.logs import readable

    click.echo(json.dumps(entry, ensure_ascii=False) if as_json else readable(entry))
