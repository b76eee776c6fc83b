"""Tests of the installed package in a Debian guest: `make boot`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hil.boot.machine import InstalledMachine
from tests.hil.vm.machine import reason_against

VARIABLE = "PHOTOMETRYD_INSTALLED_GUEST"
"""Environment variable: directory of the guest's image."""
LONGEST_S = 36_000.0
"""Of a test: one with twenty cold boots on a busy machine takes hours."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skipped without a guest; with one they have time, as its processor is emulated."""
    reason = reason_against() if VARIABLE in os.environ else "needs a Debian guest with the package: make boot"
    for item in items:
        if Path(__file__).parent == item.path.parent:
            item.add_marker(pytest.mark.skip(reason=reason) if reason else pytest.mark.timeout(LONGEST_S))


@pytest.fixture
def cold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstalledMachine]:
    """A machine that is switched off, its disk as the installation left it; switched off at the end."""
    machine = InstalledMachine(Path(os.environ[VARIABLE]), tmp_path_factory.mktemp("cold"), "cold")
    machine.renew_disk(tmp_path_factory.mktemp("files"))
    try:
        yield machine
    finally:
        machine.stop()


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> InstalledMachine:
    """A machine that is switched off; `resume` has its service READY and measuring, nothing plugged in."""
    machine = InstalledMachine(Path(os.environ[VARIABLE]), tmp_path_factory.mktemp("boot"))
    machine.prepare(tmp_path_factory.mktemp("files"))
    return machine


@pytest.fixture
def guest(saved: InstalledMachine) -> Iterator[InstalledMachine]:
    """`saved`, resumed."""
    with saved.resume():
        yield saved


@pytest.fixture(autouse=True)
def bus() -> None:
    """Instead of the fixture of the tests above these: no emulated bus."""
