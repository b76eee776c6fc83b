"""The masks of a run: their versions, and edits of them."""

from __future__ import annotations

from typing import Any

import click

from daemon.ctl.client import Client, ask
from daemon.ctl.files import read_document
from daemon.ctl.options import Connection, connection_options, json_option
from daemon.ctl.output import listed, print_json, print_table
from daemon.ctl.runs import chosen_run, quoted
from daemon.errors import ClientError, ClientReason

_COLUMNS = ("version", "from_frame", "utc", "actor", "particles", "edits")


@click.command()
@click.argument("run_id", required=False)
@click.option(
    "--remove", "removed", multiple=True, type=click.IntRange(0), metavar="ID",
    help="Measure this particle no more; may be repeated.",
)  # fmt: skip
@click.option("--edits", metavar="FILE", help="Carry out the edits in FILE, JSON or TOML ('-': standard input).")
@click.option("--version", "expected", type=click.IntRange(1), help="Only if this is the newest version.")
@connection_options
@json_option
def masks(
    connection: Connection,
    run_id: str | None,
    *,
    removed: tuple[int, ...],
    edits: str | None,
    expected: int | None,
    as_json: bool,
) -> None:
    """The versions of the masks of RUN_ID, or with edits the next one.

    Without RUN_ID: of the run in progress, else of the newest.
    """
    body = _change(removed, edits, expected)

    async def conversation(client: Client) -> Any:
        path = f"/runs/{quoted(await chosen_run(client, run_id))}/masks"
        if body is None:
            return await client.get(path)
        return await client.finish(await client.send("PATCH", path, body))

    document = ask(connection, conversation)
    if as_json:
        print_json(document)
    elif body is None:
        print_table(_COLUMNS, (_row(each) for each in listed(document, "versions")))
    else:
        made = [str(edit["new_particle_id"]) for edit in listed(document, "edits") if "new_particle_id" in edit]
        new = f", new: {', '.join(made)}" if made else ""
        click.echo(f"version {document.get('version')} from frame {document.get('from_frame')} on{new}")


def _change(removed: tuple[int, ...], edits: str | None, expected: int | None) -> dict[str, Any] | None:
    """The body of the request; None without edits."""
    if not removed and edits is None:
        if expected is not None:
            raise click.UsageError("--version goes with --remove or --edits")
        return None
    document = read_document(edits) if edits is not None else {}
    given = document.get("edits", [])
    if not isinstance(given, list):
        raise ClientError(ClientReason.BAD_FILE, f"'{edits}': 'edits' is no list")
    every = [{"action": "remove", "particle_id": particle_id} for particle_id in removed]
    body = document | {"edits": every + given}
    return body if expected is None else body | {"version": expected}


def _row(version: dict[str, Any]) -> list[Any]:
    """One line: its edits as words."""
    words = [
        " ".join(str(edit[name]) for name in ("action", "particle_id", "new_particle_id") if name in edit)
        for edit in listed(version, "edits")
    ]
    return [version.get(name) for name in _COLUMNS[:-1]] + [", ".join(words)]
