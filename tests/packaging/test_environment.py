"""Setting up without rights: the script says which system packages are missing, and ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "cat", "mkdir", "dirname", "flock", "sort", "head", "awk", "env")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout, in a path with a space, that holds nothing but the script."""
    checkout = tmp_path / "a checkout"
    (checkout / "packaging").mkdir(parents=True)
    shutil.copy(ROOT / "packaging/environment", checkout / "packaging")
    return checkout


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """All the commands that the machine has: no compiler, no pkg-config, no uv; the user is not root."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in TOOLS:
        (commands / name).symlink_to(str(shutil.which(name)))
    command(commands, "id", "echo 1000")
    command(commands, "apt-get", "echo apt-get was called >&2; exit 9")
    return commands


def command(directory: Path, name: str, script: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def run(checkout: Path, commands: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": str(commands), "PYTHON": str(commands / "python")}
    script = [str(commands / "bash"), str(checkout / "packaging/environment"), *arguments]
    return subprocess.run(script, env=environ, capture_output=True, text=True, timeout=30, check=False)


def test_missing_packages_are_named_to_a_user_without_rights(checkout: Path, commands: Path) -> None:
    command(commands, "python", f'exec {sys.executable} "$@"')
    done = run(checkout, commands)
    assert done.returncode == 1
    assert (
        "System packages are missing. As root: apt-get install gcc libc6-dev pkg-config libsystemd-dev" in done.stderr
    )
    assert "apt-get was called" not in done.stderr


def test_root_gets_them_installed(checkout: Path, commands: Path) -> None:
    command(commands, "python", f'exec {sys.executable} "$@"')
    command(commands, "id", "echo 0")
    done = run(checkout, commands)
    assert "installing system packages: gcc libc6-dev pkg-config libsystemd-dev" in done.stdout
    assert "apt-get was called" in done.stderr
    assert done.returncode == 1


def test_missing_test_tools_are_no_error(checkout: Path, commands: Path) -> None:
    done = run(checkout, commands, "--for-tests")
    assert done.returncode == 0
    assert "tests of the units are skipped where they miss: systemd (as root: apt-get install systemd)" in done.stderr
