"""photometryd-update as the tests use it: in process, below a root of their own, and cut short at any step."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "packaging/photometryd-update"
KILLED = 77
CRASHED = 78
STEPS = ("open", "os.", "shutil.", "fcntl.", "tempfile.", "test.")
"""Audit events of whatever touches files: of them all, so that no new step can be forgotten."""


def load() -> Any:
    """The tool as a module."""
    module = types.ModuleType("photometryd_update")
    sys.modules[module.__name__] = module  # where dataclasses look annotations up
    exec(compile(TOOL.read_text(), str(TOOL), "exec"), module.__dict__)
    return module


tool = load()


class Home:
    """A root with versions in it; `run` gives (exit code, standard output, standard error)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "opt/photometryd"
        self.place = tool.Installation(root)
        (self.home / "versions").mkdir(parents=True, exist_ok=True)

    def copy(self, root: Path) -> Home:
        """Another root with the same in it."""
        shutil.copytree(self.root, root, symlinks=True)
        return Home(root)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """A command."""
        out, err = io.StringIO(), io.StringIO()
        with _no_waiting_for_disks(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = tool.main(["--root", str(self.root), *arguments])
        return code, out.getvalue(), err.getvalue()

    def good(self, *arguments: str) -> str:
        """The output of a command that must succeed."""
        code, out, err = self.run(*arguments)
        assert code == 0, err
        return out

    def refused(self, reason: Any, *arguments: str) -> str:
        """The sentence of a command that must say no, for this reason, with its remedy."""
        code, _, err = self.run(*arguments)
        assert code == 1 and f"({reason.code}). {reason.remedy}" in err, (code, err)
        assert err.startswith("photometryd-update: ")
        return err

    def install(self, version: str, script: str = "exit 0", *, complete: bool = True) -> None:
        """A version whose service is this shell script."""
        commands = self.home / "versions" / version / "bin"
        commands.mkdir(parents=True)
        for name in ("photometryd", "photometryctl"):
            (commands / name).write_text(f"#!/bin/sh\n{script}\n")
            (commands / name).chmod(0o755)
        if complete:
            self.good("seal", version)

    def status(self) -> dict[str, Any]:
        """What ``status --json`` says."""
        return json.loads(self.good("status", "--json"))

    def facts(self) -> tuple[Any, ...]:
        """What counts: which version, proven or not, how often started, and where the way back leads."""
        told = self.status()
        return told["current"], told["confirmed"], told["starts"], told["previous"], told["last_started"]

    @property
    def current(self) -> str:
        """The version that `current` leads to, which is whole."""
        link = self.home / "current"
        assert (link / ".complete").is_file() and os.access(link / "bin/photometryd", os.X_OK)
        return link.resolve().name


@contextlib.contextmanager
def _no_waiting_for_disks() -> Iterator[None]:
    """A kill loses nothing that was written; what a power cut loses is told from the order of the steps."""

    def fsync(file: int) -> None:
        sys.audit("test.fsync", os.readlink(f"/proc/self/fd/{file}"))
        sys.audit("test.fsynced")

    with patch.object(os, "sync", lambda: sys.audit("test.sync")), patch.object(os, "fsync", fsync):
        yield


def cut(home: Home, at: int, *arguments: str, refusals: bool = False) -> bool:
    """Run a command in a process that is killed before its step number `at`; whether it came to that."""

    def until(step: int, event: str) -> None:
        if step == at:
            os._exit(KILLED)

    code = _in_a_process(home, until, *arguments)
    assert code in ((0, 1, KILLED) if refusals else (0, KILLED)), f"exit code {code} at step {at}"
    return code == KILLED


def steps_of(home: Home, *arguments: str) -> list[str]:
    """The steps of a command, with what they were about."""
    notes = home.root / "steps"
    told: list[str] = []

    def note(step: int, event: str) -> None:
        told.append(event)
        if event.startswith("test.end"):
            notes.write_text("\n".join(told))  # its own steps are noted too late to be written

    assert _in_a_process(home, note, *arguments) == 0
    return notes.read_text().splitlines()


def _in_a_process(home: Home, hear: Callable[[int, str], None], *arguments: str) -> int:
    """Fork, hear of every step, run; the exit code."""
    child = os.fork()
    if child == 0:
        code = CRASHED
        try:
            steps = iter(range(1_000_000))
            ended = False

            def hook(event: str, details: tuple[Any, ...]) -> None:
                nonlocal ended
                if event.startswith(STEPS) and not ended:
                    ended = event == "test.end"
                    hear(next(steps), f"{event} {' '.join(map(str, details))}")

            _audit_writes()
            sys.addaudithook(hook)
            code, _, _ = home.run(*arguments)
            sys.audit("test.end")
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _audit_writes() -> None:
    """Python raises no event for them; half of one is done before a kill in the middle."""
    write = os.write

    def audited(file: int, data: bytes) -> int:
        sys.audit("test.write", os.readlink(f"/proc/self/fd/{file}"))
        done = write(file, data[: len(data) // 2])
        sys.audit("test.half-written")
        return done + write(file, data[done:])

    os.write = audited


def every_cut(make: Callable[[], Home], *arguments: str) -> Iterator[tuple[int, Home]]:
    """For each step of a command: its number, and a home where it was cut there."""
    for step in itertools.count():
        home = make()
        if not cut(home, step, *arguments):
            assert step > 3, "no steps were heard of"
            return
        yield step, home
