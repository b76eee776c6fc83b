"""What systemd hears, on a real notification socket."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from daemon.service.notify import MAX_STATUS_CHARS, MAX_WAITING, PROMPT_S, SEND_S, Notifier


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
    notifier.close()


def test_hostile_text_cannot_add_a_word(supervisor: socket.socket) -> None:
    notifier = Notifier()
    notifier.status("broken\nREADY=1\r\n" + "x" * 10_000)
    heard = supervisor.recv(20_000).decode()
    notifier.close()
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
    notifier.close()
    assert notifier.counts == {"failed": 3}
    assert len(caplog.records) == 1
    assert "does not take notifications" in caplog.text


@pytest.fixture
def deaf(supervisor: socket.socket) -> socket.socket:
    """A supervisor that does not read and whose buffer is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        other.connect(supervisor.getsockname())
        with pytest.raises(BlockingIOError):
            for _ in range(10_000):
                other.send(b"X=1")
    supervisor.setblocking(False)
    return supervisor


def read_all(supervisor: socket.socket, timeout_s: float = 3.0) -> list[str]:
    """What arrives until STOPPING, without the filling."""
    supervisor.settimeout(timeout_s)
    heard: list[str] = []
    while not heard or not heard[-1].startswith("STOPPING"):
        text = supervisor.recv(1000).decode()
        heard += [text] if text != "X=1" else []
    return heard


def test_a_supervisor_that_does_not_read_holds_nobody_up(deaf: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier()
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:  # stops where a send holds the interpreter's lock
        while not done.wait(0.01):
            ticks.append(time.monotonic())

    ticking = threading.Thread(target=tick)
    ticking.start()
    began_s = time.monotonic()
    for n in range(200):
        notifier.status(f"text {n}")
        notifier.starting(f"kernel {n}", expect_s=1)
        notifier.watchdog()
    assert time.monotonic() - began_s < 0.2
    time.sleep(2 * SEND_S)
    notifier.close()
    took_s = time.monotonic() - began_s
    done.set()
    ticking.join()
    assert took_s < 0.2 + 2 * SEND_S + PROMPT_S + 2 * SEND_S
    assert max(b - a for a, b in pairwise(ticks)) < 0.2
    assert sum(notifier.counts.values()) == 600
    assert notifier.counts["sent"] == 0
    assert len(caplog.records) == 1
    assert notifier._thread is not None
    assert not notifier._thread.is_alive()


def test_what_matters_arrives_once_the_supervisor_reads_again(deaf: socket.socket) -> None:
    notifier = Notifier()
    notifier.status("first")
    deadline_s = time.monotonic() + 2
    while not notifier._sending and time.monotonic() < deadline_s:
        time.sleep(0.005)  # the first text is on its way, so that it cannot be replaced
    for n in range(100):
        notifier.status(f"text {n}")
    notifier.watchdog()
    began_s = time.monotonic()
    notifier.ready("at work")
    notifier.stopping()
    assert time.monotonic() - began_s < 2 * PROMPT_S + 0.2
    assert read_all(deaf) == [
        "STATUS=first", "STATUS=text 99", "WATCHDOG=1", "READY=1\nSTATUS=at work", "STOPPING=1\nSTATUS=stopping"
    ]  # fmt: skip
    notifier.close()
    assert notifier.counts == {"sent": 5, "replaced": 99}


def test_at_the_bound_old_pings_make_room_for_the_end(deaf: socket.socket) -> None:
    notifier = Notifier()
    for _ in range(3 * MAX_WAITING):
        notifier.watchdog()
    notifier.stopping()
    heard = read_all(deaf)
    assert heard[-1].startswith("STOPPING=1")
    assert len(heard) <= MAX_WAITING + 1
    notifier.close()
    assert notifier.counts["sent"] == len(heard)
    assert notifier.counts["sent"] + notifier.counts["dropped"] == 3 * MAX_WAITING + 1


def test_the_last_word_has_arrived_when_the_call_returns(supervisor: socket.socket) -> None:
    supervisor.setblocking(False)
    notifier = Notifier()
    notifier.ready()
    assert supervisor.recv(100).startswith(b"READY=1")
    notifier.stopping()
    assert supervisor.recv(100).startswith(b"STOPPING=1")
    notifier.status("gone")
    notifier.close()
    notifier.close()
    assert supervisor.recv(100) == b"STATUS=gone"
    notifier.status("after the end")
    with pytest.raises(BlockingIOError):
        supervisor.recv(100)
    assert notifier.counts == {"sent": 3, "dropped": 1}


def test_an_abstract_name_is_understood() -> None:
    name = f"photometryd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(2)
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
        notifier.watchdog()
        assert listening.recv(100) == b"WATCHDOG=1"
        notifier.close()


def test_no_thread_without_something_to_send(supervisor: socket.socket) -> None:
    notifier = Notifier()
    assert notifier._thread is None
    notifier.close()
    assert notifier._thread is None
