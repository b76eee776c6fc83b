"""The tokens of the HTTP API: made, listed and revoked on the instrument itself, with the daemon running or not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from daemon.config import Scope
from daemon.ctl.field import CONFIG_PATH, configured_site
from daemon.ctl.files import file_sentences
from daemon.ctl.options import json_option
from daemon.ctl.output import print_json, print_table, warn
from daemon.tokens import StoredToken, TokenFile

_SCOPES: list[Scope] = ["read", "operate", "admin"]


def _place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--state-dir", type=click.Path(path_type=Path), help="State directory; else as configured."),
        click.option("--config", "config_path", type=click.Path(path_type=Path), default=CONFIG_PATH, show_default=True,
                     help="Configuration that names the state directory."),
    ):  # fmt: skip
        command = option(command)
    return command


def _file(config_path: Path, state_dir: Path | None) -> TokenFile:
    return TokenFile(configured_site(config_path, state_dir).state_dir)


@click.group()
def token() -> None:
    """Tokens of the HTTP API.

    They are kept as hashes in `tokens.json` of the state directory; the daemon notices a change within two seconds.
    From the first one on every request over TCP needs one.
    """


@token.command()
@click.argument("name")
@click.option("--scope", type=click.Choice(_SCOPES), required=True, help="What it may do; each includes those before.")
@click.option("--days", type=click.FloatRange(0, 36_500, min_open=True), help="Days until it expires; never if absent.")
@_place_options
@json_option
def create(
    name: str, *, scope: Scope, days: float | None, config_path: Path, state_dir: Path | None, as_json: bool
) -> None:
    """Make the token NAME and print its secret, which is shown this once and kept nowhere."""
    file = _file(config_path, state_dir)
    with file_sentences(str(file.path), "written"):
        made, secret = file.create(name, scope, None if days is None else timedelta(days=days))
    if as_json:
        print_json({**_row(made), "secret": secret})
        return
    click.echo(secret)
    until = "" if made.expires_utc is None else f", until {made.expires_utc.isoformat()}"
    warn(f"token '{name}' with the scope '{scope}'{until}; its secret is not shown again")


@token.command("list")
@_place_options
@json_option
def list_tokens(*, config_path: Path, state_dir: Path | None, as_json: bool) -> None:
    """The tokens there are, without their secrets; those of the configuration are not among them."""
    file = _file(config_path, state_dir)
    rows = [_row(each) for each in file.tokens()]
    if as_json:
        print_json({"path": str(file.path), "tokens": rows})
        return
    columns = ("name", "scope", "created_utc", "expires_utc", "valid")
    print_table(columns, ([row[column] for column in columns] for row in rows))


@token.command()
@click.argument("name")
@_place_options
@json_option
def revoke(name: str, *, config_path: Path, state_dir: Path | None, as_json: bool) -> None:
    """Take back the token NAME; it lets nobody in from two seconds later on."""
    file = _file(config_path, state_dir)
    with file_sentences(str(file.path), "written"):
        gone = file.revoke(name)
    if as_json:
        print_json(_row(gone))
        return
    click.echo(f"token '{name}' revoked")


def _row(token: StoredToken) -> dict[str, Any]:
    row = token.model_dump(mode="json", exclude={"sha256"})
    return {**row, "valid": not token.expiry_problem(datetime.now(UTC))}
