"""What systemd hears, on a real notification socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.service.notify import MAX_STATUS_CHARS, Notifier


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        path = os.path.relpath(tmp_path / "notify")  # below the length limit of socket paths wherever tests run
        listening.bind(path)
        listening.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_each_call_says_its_word(supervisor: socket.socket) -> None:
    notifier = Notifier()
    notifier.starting("compiling kernels 3/20", expect_s=30)
    notifier.ready("300 particles")
    notifier.watchdog()
    notifier.status("running")
    notifier.stopping(expect_s=10)
    heard = [supervisor.recv(1000).decode().split("\n") for _ in range(5)]
    assert heard == [
        ["STATUS=compiling kernels 3/20", "EXTEND_TIMEOUT_USEC=30000000"],
        ["READY=1", "STATUS=300 particles"],
        ["WATCHDOG=1"],
        ["STATUS=running"],
        ["STOPPING=1", "STATUS=stopping", "EXTEND_TIMEOUT_USEC=10000000"],
    ]


def test_hostile_text_cannot_add_a_word(supervisor: socket.socket) -> None:
    Notifier().status("broken\nREADY=1\r\n" + "x" * 10_000)
    heard = supervisor.recv(20_000).decode()
    assert heard.startswith("STATUS=broken READY=1 xxx")
    assert "\n" not in heard
    assert len(heard) == len("STATUS=") + MAX_STATUS_CHARS


def test_without_a_supervisor_nothing_happens() -> None:
    notifier = Notifier({})
    notifier.ready()
    notifier.watchdog()
    assert notifier.last_status == "ready"


def test_a_supervisor_that_went_away_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notifier = Notifier()
    for _ in range(3):
        notifier.watchdog()
    assert len(caplog.records) == 1
    assert "does not take notifications" in caplog.text
