"""For the field engineer: self-test, configuration check, bundle, versions."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import click

from daemon.ctl.files import file_sentences, writable
from daemon.ctl.options import Connection, connection_options, json_option
from daemon.ctl.output import listed, print_json, print_table, warn
from daemon.errors import ClientError, InstrumentError

CONFIG_PATH = Path("/etc/photometryd/photometryd.toml")
_CHECK_COLUMNS = ("name", "outcome", "measured", "limit", "remedy")


@click.command()
@connection_options
@json_option
@click.pass_context
def selftest(ctx: click.Context, connection: Connection, as_json: bool) -> None:
    """Run every check of the instrument; exit code 1 when one fails."""
    from daemon.ctl.client import Client, ask

    async def conversation(client: Client) -> Any:
        return await client.finish(await client.send("POST", "/selftest"))

    report = ask(connection, conversation)
    checks = listed(report, "checks")
    if as_json:
        print_json(report)
    else:
        print_table(_CHECK_COLUMNS, ([check.get(name) for name in _CHECK_COLUMNS] for check in checks))
    failed = [str(check.get("name")) for check in checks if check.get("outcome") == "fail"]
    if failed:
        warn(f"photometryctl: the self-test failed: {', '.join(failed)}")
        ctx.exit(1)


@click.command("check-config")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def check_config(file: Path, as_json: bool) -> None:
    """Check the configuration FILE, drivers' options included, without using it."""
    from daemon.config import check_drivers, load_settings

    loaded = load_settings(file)
    check_drivers(loaded.settings)
    given = sorted(name for name, origin in loaded.origins.items() if origin != "default")
    if as_json:
        print_json({"good": True, "path": str(file), "given": given})
        return
    click.echo(f"{file} is good: {len(given)} settings given, the others at their defaults")


@click.command()
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The .tar.gz to write.")
@click.option("--config", "config_path", type=click.Path(path_type=Path), default=CONFIG_PATH, show_default=True,
              help="Configuration to include when the daemon does not answer.")  # fmt: skip
@click.option("--state-dir", type=click.Path(path_type=Path), help="State directory; as configured when absent.")
@connection_options
def bundle(connection: Connection, out: Path, config_path: Path, state_dir: Path | None) -> None:
    """Logs, settings without secrets, versions, status and recent faults in one file."""
    from daemon.ctl.client import ask

    writable(out)
    with file_sentences(str(out), "written"):
        try:
            ask(connection, lambda client: client.download("/diagnostics/bundle", out, "application/gzip"))
        except InstrumentError as error:
            warn(f"{error.detail}; collecting what this machine holds")
            _bundle_locally(connection, out, config_path, state_dir)
    click.echo(f"{out} written")


def _bundle_locally(connection: Connection, out: Path, config_path: Path, state_dir: Path | None) -> None:
    from daemon.diagnostics.bundle import write_bundle

    write_bundle(
        out,
        config_path=config_path if config_path.exists() else None,
        state_dir=state_dir or configured_state_dir(config_path),
        status=_status(connection),
    )


def configured_state_dir(config_path: Path) -> Path:
    """From the configuration when it can be read, else the default: a bundle is wanted most when it cannot."""
    from daemon.config import StoreSettings, load_settings
    from daemon.errors import ConfigError

    try:
        return load_settings(config_path if config_path.exists() else None).settings.store.state_dir
    except ConfigError as error:
        warn(error.detail)
        return StoreSettings().state_dir


def _status(connection: Connection) -> dict[str, Any] | None:
    """The status, should the daemon answer at all."""
    from daemon.ctl.client import ask

    try:
        answer = ask(connection, lambda client: client.get("/status"))
    except InstrumentError:
        return None
    return answer if isinstance(answer, dict) else None


@click.command()
@connection_options
@json_option
def version(connection: Connection, as_json: bool) -> None:
    """Versions of this tool and of the daemon, should it run."""
    from daemon.ctl.client import ask

    own = metadata.version("photometryd")
    try:
        theirs = ask(connection, lambda client: client.get("/version"))
        problem = ""
    except ClientError as error:
        theirs, problem = None, error.detail
    if as_json:
        print_json({"photometryctl": own, "photometryd": theirs})
        return
    click.echo(f"photometryctl {own}")
    click.echo(f"photometryd {theirs.get('version', '?')}" if isinstance(theirs, dict) else f"photometryd: {problem}")
