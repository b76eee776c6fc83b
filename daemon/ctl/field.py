"""For the field engineer: self-test, configuration check, bundle, versions."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daemon.ctl.files import file_sentences, writable
from daemon.ctl.options import Connection, connection_options, json_option
from daemon.ctl.output import listed, print_json, print_table, warn
from daemon.errors import ClientError, InstrumentError

if TYPE_CHECKING:
    from daemon.diagnostics.checks.table import Site

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
    from daemon.api.tls import Certificate
    from daemon.config import check_drivers, load_settings

    loaded = load_settings(file)
    check_drivers(loaded.settings)
    if (certificate := loaded.settings.api.tls_certificate) is not None:
        served = Certificate(certificate, loaded.settings.api.tls_key)
        served.context()
        if served.problem is not None:  # the unit starts all the same
            warn(f"photometryctl: {served.problem}")
        elif served.expires_soon():
            warn(f"photometryctl: '{certificate}' expires within two weeks")
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

    given = _there(config_path)
    site = configured_site(config_path, state_dir)
    live = {"status.json": _status(connection)}
    write_bundle(out, config_path=given, state_dir=site.state_dir, live=live, site=site)


def _there(config_path: Path) -> Path | None:
    """None only when there is none: one in a closed folder shall be listed with that reason."""
    try:
        os.lstat(config_path)
    except FileNotFoundError:
        return None
    except OSError:
        return config_path
    return config_path


def configured_site(config_path: Path, state_dir: Path | None) -> Site:
    """From the configuration when it can be read, else the default: a bundle is wanted most when it cannot."""
    from daemon.config import StoreSettings, load_settings
    from daemon.diagnostics.checks.table import Site
    from daemon.diagnostics.checks.usb_devices import DriverChoice
    from daemon.errors import ConfigError

    try:
        settings = load_settings(_there(config_path)).settings
    except ConfigError as error:
        warn(error.detail)
        return Site(state_dir or StoreSettings().state_dir)
    camera, potentiostat = settings.camera, settings.potentiostat
    return Site(
        state_dir or settings.store.state_dir,
        settings.store.min_free_mb,
        DriverChoice(camera.driver, camera.options),
        DriverChoice(potentiostat.driver, potentiostat.options),
    )


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
