"""The whole life of the service: settings, log, start, signals, run, stop."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import signal
import sys
from pathlib import Path

import click

from daemon.bootstrap import Instrument
from daemon.config import DEFAULT_PATH, LoadedSettings, load_settings
from daemon.diagnostics.logs import LogService
from daemon.errors import InstrumentError
from daemon.service.memory import keep_heap_small, spare_settled_objects
from daemon.service.notify import Notifier

log = logging.getLogger("daemon")

SWITCH_S = 0.0005
"""How long a thread that computes may hold the interpreter when another asks for it (Python's own: 5 ms). The event
loop asks for it at each system call, several times a request.
"""


@click.command(help="The service of a charge-photometry instrument.")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings file (TOML).")
@click.option("--simulate", is_flag=True, help="A simulated instrument: needs no hardware, no root, no files.")
@click.version_option(package_name="photometryd")
def main(config_path: Path | None, simulate: bool) -> None:
    """Run the service until it is told to stop."""
    if config_path is None and not simulate and DEFAULT_PATH.exists():
        config_path = DEFAULT_PATH
    try:
        loaded = load_settings(config_path, simulate=simulate)
    except InstrumentError as error:
        click.echo(f"photometryd: {error}", err=True)
        sys.exit(1)
    sys.exit(run(loaded))


def run(loaded: LoadedSettings) -> int:
    """Run the service with these settings; returns the exit code."""
    faulthandler.enable()
    keep_heap_small()
    sys.setswitchinterval(SWITCH_S)
    settings = loaded.settings
    logs = LogService(settings.service.log_level, settings.store.state_dir)
    logs.start()
    try:
        return asyncio.run(_serve(loaded, logs))
    finally:
        logs.stop()


async def _serve(loaded: LoadedSettings, logs: LogService) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    notifier = Notifier()
    instrument = Instrument(loaded, logs, notifier)
    starting = asyncio.create_task(instrument.start(), name="start")
    stopping = asyncio.create_task(stop.wait(), name="stop-signal")
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    try:
        if starting.done():
            starting.result()
            spare_settled_objects()
            click.echo(f"photometryd is ready: {instrument.api.url}", err=True)
            await stopping
        else:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
    except InstrumentError as error:
        log.critical("%s [%s]", error, error.code)
        return 1
    finally:
        stopping.cancel()
        await instrument.stop()
        notifier.close()
    return 0


if __name__ == "__main__":
    main()
