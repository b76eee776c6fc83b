from __future__ import annotations

import os
import subprocess
import sys

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store.lock import StateLock


def refused(path):
    with pytest.raises(StoreError) as caught:
        StateLock(path).acquire()
    return caught.value


def test_the_second_holder_is_told_the_pid_of_the_first(tmp_path):
    path = tmp_path / "photometryd.lock"
    with StateLock(path) as lock:
        lock.acquire()
        error = refused(path)
        assert error.reason is StoreReason.LOCKED
        assert f"process {os.getpid()}" in error.detail and str(tmp_path) in error.detail
    lock.release()
    with StateLock(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_killed_holder_leaves_nothing_to_clean_up(tmp_path):
    path = tmp_path / "photometryd.lock"
    code = "import sys, pathlib; from daemon.store.lock import StateLock; lock = StateLock(pathlib.Path(sys.argv[1]))"
    code += "; lock.acquire(); print(1, flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        child.stdout.readline()
        assert f"process {child.pid}" in refused(path).detail
        child.kill()
    with StateLock(path):
        pass


def test_a_folder_that_is_not_there(tmp_path):
    error = refused(tmp_path / "no" / "photometryd.lock")
    assert error.reason is StoreReason.NOT_WRITABLE and "no/photometryd.lock" in error.detail
