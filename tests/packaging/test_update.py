"""Switching between versions and back: killed at every step, at the same time, and for every reason to say no."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.updating import ROOT, TOOL, Home, cut, every_cut, steps_of, tool

Reason = tool.Reason
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture
def homes(tmp_path: Path) -> Callable[..., Home]:
    """Any number of roots: 1.0 runs and is confirmed, 1.1 and 1.2 are installed; then these commands were run."""
    templates: dict[tuple[str, ...], Home] = {}
    numbers = itertools.count()

    def template(*commands: str) -> Home:
        if commands:
            home = template(*commands[:-1]).copy(tmp_path / str(next(numbers)))
            home.good(*commands[-1].split())
            return home
        home = Home(tmp_path / "template")
        for version in ("1.0", "1.1", "1.2"):
            home.install(version)
            os.utime(home.home / "versions" / version / ".complete", (0, int(version[2])))
        for command in (("switch", "1.0"), ("starting",), ("confirm",)):
            home.good(*command)
        return home

    def make(*commands: str) -> Home:
        if commands not in templates:
            templates[commands] = template(*commands)
        return templates[commands].copy(tmp_path / str(next(numbers)))

    return make


@pytest.fixture
def home(homes: Callable[..., Home]) -> Home:
    return homes()


def fail_starts(home: Home, count: int) -> None:
    for _ in range(count):
        home.good("starting")


def test_a_switch_is_kept_once_confirmed(home: Home) -> None:
    home.good("switch", "1.1")
    assert home.facts() == ("1.1", False, 0, "1.0", "1.0")
    home.good("starting")
    home.good("confirm")
    assert home.facts() == ("1.1", True, 0, "1.0", "1.1")
    fail_starts(home, 20)
    assert home.current == "1.1"


def test_failed_starts_lead_back_once(home: Home) -> None:
    home.good("switch", "1.1")
    fail_starts(home, 3)
    assert home.facts() == ("1.1", False, 3, "1.0", "1.1")
    code, _, err = home.run("starting")
    assert code == 0 and "version '1.1': 3 starts failed, and it is not confirmed: back to '1.0'" in err
    assert home.facts() == ("1.0", True, 0, None, "1.0")
    fail_starts(home, 20)
    assert home.facts() == ("1.0", True, 0, None, "1.0")
    assert "left: 3 starts failed" in home.good("list")


def test_the_limit_can_be_set(home: Home) -> None:
    home.good("switch", "1.1")
    for _ in range(2):
        home.good("starting", "--limit", "1")
    assert home.current == "1.0"


def test_a_stop_that_was_asked_for_is_no_failure(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.good("switch", "1.1")
    for result in ("success", "success", "success", "success", "watchdog", "exit-code"):
        home.good("starting")
        monkeypatch.setenv("SERVICE_RESULT", result)
        home.good("stopped")
    assert home.facts() == ("1.1", False, 2, "1.0", "1.1")
    monkeypatch.delenv("SERVICE_RESULT")
    home.good("stopped")
    assert home.facts()[2] == 2


def test_a_version_that_systemd_gives_up_is_left_at_once(home: Home) -> None:
    home.good("switch", "1.1")
    home.good("starting")
    home.good("failed-start")
    assert home.current == "1.0" and "left: it did not start" in home.good("list")
    home.good("failed-start")  # killed before it could start the service, it is run again: 1.0 was not started yet
    home.good("starting")
    assert "'1.0' does not start any more" in home.refused(Reason.KEPT, "failed-start")


def test_the_first_version_has_no_way_back(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.refused(Reason.NO_CURRENT, "starting")
    assert home.status()["current"] is None
    home.install("1.0")
    home.good("switch", "1.0")
    fail_starts(home, 3)
    code, _, err = home.run("starting")
    assert code == 0 and Reason.NO_PREVIOUS.code in err
    home.refused(Reason.NO_PREVIOUS, "failed-start")
    home.refused(Reason.NO_PREVIOUS, "rollback")
    assert home.current == "1.0"


def test_the_way_back_from_an_unproven_version_is_not_to_another(home: Home) -> None:
    home.good("switch", "1.1")
    home.good("switch", "1.2")
    assert home.facts() == ("1.2", False, 0, "1.0", "1.0")
    home.good("switch", "1.0")  # as good as a rollback: it was proven
    assert home.facts() == ("1.0", True, 0, None, "1.0")


def test_by_hand_one_goes_back_from_a_proven_version_too(home: Home) -> None:
    home.good("switch", "1.1")
    home.good("confirm")
    assert "back from version '1.1' to '1.0'" in home.good("rollback")
    assert home.facts()[:2] == ("1.0", True)
    home.refused(Reason.NO_PREVIOUS, "rollback")


def test_half_a_version_is_never_used(home: Home) -> None:
    home.install("1.3", complete=False)
    home.refused(Reason.INCOMPLETE, "switch", "1.3")
    (home.home / "versions/1.3/bin/photometryctl").unlink()
    assert "has no bin/photometryctl" in home.refused(Reason.INCOMPLETE, "seal", "1.3")
    for name in ("1.9", "../versions/1.1", "", ".", "/etc", "1.1/", "a" * 100):
        home.refused(Reason.NOT_FOUND, "switch", name)
        home.refused(Reason.NOT_FOUND, "seal", name)
    home.good("switch", "1.1")
    (home.home / "versions/1.0/.complete").unlink()
    home.refused(Reason.INCOMPLETE, "rollback")
    fail_starts(home, 9)
    home.refused(Reason.INCOMPLETE, "failed-start")
    assert home.current == "1.1"


def test_pruning_keeps_what_may_be_needed(home: Home) -> None:
    home.install("1.3", complete=False)
    home.good("switch", "1.1")
    home.good("prune", "--keep", "1")  # 1.2 is the newest, 1.1 current, 1.0 the way back
    assert sorted(home.place.installed()) == ["1.0", "1.1", "1.2", "1.3"]
    home.good("starting")
    home.good("confirm")
    home.good("switch", "1.2")
    home.good("prune", "--keep", "1")
    assert sorted(home.place.installed()) == ["1.1", "1.2", "1.3"]  # 1.1 runs still, and 1.3 may be in the making
    assert "1.0" not in home.place.load().records


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"versions": []}', '{"versions": {"1.0": 3}}', "\xff",
                                  '{"versions": {"1.1": {"previous": 3}}}', "[" * 100_000])  # fmt: skip
def test_a_state_that_cannot_be_read_leaves_what_runs(home: Home, text: str) -> None:
    home.good("switch", "1.1")
    (home.home / "state.json").write_bytes(text.encode("latin-1"))
    code, _, err = home.run("starting")
    assert code == 0 and "cannot be read and counts as empty" in err
    fail_starts(home, 9)
    assert home.current == "1.1"
    home.good("switch", "1.2")
    assert home.facts()[:2] == ("1.2", False)


COMMANDS = {
    "switch": ((), ("switch", "1.1")),
    "switch-from-unproven": (("switch 1.1",), ("switch", "1.2")),
    "switch-back": (("switch 1.1",), ("switch", "1.0")),
    "confirm": (("switch 1.1", "starting"), ("confirm",)),
    "rollback": (("switch 1.1", "starting", "confirm"), ("rollback",)),
    "starting": (("switch 1.1",), ("starting",)),
    "starting-too-often": (("switch 1.1", "starting", "starting", "starting"), ("starting",)),
    "failed-start": (("switch 1.1", "starting"), ("failed-start",)),
    "prune": (("switch 1.2", "confirm"), ("prune", "--keep", "1")),
    "seal": ((), ("seal", "1.2")),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_kill_before_any_step_leaves_old_or_new_complete(homes: Callable[..., Home], name: str) -> None:
    """And the same command, run again, gets there."""
    before, arguments = COMMANDS[name]
    whole = homes(*before)
    old = whole.facts()
    whole.good(*arguments)
    new = whole.facts()
    # `starting` does two things: it goes back, and notes what starts
    allowed = {old, new, (*new[:4], old[4])} if name == "starting-too-often" else {old, new}
    seen = set()
    for step, home in every_cut(lambda: homes(*before), *arguments):
        found = home.facts()
        assert found in allowed, f"cut at step {step}: {found}"
        assert home.current == found[0]
        assert "incomplete" not in home.good("list")
        seen.add(found)
        if name != "rollback" or found == old:  # one that is done has nothing before it to go back to
            home.run(*arguments)
            assert home.facts()[:2] == new[:2], step
    assert seen >= {old, new}


def test_what_is_removed_is_gone_in_one_step_and_in_the_end(homes: Callable[..., Home]) -> None:
    before = ("switch 1.2", "confirm", "starting")
    for step, home in every_cut(lambda: homes(*before), "prune", "--keep", "1"):
        assert home.place.installed() in (["1.2", "1.1", "1.0"], ["1.2", "1.0"]), step
        home.good("prune", "--keep", "1")
        assert sorted(path.name for path in (home.home / "versions").iterdir()) == ["1.0", "1.2"], step


@pytest.mark.parametrize("name", ["switch", "rollback", "confirm", "starting-too-often", "failed-start"])
def test_a_power_cut_is_no_worse_than_a_kill(homes: Callable[..., Home], name: str) -> None:
    """What a file holds is on the disk before its name is, and one name before the next."""
    before, arguments = COMMANDS[name]
    home = homes(*before)
    directory, written, unsynced = str(home.home), set(), []
    renames = 0
    for step in steps_of(home, *arguments):
        event, _, about = step.partition(" ")
        if event == "test.write":
            written.add(about)
        elif event == "test.fsync":
            written.discard(about)
            if about == directory:
                unsynced.clear()
        elif event == "os.rename":
            assert about.split()[0] not in written, "renamed before its content was on the disk"
            assert not unsynced, f"{unsynced} may come to the disk after {about}"
            unsynced.append(about)
            renames += 1
    assert renames >= 1 and not unsynced and not written


def test_the_steps_are_heard_of(home: Home) -> None:
    """That killing before each of them kills everywhere."""
    heard = {step.split()[0] for step in steps_of(home, "switch", "1.1")}
    assert heard >= {"open", "fcntl.flock", "os.rename", "os.symlink", "test.write", "test.half-written", "test.fsync"}
    assert not cut(home, 100_000, "status")


def test_two_at_once_wait_for_each_other(home: Home) -> None:
    """Many at once: all are done, one after the other, and what is left is whole."""
    commands = [
        ["switch", "1.1"],
        ["switch", "1.2"],
        ["starting"],
        ["confirm"],
        ["prune"],
        ["switch", "1.1"],
    ]
    tools = [
        subprocess.Popen([sys.executable, "-I", TOOL, "--root", home.root, *command], stderr=subprocess.PIPE, text=True,
                         stdout=subprocess.DEVNULL)
        for command in commands
    ]  # fmt: skip
    told = [tool.communicate(timeout=50)[1] for tool in tools]
    assert [tool.returncode for tool in tools] == [0] * len(tools), told
    assert home.current in ("1.1", "1.2")
    assert {home.current, home.status()["previous"], "1.1", "1.2"} <= set(home.place.installed())


def test_one_that_takes_too_long_is_told_of(home: Home) -> None:
    with home.place.locked(), pytest.raises(tool.UpdateError) as caught, tool.Installation(home.root).locked(0.05):
        pass
    assert caught.value.reason is Reason.BUSY


def test_a_disk_that_says_no_is_a_sentence(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    old = home.facts()
    for name in ("replace", "write", "symlink"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            code, _, err = home.run("switch", "1.1")
        assert code == 1 and "No space left on device" in err and Reason.DISK.code in err
        assert home.facts() == old
    home.good("switch", "1.1")


@pytest.mark.parametrize("arguments", [[], ["swtich", "1.1"], ["switch"], ["prune", "--keep", "0"],
                                       ["prove", "--settle-s", "-1"], ["prove", "--settle-s", "nan"]])  # fmt: skip
def test_wrong_usage_is_exit_code_2(home: Home, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tool.main(["--root", str(home.root), *arguments])
    assert ended.value.code == 2 and "usage:" in capsys.readouterr().err


def test_it_needs_nothing_but_python() -> None:
    """Debian's own interpreter, isolated: no package of ours, and none of a user's."""
    assert TOOL.read_text().startswith("#!/usr/bin/python3 -I\n")
    assert os.access(TOOL, os.X_OK)
    imported = set(re.findall(r"^(?:import|from) (\w+)", TOOL.read_text(), re.MULTILINE))
    assert imported <= sys.stdlib_module_names


def test_the_page_tells_of_every_command_and_refusal() -> None:
    page = (ROOT / "docs/field/update.md").read_text()
    assert [reason.code for reason in Reason if f"`{reason.code}`" not in page] == []
    commands = tool.parser()._subparsers._group_actions[0].choices
    assert [name for name in commands if f"photometryd-update {name}" not in page] == []


def test_units_call_commands_that_are_there() -> None:
    called = set()
    for unit in (ROOT / "systemd").glob("*.service"):
        for line in re.findall(r"^Exec\w+=\S*photometryd-update (.*)$", unit.read_text(), re.MULTILINE):
            arguments = re.sub(r"\$\{\w+\}", "1", line).split()
            called.add(tool.parser().parse_args(arguments).command)
    assert called == {"starting", "stopped", "failed-start", "prove"}
