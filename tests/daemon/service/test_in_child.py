from __future__ import annotations

import json
import os
import sys
import time

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.service import in_child, priority
from daemon.service.in_child import run_in_child, serve


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    """A child that runs the given lines of Python instead; returns what `run_in_child` does with it."""

    def use(text, progress=lambda share: None, **limits):
        (tmp_path / "child.py").write_text(f"import json, os, sys, time\n{text}\n")
        script = tmp_path / "python"
        # not named in the first line itself: no place with a space may stand there
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -u "{tmp_path}/child.py" "$@"\n')
        script.chmod(0o755)
        monkeypatch.setattr(in_child.sys, "executable", str(script))
        return run_in_child("of.tests", ["one", "two"], progress, **limits)

    return use


def test_what_it_was_done_with_and_how_far_it_was(scripted):
    shares = []
    done = scripted(
        """for share in (0.25, 0.5):
    print(json.dumps({"share": share}))
print("whatever a library says")
print(json.dumps([1]))
print(json.dumps({"done": {"arguments": sys.argv[1:], "threads": os.environ["OMP_NUM_THREADS"]}}))""",
        shares.append,
    )
    assert done == {"arguments": ["-m", "of.tests", "one", "two"], "threads": "1"}
    assert [share for share in sorted(set(shares)) if share] == [0.25, 0.5] and shares == sorted(shares)


def test_its_refusal_is_ours(scripted):
    shares = []
    with pytest.raises(StoreError) as caught:
        scripted("""print(json.dumps({"code": "store.disk_full", "detail": "no room"})); sys.exit(1)""", shares.append)
    assert (caught.value.reason, caught.value.detail) == (StoreReason.DISK_FULL, "no room")
    assert set(shares) <= {0.0}


@pytest.mark.parametrize(
    "text",
    [
        """print('{"share": 0.5}'); os.kill(os.getpid(), 9)""",
        "sys.exit(-9)",
        """print('{"code": "no.such.code", "detail": ""}')""",
        "raise ValueError",
        "",
    ],
)
def test_one_that_ends_without_a_word_is_told_apart(scripted, text):
    with pytest.raises(ChildProcessError, match=r"of\.tests ended with"):
        scripted(text)


@pytest.mark.parametrize("last_words", ["""print('{"share": 0.5}')""", "pass"])
def test_who_gives_up_ends_it_though_it_is_silent(scripted, tmp_path, last_words):
    calls = []

    def give_up(share):
        calls.append(share)
        if (tmp_path / "pid").exists() and len(calls) > 2:
            raise KeyboardInterrupt

    began_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        scripted(f"""{last_words}
open(r"{tmp_path}/pid", "w").write(str(os.getpid()))
time.sleep(60)""", give_up)  # fmt: skip
    assert time.monotonic() - began_s < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_one_that_hangs_is_given_up(scripted):
    with pytest.raises(TimeoutError):
        scripted("time.sleep(60)", within_s=0.5)


@pytest.fixture
def said(capsys, monkeypatch):
    """What the child's side prints, here, without lowering this process."""
    monkeypatch.setattr(in_child, "give_way", lambda niceness, idle_disk: None)
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_childs_side_tells_of_its_work_now_and_then(said):
    def work(tell):
        for step in range(1001):
            tell(step / 1000)
        return {"rows": 3}

    assert serve(work, 10) == 0
    lines = said()
    assert lines[0] == {"share": 0.0} and lines[-2:] == [{"share": 1.0}, {"done": {"rows": 3}}]
    assert len(lines) < 20


def test_the_childs_side_tells_its_refusal(said):
    def work(tell):
        raise StoreError(StoreReason.NO_PARTICLE, "no particle 9")

    assert serve(work, 10) == 1
    assert said() == [{"code": "store.no_such_particle", "detail": "no particle 9"}]


def test_a_fault_of_the_childs_side_is_not_swallowed(said):
    def work(tell):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serve(work, 10)


def test_the_childs_side_gives_way(monkeypatch, capsys):
    given = []
    monkeypatch.setattr(priority.os, "nice", given.append)
    monkeypatch.setattr(priority.psutil.Process, "ionice", lambda process, kind: given.append(kind))
    serve(lambda tell: {}, 10)
    serve(lambda tell: {}, 19, idle_disk=True)
    assert given == [10, 19, priority.psutil.IOPRIO_CLASS_IDLE]
