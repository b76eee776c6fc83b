"""Tests in a Debian guest with emulated USB devices in its ports: `make vm`."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hil.vm.machine import Machine, reason_against

VARIABLE = "PHOTOMETRYD_GUEST"
"""Environment variable: directory of the guest's image."""
LONGEST_S = 1800.0
"""Of a test, booting included."""
ROOT = Path(__file__).parents[3]
DISTRIBUTIONS = ("annotated-types", "genicam", "numpy", "pydantic", "pydantic-core", "pyusb", "typing-extensions")
DISTRIBUTIONS += ("typing-inspection",)


def copy_files(to: Path) -> None:
    """What the guest's Python needs for drivers: our packages and what those import."""
    for package in ("hw", "kernels"):
        shutil.copytree(ROOT / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in DISTRIBUTIONS:
        for file in importlib.metadata.files(name) or []:
            source = Path(str(file.locate()))
            if source.is_file() and source.suffix != ".pyc" and ".." not in file.parts:
                target = to / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skipped without a guest; with one they have time, as its processor is emulated."""
    reason = reason_against() if VARIABLE in os.environ else "needs a Debian guest: make vm"
    for item in items:
        if Path(__file__).parent == item.path.parent:
            item.add_marker(pytest.mark.skip(reason=reason) if reason else pytest.mark.timeout(LONGEST_S))


@pytest.fixture(scope="session")
def _machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Booted and saved."""
    files = tmp_path_factory.mktemp("files")
    copy_files(files)
    machine = Machine(Path(os.environ[VARIABLE]), tmp_path_factory.mktemp("vm"))
    machine.prepare(files)
    shutil.rmtree(files)
    return machine


@pytest.fixture
def guest(_machine: Machine) -> Iterator[Machine]:
    """A guest that has just booted, nothing plugged in."""
    with _machine.resume():
        yield _machine


@pytest.fixture(autouse=True)
def bus() -> None:
    """Instead of the fixture of the tests above these: no emulated bus."""
