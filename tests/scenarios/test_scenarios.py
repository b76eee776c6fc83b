"""Whole-daemon scenarios: each process plays many seeds on a clock of its own (`python -m tests.scenarios --help`)."""

import os
import subprocess
import sys

import pytest

from tests.scenarios.schedule import BOOTED_S, Schedule, Stuck

SEEDS = int(os.environ.get("SCENARIO_SEEDS", "60"))  # CI plays 200: a second of a core each


def played(*options, timeout_s):
    """The output of one run of the command, which must have broken no promise."""
    command = [sys.executable, "-m", "tests.scenarios", *options]
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environ)
    assert done.returncode == 0, (done.stdout + done.stderr)[-20_000:]
    return done.stdout


@pytest.mark.timeout(1800)  # two minutes of a core that it has for itself
def test_seeds_break_no_promise():
    told = played("--seeds", str(SEEDS), "--count", "4", timeout_s=1700)
    assert f"{SEEDS} scenarios from seed 1 on" in told and ": 0 failed" in told


@pytest.mark.timeout(600)
def test_planted_bugs_are_noticed_seeds_repeat_and_a_set_clock_moves_no_deadline():
    told = played("--plant", "--seeds", "12", "--first", "1000", "--twice", "6", "--clocks", "12", timeout_s=580)
    assert told.count(": noticed:") == 10 and "MISSED" not in told
    assert "6 played twice: 0 differ" in told
    assert "12 played again with a still wall clock: 0 deadlines moved" in told


def test_time_passes_only_while_everyone_waits():
    schedule = Schedule()
    assert not schedule.wait(BOOTED_S + 3600.0)
    assert schedule.now_s == BOOTED_S + 3600.0
    assert schedule.wall_s - schedule.wall_step_s == pytest.approx(schedule.wall_s)


def test_who_waits_without_a_deadline_and_alone_is_stuck():
    with pytest.raises(Stuck, match="every thread waits"):
        Schedule().wait(None)
