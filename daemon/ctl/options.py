"""Options that many commands share. They may stand before or after the command's name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import click
from click.core import ParameterSource

DEFAULT_URL = "http://127.0.0.1:8470"
DEFAULT_TIMEOUT_S = 10.0  # the slowest healthy answer is an operation's first, after one second


@dataclass(frozen=True)
class Connection:
    """Where the daemon is and how to ask it."""

    url: str = DEFAULT_URL
    socket: str | None = None
    token: str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    ca_file: str | None = None

    @property
    def name(self) -> str:
        """How messages call the place."""
        return self.socket or self.url


_OPTIONS = (
    click.option("--url", envvar="PHOTOMETRYCTL_URL", help=f"Where the daemon answers.  [default: {DEFAULT_URL}]"),
    click.option("--socket", envvar="PHOTOMETRYCTL_SOCKET", help="Unix socket of the daemon, in place of --url."),
    click.option(
        "--token",
        envvar="PHOTOMETRYCTL_TOKEN",
        help="Bearer token; better in PHOTOMETRYCTL_TOKEN than on the command line.",
    ),
    click.option(
        "--ca-file",
        envvar="PHOTOMETRYCTL_CA_FILE",
        type=click.Path(exists=True, dir_okay=False),
        help="Certificates (PEM) of who signed the daemon's, for https.  [default: those of this machine]",
    ),
    click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(0, 86_400, min_open=True),
        help=f"Seconds to wait for an answer.  [default: {DEFAULT_TIMEOUT_S:g}]",
    ),
)


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --url, --socket, --token, --ca-file and --timeout; it receives a `Connection` as `connection`."""

    @functools.wraps(command)
    def with_connection(
        *arguments: Any,
        url: str | None,
        socket: str | None,
        token: str | None,
        ca_file: str | None,
        timeout_s: float | None,
        **options: Any,
    ) -> Any:
        if url is not None and not url.startswith(("http://", "https://")):
            raise click.UsageError(f"--url must begin with http:// or https://, not {url!r}")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise click.UsageError("the token holds characters that no token has")
        given = {"url": url, "socket": socket, "token": token, "ca_file": ca_file, "timeout_s": timeout_s}
        connection = _connection(click.get_current_context(), {name: value for name, value in given.items() if value})
        return command(*arguments, connection=connection, **options)

    for option in reversed(_OPTIONS):
        with_connection = option(with_connection)
    return with_connection


def _connection(context: click.Context, given: dict[str, Any]) -> Connection:
    """What was `given` here laid over what stood before the command, the environment beneath both."""
    written = {name for name in given if context.get_parameter_source(name) is not ParameterSource.ENVIRONMENT}
    outer = context.find_object(Connection)
    if outer is not None:  # it took the environment already
        given = {name: given[name] for name in written}
    if "url" in given and ("socket" not in given or written & {"url", "socket"} == {"url"}):
        given |= {"socket": None}
    return replace(outer or Connection(), **given)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a reading command --json; it receives `as_json`."""

    @functools.wraps(command)
    def with_json(*arguments: Any, as_json: bool, **options: Any) -> Any:
        everywhere = click.get_current_context().meta.get("photometryctl.json", False)
        return command(*arguments, as_json=as_json or everywhere, **options)

    return click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(with_json)
