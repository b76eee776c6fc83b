"""Runs: listing, starting, stopping."""

from __future__ import annotations

from typing import Any

import click

from daemon.ctl.client import Client, ask
from daemon.ctl.files import read_document
from daemon.ctl.options import Connection, connection_options, json_option
from daemon.ctl.output import listed, print_json, print_table, section, warn
from daemon.errors import RunError, RunReason

_COLUMNS = ("run_id", "name", "state", "started_utc", "frames", "particles", "exported_utc", "detail")


async def current_run(client: Client) -> str:
    """Id of the run in progress. Raises `RunError` when there is none."""
    run_id = section(await client.get("/status"), "run").get("run_id")
    if not run_id:
        raise RunError(RunReason.NOT_RUNNING, "no run is in progress")
    return str(run_id)


async def chosen_run(client: Client, run_id: str | None) -> str:
    """The run asked for, else the one in progress, else the newest. Raises `RunError` when there is none at all."""
    if run_id:
        return run_id
    running = section(await client.get("/status"), "run").get("run_id")
    if running:
        return str(running)
    newest = listed(await client.get("/runs", limit=1), "runs")
    if not newest:
        raise RunError(RunReason.NOT_FOUND, "there is no run yet")
    return str(newest[0].get("run_id"))


@click.group(invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Most runs shown.")
@connection_options
@json_option
@click.pass_context
def runs(ctx: click.Context, connection: Connection, limit: int, as_json: bool) -> None:
    """The runs, newest first; `runs delete` removes one."""
    if ctx.invoked_subcommand is not None:
        ctx.obj = connection
        return
    document = ask(connection, lambda client: client.get("/runs", limit=limit))
    if as_json:
        print_json(document)
        return
    print_table(_COLUMNS, ([run.get(name) for name in _COLUMNS] for run in listed(document, "runs")))


@runs.command()
@click.argument("run_id")
@click.option("--unexported", is_flag=True, help="Delete it though no backup and no export holds it.")
@connection_options
@json_option
def delete(connection: Connection, run_id: str, unexported: bool, as_json: bool) -> None:
    """Delete the file of the finished run RUN_ID; what the run was stays in the list."""
    query = {"unexported": "true"} if unexported else {}
    run = ask(connection, lambda client: client.send("DELETE", f"/runs/{quoted(run_id)}", **query))
    if as_json:
        print_json(run)
        return
    click.echo(f"run {run.get('run_id', run_id)} is {run.get('state', 'deleted')}")


@click.command()
@click.argument("recipe")
@click.option("--no-wait", is_flag=True, help="Return once the run is in the catalogue, before it measures.")
@connection_options
@json_option
def start(connection: Connection, recipe: str, no_wait: bool, as_json: bool) -> None:
    """Start a run from RECIPE, a TOML or JSON file ('-': standard input)."""
    body = read_document(recipe)

    async def conversation(client: Client) -> Any:
        answer = await client.send("POST", "/runs", body)
        return answer if no_wait else await client.finish(answer, lambda _, line: warn(line))

    answer = ask(connection, conversation)
    if as_json:
        print_json(answer)
        return
    run = section(answer, "run") or answer
    run_id = run.get("run_id") or section(answer, "result").get("run_id") or answer.get("run_id")
    click.echo(f"run {run_id} is {run.get('state') if run is not answer else 'being prepared'}")


@click.command()
@click.argument("run_id", required=False)
@connection_options
@json_option
def stop(connection: Connection, run_id: str | None, as_json: bool) -> None:
    """Stop the run in progress, or RUN_ID: cell off first, all results kept."""

    async def conversation(client: Client) -> Any:
        wanted = run_id or await current_run(client)
        return await client.finish(await client.send("POST", f"/runs/{quoted(wanted)}/stop"))

    run = ask(connection, conversation)
    if as_json:
        print_json(run)
        return
    click.echo(f"run {run.get('run_id', run_id)} is {run.get('state', 'stopped')}, {run.get('frames', '?')} frames")


def quoted(name: str) -> str:
    """A name as one segment of a path."""
    from urllib.parse import quote

    return quote(name, safe="")
