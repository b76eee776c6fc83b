"""Compiling ahead: everything that the engine and the simulated instrument need is in the cache afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from daemon.warmup import Warmth


@pytest.fixture
def warmed(monkeypatch):
    """Stands in for `daemon.warmup`: `act` is what it does, given `progress`."""
    fake = SimpleNamespace(act=lambda progress: None)

    def warm_all(progress):
        fake.act(progress)
        return Warmth(12, 30, 4.25, "/var/cache")

    monkeypatch.setitem(sys.modules, "daemon.warmup", SimpleNamespace(warm_all=warm_all))
    return fake


def test_each_step_and_the_outcome_are_told(run, warmed):
    def act(progress):
        progress("accumulate", 0, 2)
        progress("simulated instrument", 1, 2)
        progress("", 2, 2)

    warmed.act = act
    done = run("warm")
    assert (done.exit_code, done.stderr) == (0, "1/2 accumulate\n2/2 simulated instrument\n")
    assert done.stdout == "12 kernels compiled, 30 loaded in 4.2 s; the cache is /var/cache\n"


def test_the_outcome_as_json(run, warmed):
    assert json.loads(run("warm", "--json").stdout) == {
        "compiled": 12, "loaded": 30, "seconds": 4.25, "cache_dir": "/var/cache",
    }  # fmt: skip


def test_a_cache_that_cannot_be_written_is_a_sentence(run, warmed):
    def act(progress):
        raise RuntimeError("cannot cache function 'unpack': no locator available for file 'unpack.py'")

    warmed.act = act
    done = run("warm")
    assert done.exit_code == 1 and done.stderr.startswith("photometryctl: compiled kernels cannot be written")
    assert "NUMBA_CACHE_DIR" in done.stderr


def test_another_fault_is_not_taken_for_that(run, warmed):
    def act(progress):
        raise RuntimeError("LLVM gave up")

    warmed.act = act
    assert "unexpected RuntimeError: LLVM gave up" in run("warm").stderr


def test_a_second_time_finds_everything_in_the_cache():
    command = [sys.executable, "-m", "daemon.ctl", "warm", "--json"]
    first, second, third = (
        subprocess.run(command, capture_output=True, text=True, timeout=55, check=True, env=os.environ)
        for _ in range(3)
    )
    once, again, later = (json.loads(done.stdout) for done in (first, second, third))
    # a kernel within another one is compiled with it, and counts, but is loaded with it, and does not
    assert again["compiled"] == 0 and once["compiled"] + once["loaded"] >= again["loaded"] > 20
    assert (later["compiled"], later["loaded"]) == (0, again["loaded"])
    if cache := os.environ.get("NUMBA_CACHE_DIR"):
        assert Path(again["cache_dir"]).resolve().is_relative_to(Path(cache).resolve())
    steps = second.stderr.splitlines()
    assert len(steps) > 10 and steps[-1] == f"{len(steps)}/{len(steps)} simulated instrument"
