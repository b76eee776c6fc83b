"""A real, small file system for the tests of the store."""

from __future__ import annotations

import shutil
import subprocess

import pytest


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
