"""Rows of a run's tables."""

from __future__ import annotations

from typing import Any

import click

from daemon.ctl.client import Client, ask
from daemon.ctl.options import Connection, connection_options, json_option
from daemon.ctl.output import listed, print_json, print_table, warn
from daemon.ctl.runs import chosen_run, quoted
from daemon.tables import HALVES, ROW_TABLES

PAGE_ROWS = 1000


@click.command()
@click.argument("name", type=click.Choice(list(ROW_TABLES)), metavar="NAME")
@click.option("--run", "run_id", help="The run; the one in progress, else the newest, when absent.")
@click.option("--particle", "particle_id", type=click.IntRange(0), help="Only this particle.")
@click.option("--cycle", type=int, help="Only this cycle.")
@click.option("--half", type=click.Choice([*HALVES, "none"]), help="Only this half; none: what lies outside halves.")
@click.option("--columns", help="Only these columns, by commas; when absent, all that hold something.")
@click.option("--after", type=click.IntRange(0), default=0, help="Go on behind an earlier answer's `next_after`.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=PAGE_ROWS, show_default=True, help="Most rows.")
@connection_options
@json_option
def table(
    connection: Connection,
    name: str,
    *,
    run_id: str | None,
    columns: str | None,
    after: int,
    limit: int,
    as_json: bool,
    **only: Any,
) -> None:
    """Rows of the table NAME of a run: cycles, health, rates, fronts, clips, calibrations."""
    picked = [part.strip() for part in (columns or "").split(",") if part.strip()]
    for column in (*picked, *(column for column, value in only.items() if value is not None)):
        if column not in ROW_TABLES[name].columns:
            raise click.UsageError(f"the table '{name}' has no column '{column}'")
    document = ask(connection, lambda client: _rows(client, name, run_id, after, limit, only))
    if as_json:
        print_json(document)
        return
    rows = listed(document, name)
    shown = picked or [each for each in ROW_TABLES[name].columns if any(row.get(each) is not None for row in rows)]
    print_table(shown, ([row.get(each) for each in shown] for row in rows))
    if document["next_after"] is not None:
        warn(f"further rows: --after {document['next_after']}")


async def _rows(
    client: Client, name: str, run_id: str | None, after: int, limit: int, only: dict[str, Any]
) -> dict[str, Any]:
    """Page after page until `limit` rows are there or no more come."""
    chosen = await chosen_run(client, run_id)
    rows: list[dict[str, Any]] = []
    following: int | None = after
    while following is not None and len(rows) < limit:
        share = min(PAGE_ROWS, limit - len(rows))
        page = await client.get(f"/runs/{quoted(chosen)}/{name}", after=following, limit=share, **only)
        found = listed(page, name)
        rows += found
        following = page.get("next_after") if found else None
    return {"run_id": chosen, name: rows, "next_after": following}
