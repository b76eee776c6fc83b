"""The harness: a test fails when it blocks the event loop or leaves tasks, threads, processes or descriptors behind."""

from __future__ import annotations

import asyncio.runners
import io
import os
import sqlite3
from collections.abc import Iterator

import pyarrow.csv
import pytest
from blockbuster import BlockBuster, BlockBusterFunction
from hypothesis import settings

from tests.leaks import Snapshot, leaks_since, recording_cancel

OURS = ["daemon", "hw", "kernels"]

# a loaded machine is no failure; CI tries the same examples each time
settings.register_profile("house", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("house")


@pytest.fixture(scope="session", autouse=True)
def _blocking_calls_fail() -> Iterator[None]:
    """Any blocking call made by our code inside a running event loop raises `BlockingError`."""
    guard = BlockBuster(scanned_modules=OURS)
    for module, name in ((os, "fsync"), (os, "fdatasync"), (sqlite3, "connect")):
        guard.functions[f"{module.__name__}.{name}"] = BlockBusterFunction(module, name, scanned_modules=OURS)
    for name in ("io.BufferedReader.read", "io.BufferedWriter.write", "os.stat", "os.replace"):
        # the index of compiled kernels is read on their first call only
        guard.functions[name].can_block_in(
            "numba/core/caching.py", {"load_overload", "save_overload", "_load_overload"}
        )
    guard.activate()
    yield
    guard.deactivate()


@pytest.fixture(scope="session", autouse=True)
def _pyarrow_signal_pipe() -> None:
    """pyarrow opens a pipe for its signal handler at the first read and keeps it: let it be there before any test."""
    pyarrow.csv.read_csv(io.BytesIO(b"a\n1\n"))


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Compares threads, children and descriptors around the test, and its tasks at the close of its loop.

    Uses no other fixture, so that it is torn down last: a test's patched clock is back in place by then.
    """
    tasks: list[str] = []
    cancel_all = asyncio.runners._cancel_all_tasks
    asyncio.runners._cancel_all_tasks = recording_cancel(tasks, cancel_all)
    before = Snapshot.take()
    yield
    asyncio.runners._cancel_all_tasks = cancel_all
    left = tasks + leaks_since(before)
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)
