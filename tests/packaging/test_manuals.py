"""Man pages and completion say what the commands take, all of it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from daemon.config import KNOWN
from daemon.ctl.app import COMMANDS, cli

SCRIPT = Path(__file__).parents[2] / "packaging/manuals.py"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory they were written to."""
    spec = importlib.util.spec_from_file_location("manuals", SCRIPT)
    assert spec is not None and spec.loader is not None
    manuals = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(manuals)
    directory = tmp_path_factory.mktemp("manuals")
    manuals.main(directory, "1.2.3")
    return directory


def page(written: Path, name: str) -> str:
    section = name.rpartition(".")[2]
    return (written / f"usr/share/man/man{section}" / name).read_text().replace("\\-", "-")


def test_every_command_and_option_is_there(written: Path) -> None:
    text = page(written, "photometryctl.1")
    context = click.Context(cli, info_name="photometryctl")
    for name in COMMANDS:
        assert f'.SS "photometryctl {name}' in text
        command = cli.get_command(context, name)
        assert command is not None
        for param in command.params:
            shown = param.opts[0] if isinstance(param, click.Option) else param.make_metavar(context)
            assert shown in text


def test_every_setting_is_there(written: Path) -> None:
    text = page(written, "photometryd.toml.5")
    for name in KNOWN:
        assert name in text


def test_the_switch_is_there(written: Path) -> None:
    text = page(written, "photometryd-update.8")
    for command in ("switch", "rollback", "confirm", "list", "prune", "status"):
        assert f'.SS "photometryd-update {command}' in text


def test_man_reads_them_without_a_warning(written: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    for path in sorted((written / "usr/share/man").rglob("*.[158]")):
        command = ["groff", "-man", "-Tutf8", "-ww", "-z", "-K", "utf8", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (0, ""), path


def test_bash_reads_its_completion(written: Path) -> None:
    script = written / "usr/share/bash-completion/completions/photometryctl"
    assert subprocess.run(["bash", "-n", str(script)], timeout=30, check=False).returncode == 0
    assert "_PHOTOMETRYCTL_COMPLETE=bash_complete" in script.read_text()
