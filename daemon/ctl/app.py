"""The command group: which command lives where, the global options, and how errors become sentences."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Any, NoReturn

import click

from daemon.ctl.options import Connection, connection_options
from daemon.errors import ApiReason, InstrumentError

COMMANDS: dict[str, tuple[str, str]] = {
    "analyse": ("daemon.ctl.analyse:analyse", "Analyse a recording into a run file, as fast as it goes."),
    "export": ("daemon.ctl.export:export", "Write the tables of a run file as Parquet, CSV or Arrow."),
    "compare": ("daemon.ctl.compare:compare", "Compare run files: batches, cells, protocols."),
    "drivers": ("daemon.ctl.drivers:drivers", "What goes with failure, cracking, fade, rate and lag, run by run."),
    "report": ("daemon.ctl.report:report", "Write a run file's report: one HTML file that opens with no network."),
    "models": ("daemon.ctl.models:models", "Kinetic models of a run's particles, as PyBaMM parameter sets."),
    "verify": ("daemon.ctl.salvage:verify", "Compare every check sum of run files and catalogues."),
    "salvage": ("daemon.ctl.salvage:salvage", "Recover what is still good of a damaged run file into a new one."),
    "status": ("daemon.ctl.live:status", "Every part of the instrument, and what to do about it."),
    "watch": ("daemon.ctl.live:watch", "The instrument live in the terminal."),
    "runs": ("daemon.ctl.runs:runs", "The runs, newest first; `runs delete` removes one."),
    "backup": ("daemon.ctl.keeping:backup", "Bring a backup of all runs up to date, even with the daemon dead."),
    "restore": ("daemon.ctl.keeping:restore", "Make a state directory again from a backup."),
    "start": ("daemon.ctl.runs:start", "Start a run from a recipe file."),
    "stop": ("daemon.ctl.runs:stop", "Stop a run: cell off first, all results kept."),
    "events": ("daemon.ctl.events:events", "Events of all runs, with --follow as they come."),
    "particles": ("daemon.ctl.results:particles", "The particles of a run."),
    "masks": ("daemon.ctl.masks:masks", "The versions of a run's masks; with edits, the next one."),
    "table": ("daemon.ctl.table:table", "Rows of a run's tables: cycles, health, rates, fronts, clips, calibrations."),
    "trace": ("daemon.ctl.results:trace", "One particle's series."),
    "frame": ("daemon.ctl.results:frame", "The newest frame as a picture."),
    "logs": ("daemon.ctl.logs:logs", "The service's log by level and time, with --follow as it comes."),
    "cell": ("daemon.ctl.cell:cell", "Pause, resume or switch off the cell, or run an experiment."),
    "token": ("daemon.ctl.token:token", "Make, list and revoke the tokens of the HTTP API."),
    "selftest": ("daemon.ctl.field:selftest", "Run every check of the instrument."),
    "check-config": ("daemon.ctl.field:check_config", "Check a configuration file without using it."),
    "warm": ("daemon.ctl.warm:warm", "Compile the kernels ahead of the first start."),
    "bundle": ("daemon.ctl.field:bundle", "Collect what a support engineer asks for, even with the daemon dead."),
    "version": ("daemon.ctl.field:version", "Versions of this tool and of the daemon."),
}
"""Name -> (where the command is, its line in --help). Nothing is imported before it is used."""


class LazyGroup(click.Group):
    """A group that imports a command only to run it, and turns errors into sentences and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            near = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"No such command '{cmd_name}'.{hint}", ctx)
        module, name = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table, so that --help imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run; whatever goes wrong is a sentence on standard error and exit code 1, never a traceback unasked for."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:  # the reader (`| head`) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except InstrumentError as error:
            _refuse(ctx, str(error))
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            _refuse(ctx, f"unexpected {type(error).__name__}: {error}. {ApiReason.INTERNAL.remedy}")


def _refuse(ctx: click.Context, sentence: str) -> NoReturn:
    click.echo(f"photometryctl: {sentence}", err=True)
    ctx.exit(1)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@connection_options
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, where a command reads.")
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
@click.pass_context
def cli(ctx: click.Context, connection: Connection, as_json: bool, debug: bool) -> None:
    """The operator's tool of photometryd.

    Exit codes: 0 done, 1 the instrument or the data says no (a sentence on standard error), 2 wrong usage.
    """
    ctx.obj = connection
    ctx.meta["photometryctl.json"] = as_json
