import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import rich  # noqa: F401 - what must not be imported is there to be imported

from daemon.ctl.app import COMMANDS, cli

DOCS = Path(__file__).parents[3] / "docs" / "photometryctl.md"


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_every_command_is_there_under_its_name():
    context = click.Context(cli)
    for name, (place, summary) in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command.name == name, place
        assert summary[0].isupper() and summary.endswith(".")
        assert command.help


def test_help_names_every_command(run):
    shown = run("--help")
    assert shown.exit_code == 0
    assert all(re.search(rf"^  {name} ", shown.stdout, re.M) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(run, name):
    shown = run(name, "--help")
    assert shown.exit_code == 0 and shown.stdout.startswith("Usage: ")


def test_help_imports_nothing_heavy():
    done = python(
        "import sys\nfrom daemon.ctl.app import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "heavy = {'aiohttp', 'rich', 'numpy', 'pydantic', 'h5py', 'asyncio', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["status", "--what"], ["trace"], ["trace", "four"], ["frame"], ["runs", "--limit", "0"],
     ["cell", "fly"], ["status", "--url", "ftp://x"], ["status", "--token", "a\nb"], ["events", "--kind", "party"],
     ["analyse", "x"], ["analyse", "x", "--out", "y", "--set", "novalue"],
     ["analyse", "x", "--out", "y", "--pixel-size-nm", "-3"],
     ["export", "x", "--out", "y", "--particles", "9-1"], ["export", "x", "--out", "y", "--particles", ","],
     ["export", "x", "--out", "y", "--from", "2", "--to", "1"], ["--timeout", "0", "status"]],
)  # fmt: skip
def test_wrong_usage_is_2(run, arguments):
    done = run(*arguments)
    assert done.exit_code == 2 and "Usage:" in done.stderr and done.stdout == ""


def test_a_near_name_is_offered(run):
    assert "Did you mean 'status'?" in run("statsu").stderr


def test_an_unexpected_error_is_a_sentence_unless_asked(run, monkeypatch):
    def burst(*_):
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setattr("daemon.ctl.runs.ask", burst)
    done = run("runs")
    assert done.exit_code == 1 and "unexpected ZeroDivisionError: nothing to divide by" in done.stderr
    assert "Traceback" not in done.stderr
    assert isinstance(run("--debug", "runs").exception, ZeroDivisionError)


def test_a_reader_that_leaves_early_hears_nothing(fake):
    """`photometryctl ... | head -1`"""
    code = (
        f"from daemon.ctl.app import cli; cli(['--url', '{fake.url}', 'events', '--json'], prog_name='photometryctl')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert (process.wait(20), process.stderr.read()) == (0, b"")
    process.stderr.close()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_manual_has_every_command_and_option(name):
    text = DOCS.read_text()
    assert f"## {name}" in text
    command = cli.get_command(click.Context(cli), name)
    for one in (command, *getattr(command, "commands", {}).values()):
        for option in one.params:
            longest = max(option.opts, key=len)
            assert not longest.startswith("--") or f"`{longest}" in text, f"{name} {longest}"
