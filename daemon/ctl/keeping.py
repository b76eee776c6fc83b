"""Backups of the store, and a store from a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from daemon.ctl.export import with_progress
from daemon.ctl.field import CONFIG_PATH, configured_site
from daemon.ctl.options import Connection, connection_options, json_option
from daemon.ctl.output import print_json, warn
from daemon.errors import ClientError, ClientReason


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@click.option("--config", "config_path", type=click.Path(path_type=Path), default=CONFIG_PATH, show_default=True,
              help="Where the state directory is named, when the daemon does not answer.")  # fmt: skip
@click.option("--state-dir", type=click.Path(path_type=Path), help="State directory; as configured when absent.")
@connection_options
@json_option
def backup(
    connection: Connection, directory: Path | None, config_path: Path, state_dir: Path | None, as_json: bool
) -> None:
    """Bring the backup in DIRECTORY (`store.backup_dir` when absent) up to date; runs that it has are not copied again.

    The daemon does it, beside a run too; when none runs, this command does, and keeps the state directory meanwhile.
    """
    from daemon.ctl.client import Client, ask

    target = directory.absolute() if directory else None

    async def conversation(client: Client) -> Any:
        answer = await client.send("POST", "/backup", {"directory": str(target)} if target else {})
        return await client.finish(answer, lambda _, line: warn(line))

    try:
        report = ask(connection, conversation)
    except ClientError as error:
        if error.reason is not ClientReason.NOT_RUNNING:
            raise
        warn(f"{error.detail}; copying without it")
        report = _back_up_locally(target, state_dir, config_path)
    if as_json:
        print_json(report)
        return
    runs = len(report.get("whole_runs", []))
    click.echo(
        f"{report.get('directory')}: {runs} finished runs, {report.get('copied')} files copied "
        f"({report.get('copied_bytes', 0) / 1e6:.1f} MB), {report.get('unchanged')} had been copied before"
    )
    for run in report.get("damaged", []):
        warn(f"photometryctl: run {run.get('run_id')} was left out: {run.get('detail')}")


def _back_up_locally(target: Path | None, state_dir: Path | None, config_path: Path) -> dict[str, Any]:
    from daemon.store.backup import report_as_dict
    from daemon.store.offline import back_up_offline

    if target is None:
        raise click.UsageError("name a DIRECTORY: only the daemon knows which one is configured")
    place = configured_site(config_path, state_dir).state_dir
    return dict(report_as_dict(with_progress(lambda tell: back_up_offline(place, target, tell), "backup")))


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--state-dir", type=click.Path(path_type=Path), required=True, help="Directory to make; empty, unused.")
@json_option
def restore(directory: Path, state_dir: Path, as_json: bool) -> None:
    """Make --state-dir from the backup in DIRECTORY, every file checked first."""
    from dataclasses import asdict

    from daemon.store.restore import restore as restore_store

    source, place = directory.absolute(), state_dir.absolute()
    restored = with_progress(lambda tell: restore_store(source, place, tell), "restore")
    if as_json:
        print_json(asdict(restored))
        return
    click.echo(f"{place}: {restored.runs} runs as of {restored.made_utc}, {restored.bytes / 1e6:.1f} MB")
