"""The tool beside a service: what it asks, what it waits for, and a service manager that starts what does not start."""

from __future__ import annotations

import http.server
import json
import os
import re
import socketserver
import subprocess
import tempfile
import threading
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon.parts import CellState, RunState
from tests.packaging.updating import ROOT, Home, tool

Reason = tool.Reason
IDLE = {"run": None, "measuring": False, "cell": {"state": "off"}}
PASS = {"outcome": "warn", "checks": [{"name": "clock", "outcome": "warn"}, {"name": "memory", "outcome": "pass"}]}
WORN = {
    "outcome": "fail",
    "checks": [{"name": "disk_wear", "outcome": "fail", "surroundings": True}, *PASS["checks"]],
}
FAIL = {"outcome": "fail", "checks": [{"name": "camera_frames", "outcome": "fail"}, *PASS["checks"]]}


@pytest.fixture
def home() -> Iterator[Home]:
    """1.0 is confirmed, 1.1 installed; below a short path, as sockets need one."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        home.install("1.0")
        home.install("1.1")
        for command in (("switch", "1.0"), ("starting",), ("confirm",)):
            home.good(*command)
        (home.root / "etc/photometryd").mkdir(parents=True)
        (home.root / "etc/photometryd/photometryd.toml").write_text('[api]\nsocket = "/api.sock"\n')
        yield home


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as its server was told: by "METHOD path" a status and a body."""

    def answer(self) -> None:
        status, body = self.server.answers.get(f"{self.command} {self.path}", (404, {}))  # type: ignore[attr-defined]
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer

    def address_string(self) -> str:
        return "client"

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def api(home: Home, answers: dict[str, Any], *, tcp: bool = False) -> Iterator[None]:
    """A service at the home's socket, or at TCP, that answers so below /api/v1."""
    whole = {f"{key.split()[0]} /api/v1{key.split()[1]}": value for key, value in answers.items()}
    if tcp:
        server: Any = socketserver.TCPServer(("127.0.0.1", 0), Handler)
        settings = f"[api]\nport = {server.server_address[1]}\n"
        (home.root / "etc/photometryd/photometryd.toml").write_text(settings)
    else:
        server = socketserver.UnixStreamServer(str(home.root / "api.sock"), Handler)
    server.answers = whole
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def systemctl(home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `systemctl` that shows what this file holds, and notes what it was told to do in `calls`."""
    commands = home.root / "commands"
    commands.mkdir()
    state = home.root / "unit"
    state.write_text("ActiveState=active\nInvocationID=a1\n")
    script = f'#!/bin/sh\necho "$@" >> {home.root}/calls\n[ $1 != show ] || cat {state}\n'
    (commands / "systemctl").write_text(script)
    (commands / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return state


@pytest.mark.parametrize("tcp", [False, True])
def test_an_idle_instrument_may_be_switched(home: Home, tcp: bool) -> None:
    with api(home, {"GET /status": (200, IDLE)}, tcp=tcp):
        home.good("switch", "1.1")
        home.good("rollback")


@pytest.mark.parametrize(
    "status",
    [IDLE | {"run": {"run_id": "r", "state": "preparing"}}, IDLE | {"measuring": True}, IDLE | {"cell": None}, {},
     *(IDLE | {"cell": {"state": state}} for state in ("running", "paused", "lost", "new"))],
)  # fmt: skip
def test_a_run_or_a_cell_that_is_on_is_not_ended(home: Home, status: dict[str, Any]) -> None:
    home.good("switch", "1.1")
    before = home.facts()
    with api(home, {"GET /status": (200, status)}):
        for command in (("switch", "1.0"), ("rollback",)):
            home.refused(Reason.MEASURING, *command)
        assert home.facts() == before
        home.good("rollback", "--force")
    assert home.current == "1.0"


def test_it_knows_the_words_of_the_daemon() -> None:
    assert set(tool.SAFE_CELL) < set(typing.get_args(CellState))
    assert set(typing.get_args(CellState)) - set(tool.SAFE_CELL) == {"running", "paused", "lost"}
    assert "running" in typing.get_args(RunState)


@pytest.mark.parametrize("answer", [(401, {}), (500, {}), (200, b"[]"), (200, b"{"), (200, b""), (200, b"\xff")])
def test_a_service_that_does_not_say_is_not_ended(home: Home, answer: Any) -> None:
    with api(home, {"GET /status": answer}):
        home.refused(Reason.UNANSWERED, "switch", "1.1")
        home.good("switch", "1.1", "--force")


def test_a_service_that_hangs_is_waited_for_within_bounds(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "ASK_S", 0.2)
    with socketserver.UnixStreamServer(str(home.root / "api.sock"), Handler):  # nobody accepts
        home.refused(Reason.UNANSWERED, "switch", "1.1")


def test_a_service_that_is_dead_may_be_switched(home: Home, systemctl: Path) -> None:
    home.refused(Reason.UNANSWERED, "switch", "1.1")  # systemd says that it runs, and nothing is at its socket
    systemctl.write_text("ActiveState=failed\nInvocationID=a1\n")
    home.good("switch", "1.1", "--restart")
    assert (home.root / "calls").read_text().endswith("restart photometryd.service\n")


def test_a_restart_that_fails_is_told(home: Home, systemctl: Path) -> None:
    systemctl.write_text("ActiveState=inactive\n")
    (home.root / "commands/systemctl").write_text("#!/bin/sh\necho no such unit >&2; exit 5\n")
    assert "no such unit" in home.refused(Reason.NOT_RUNNING, "switch", "1.1", "--restart")
    assert home.current == "1.1"  # and the sentence says what is left to do


SELFTEST = {
    "POST /selftest": (202, {"operation_id": "7", "state": "running"}),
    "GET /operations/7": (200, {"operation_id": "7", "state": "done", "result": PASS}),
}


def started(home: Home) -> Home:
    home.good("switch", "1.1", "--force")
    home.good("starting")
    return home


@pytest.mark.parametrize("answers", [SELFTEST, {"POST /selftest": (200, PASS)}, {"POST /selftest": (200, WORN)}])
def test_a_version_that_stays_up_and_passes_is_confirmed(home: Home, systemctl: Path, answers: dict[str, Any]) -> None:
    with api(started(home), answers):
        home.good("prove", "--settle-s", "0.05")
    assert home.facts() == ("1.1", True, 0, "1.0", "1.1")
    assert "confirmed already" in home.good("prove")  # and nothing is asked


@pytest.mark.parametrize(
    ("reason", "answers"),
    [
        (Reason.SELFTEST, {"POST /selftest": (200, FAIL)}),
        (Reason.UNANSWERED, {"POST /selftest": (503, {})}),
        (Reason.UNANSWERED, {"POST /selftest": (200, {"checks": [{"name": "clock"}]})}),
        (Reason.UNANSWERED, SELFTEST | {"GET /operations/7": (200, {"operation_id": "7", "state": "failed"})}),
        (Reason.UNANSWERED, {"POST /selftest": (200, [])}),
        (Reason.UNANSWERED, {}),
    ],
)
def test_what_fails_or_says_nothing_is_not_confirmed(
    home: Home, systemctl: Path, reason: Any, answers: dict[str, Any]
) -> None:
    with api(started(home), answers):
        home.refused(reason, "prove", "--settle-s", "0")
    assert home.facts() == ("1.1", False, 1, "1.0", "1.1")


def test_a_selftest_without_end_is_given_up(home: Home, systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "SELFTEST_S", 0.0)
    running = {"operation_id": "7", "state": "running"}
    with api(started(home), SELFTEST | {"GET /operations/7": (200, running)}):
        assert "did not end" in home.refused(Reason.UNANSWERED, "prove", "--settle-s", "0")


def test_a_version_that_crashes_and_comes_back_is_not_confirmed(
    home: Home, systemctl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short it is away: systemd gives each life an id of its own."""
    monkeypatch.setattr(tool, "POLL_S", 0.01)
    lives = iter(["a1", "a1", "a1"])
    monkeypatch.setattr(tool.Service, "invocation", lambda self: next(lives, "a2"))
    with api(started(home), SELFTEST):
        home.refused(Reason.NOT_STEADY, "prove", "--settle-s", "30")
    lives = iter(["a1", "a1"])  # up while it settles, another one after the self-test
    with api_again(home):
        home.refused(Reason.NOT_STEADY, "prove", "--settle-s", "0")
    assert home.facts()[:2] == ("1.1", False)


def api_again(home: Home) -> Any:
    (home.root / "api.sock").unlink()
    return api(home, SELFTEST)


@pytest.mark.parametrize("shown", ["ActiveState=activating\nInvocationID=a1\n", "ActiveState=failed\n", ""])
def test_a_version_that_is_not_up_is_not_confirmed(home: Home, systemctl: Path, shown: str) -> None:
    systemctl.write_text(shown)
    started(home)
    home.refused(Reason.NOT_RUNNING, "prove", "--settle-s", "0")


def test_a_version_that_was_not_started_yet_is_not_confirmed(home: Home, systemctl: Path) -> None:
    """The one before runs still, and would pass for it."""
    home.good("switch", "1.1", "--force")
    home.refused(Reason.NOT_RUNNING, "prove", "--settle-s", "0")


class Manager:
    """As much of systemd as restarts, its limit of starts, and what a failed unit leads to; reads the units shipped."""

    def __init__(self, home: Home) -> None:
        self.home = home
        unit = (ROOT / "systemd/photometryd.service").read_text()
        self.burst = int(self.value(unit, "StartLimitBurst"))
        self.interval_s = float(self.value(unit, "StartLimitIntervalSec"))
        self.restart_s = float(self.value(unit, "RestartSec"))
        self.final = int(self.value(unit, "RestartPreventExitStatus"))
        assert self.value(unit, "OnFailure") == "photometryd-rollback.service"
        assert self.value(unit, "Restart") == "on-failure"
        self.before = self.command(re.findall(r"^ExecStartPre=-\+/usr/sbin/photometryd-update (.*)$", unit, re.M))
        self.after = self.command(re.findall(r"^ExecStopPost=-\+/usr/sbin/photometryd-update (.*)$", unit, re.M))
        rollback = (ROOT / "systemd/photometryd-rollback.service").read_text()
        self.given_up = self.command(re.findall(r"^ExecCondition=/usr/sbin/photometryd-update (.*)$", rollback, re.M))
        assert re.findall(r"^ExecStart=\+/usr/bin/systemctl (.*)$", rollback, re.M) == [
            "reset-failed photometryd.service", "--no-block start photometryd.service"
        ]  # fmt: skip
        self.starts: list[float] = []
        self.now_s = 0.0
        self.ran: list[str] = []
        self.rollbacks = 0

    @staticmethod
    def value(unit: str, key: str) -> str:
        (found,) = re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)
        return found

    @staticmethod
    def command(found: list[str]) -> list[str]:
        (line,) = found
        return line.split()

    def start(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """Until the service is up or systemd has given up: `active` or `failed`."""
        for attempt in range(50):
            self.starts = [at_s for at_s in self.starts if self.now_s - at_s < self.interval_s]
            counted = 2 if attempt else 1  # a restart of its own is counted twice
            if len(self.starts) + counted > self.burst:
                result = "start-limit-hit"
            else:
                self.starts += [self.now_s] * counted
                result = self.once(monkeypatch)
                if result == "success":
                    return "active"
            if result in ("start-limit-hit", "final"):
                code, _, _ = self.home.run(*self.given_up)
                if code:
                    return "failed"
                self.rollbacks += 1
                self.starts = []
                continue
            self.now_s += self.restart_s
        raise AssertionError("it never ends")

    def once(self, monkeypatch: pytest.MonkeyPatch) -> str:
        calls = self.home.root / "calls"
        calls.unlink(missing_ok=True)
        self.home.run(*self.before)
        if calls.exists():
            assert calls.read_text() == "reset-failed photometryd.service\n"
            self.starts = []
        service = self.home.home / "current/bin/photometryd"
        self.ran.append(service.resolve().parents[1].name)
        done = subprocess.run([service], check=False, timeout=10)
        self.now_s += 200.0 if done.returncode == 9 else 1.0  # 9: hangs until a time-out or the watchdog ends it
        result = "success" if done.returncode == 0 else "exit-code"
        monkeypatch.setenv("SERVICE_RESULT", result)
        if result != "success":
            self.home.run(*self.after)
        return "final" if done.returncode == self.final else result


@pytest.mark.parametrize(
    ("script", "ran", "rollbacks"),
    [
        ("exit 1", ["1.1"] * 3 + ["1.0"], 0),  # crashes, as fast as systemd starts it
        ("exit 9", ["1.1"] * 3 + ["1.0"], 0),  # so slowly that systemd's limit of starts is never reached
        ("exit 2", ["1.1", "1.0"], 1),  # systemd does not try again
        ("kill -9 $$", ["1.1"] * 3 + ["1.0"], 0),
    ],
)
def test_a_service_that_fails_comes_back_as_the_version_before(
    home: Home, monkeypatch: pytest.MonkeyPatch, script: str, ran: list[str], rollbacks: int
) -> None:
    (home.home / "versions/1.1/bin/photometryd").write_text(f"#!/bin/sh\n{script}\n")
    home.good("switch", "1.1")
    manager = Manager(home)
    assert manager.start(monkeypatch) == "active"
    assert (manager.ran, manager.rollbacks) == (ran, rollbacks)
    assert home.facts() == ("1.0", True, 0, None, "1.0")
    assert manager.start(monkeypatch) == "active"


def test_starts_by_hand_before_the_update_do_not_use_up_the_way_back(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home.home / "versions/1.1/bin/photometryd").write_text("#!/bin/sh\nexit 1\n")
    home.good("switch", "1.1")
    manager = Manager(home)
    manager.starts = [0.0] * (manager.burst - 3)
    assert manager.start(monkeypatch) == "active"
    assert (manager.ran, manager.rollbacks) == (["1.1", "1.1", "1.0"], 1)


@pytest.mark.usefixtures("systemctl")
def test_the_version_before_gets_all_of_its_own_starts(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1.0", "1.1"):
        (home.home / f"versions/{version}/bin/photometryd").write_text("#!/bin/sh\nexit 1\n")
    home.good("switch", "1.1", "--force")
    manager = Manager(home)
    assert manager.start(monkeypatch) == "failed"
    assert manager.ran == ["1.1"] * 3 + ["1.0"] * 6  # the first was counted before the count began anew


@pytest.mark.parametrize("script", ["exit 1", "exit 2"])
def test_when_both_fail_there_is_an_end(home: Home, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    for version in ("1.0", "1.1"):
        (home.home / f"versions/{version}/bin/photometryd").write_text(f"#!/bin/sh\n{script}\n")
    home.good("switch", "1.1")
    manager = Manager(home)
    assert manager.start(monkeypatch) == "failed"
    assert home.current == "1.0"
    left = manager.ran.index("1.0")
    assert set(manager.ran[:left]) == {"1.1"} and set(manager.ran[left:]) == {"1.0"}


def test_a_confirmed_version_that_fails_is_given_up_as_ever(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.good("switch", "1.1")
    home.good("confirm")
    (home.home / "versions/1.1/bin/photometryd").write_text("#!/bin/sh\nexit 1\n")
    manager = Manager(home)
    assert manager.start(monkeypatch) == "failed"
    assert (manager.ran, manager.rollbacks) == (["1.1"] * 5, 0)


def test_restarts_by_hand_are_no_failures(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.good("switch", "1.1")
    manager = Manager(home)
    for _ in range(10):
        assert manager.start(monkeypatch) == "active"
        home.run(*manager.after)  # the stop that was asked for
        manager.starts = []
    assert set(manager.ran) == {"1.1"} and home.facts()[2] == 0
