"""For the tests of the store: a real, small file system; and nothing opens what only SQLite may."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.locks import OpenedBeside

OPENED = OpenedBeside()


@pytest.fixture(autouse=True)
def _nothing_opened_beside():
    """Fails a test in which product code opens a file of which this process has locks (`daemon/store/held.py`)."""
    OPENED.found.clear()
    OPENED.watching = True
    yield
    OPENED.watching = False
    if OPENED.found:
        pytest.fail(f"closing these dropped SQLite's locks on them: {', '.join(OPENED.found)}", pytrace=False)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of a few hundred kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)
