from __future__ import annotations

import sys

import pytest

from daemon.errors import ApiError, ApiReason, StoreError, StoreReason
from daemon.report import child
from daemon.report.build import report_html
from daemon.report.child import report_in_child
from tests.daemon.report.synthetic_run import SyntheticRun


def test_the_childs_report_is_the_same(tmp_path):
    path, told = SyntheticRun(particles=4, frames=200, cell=False).write(tmp_path / "r.db"), []
    report_in_child(path, tmp_path / "r.html", (2,), told.append)
    assert (tmp_path / "r.html").read_text() == report_html(path, [2], lambda share: None)
    assert told == sorted(told) and told[-1] == 1.0


def test_its_refusal_is_ours(tmp_path):
    with pytest.raises(StoreError) as caught:
        report_in_child(tmp_path / "none.db", tmp_path / "r.html", (), lambda share: None)
    assert caught.value.reason is StoreReason.NOT_A_RUN and "none.db" in caught.value.detail


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    """A child that runs the given lines of Python instead."""

    def use(text):
        (tmp_path / "child.py").write_text(f"{text}\n")
        script = tmp_path / "python"
        # not named in the first line itself: no place with a space may stand there
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/child.py"\n')
        script.chmod(0o755)
        monkeypatch.setattr(child.sys, "executable", str(script))

    return use


def test_a_child_that_dies_is_a_fault_of_ours(scripted, tmp_path):
    scripted("import os; print('{\"share\": 0.5}', flush=True); os.kill(os.getpid(), 9)")
    with pytest.raises(ApiError) as caught:
        report_in_child(tmp_path / "r.db", tmp_path / "r.html", (), lambda share: None)
    assert caught.value.reason is ApiReason.INTERNAL and "-9" in caught.value.detail


def test_who_gives_up_ends_the_child(scripted, tmp_path):
    scripted("import time\nprint('{\"share\": 0.5}', flush=True)\ntime.sleep(60)")

    def stop(share):
        raise TimeoutError

    with pytest.raises(TimeoutError):
        report_in_child(tmp_path / "r.db", tmp_path / "r.html", (), stop)
