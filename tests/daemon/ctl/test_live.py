"""The commands that stay: how they look, and how they leave."""

import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from daemon.ctl import view
from daemon.ctl.live import Board
from daemon.ctl.output import console
from tests.daemon.ctl.fake_daemon import EVENTS, STATUS, FakeDaemon


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments):
        self._reading, writing = pty.openpty()
        # whatever runs in a shell's background, as tests may, has Ctrl-C ignored, and so have its children
        command = ["env", "--default-signal=INT", sys.executable, "-m", "daemon.ctl", *arguments]
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "160", "LINES": "60"}
        self.process = subprocess.Popen(command, stdin=writing, stdout=writing, stderr=subprocess.PIPE, env=environment)
        os.close(writing)
        self.shown = ""

    def shows(self, words, within_s=20.0):
        deadline = time.monotonic() + within_s
        while words not in self.shown and time.monotonic() < deadline:
            if select.select([self._reading], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._reading, 65536).decode(errors="replace")
                except OSError:  # the command has left
                    break
        return words in self.shown

    def leaves(self, number):
        """Exit code and standard error after a signal."""
        self.process.send_signal(number)
        self.shows("\0", within_s=1.0)
        code = self.process.wait(10)
        told = self.process.stderr.read().decode()
        return code, told

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()
        os.close(self._reading)


@pytest.fixture
def terminal():
    opened = []

    def start(*arguments):
        opened.append(Terminal(*map(str, arguments)))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_watch_survives_a_restart_and_leaves_on_ctrl_c(terminal, tmp_path):
    first = FakeDaemon(tmp_path)
    with first:
        live = terminal("--url", first.url, "watch", "--interval", "0.1")
        assert live.shows("particle 4"), live.shown
    assert live.shows("trying again")
    live.shown = ""
    second = FakeDaemon(tmp_path, first.port)
    second.socket = tmp_path / "second.sock"
    with second:
        assert live.shows("captured 1000")
        assert live.leaves(signal.SIGINT) == (0, "")
    assert "\x1b[?1049l" in live.shown  # the screen is given back


def test_watch_leaves_on_sigterm(terminal, fake):
    live = terminal("--url", fake.url, "watch")
    assert live.shows("captured 1000")
    assert live.leaves(signal.SIGTERM) == (0, "")


def test_events_follow_until_ctrl_c(terminal, fake):
    live = terminal("--url", fake.url, "events", "--follow")
    assert live.shows("crack")
    assert live.leaves(signal.SIGINT) == (0, "")
    assert live.shown.count("frames_dropped") == 1


def status_with(captured):
    return {"parts": [{"name": "engine", "values": {"captured": captured}}]}


def test_the_frame_rate_is_that_between_two_looks():
    board = Board()
    board.take(status_with(1000), 10.0)
    assert board.frames_per_s is None
    board.take(status_with(1250), 12.5)
    assert board.frames_per_s == 100
    board.take(status_with(5), 13.5)  # the engine was restarted
    assert board.frames_per_s is None
    board.take(status_with(105), 14.5)
    assert board.frames_per_s == 100
    board.take({}, 15.5)
    assert board.frames_per_s is None


def drawn(capsys, what):
    console().print(what)
    return capsys.readouterr().out


def test_the_board_shows_everything(capsys):
    board = Board()
    board.take(STATUS, 1.0)
    board.events.extend(EVENTS)
    board.problem = "nothing answers; trying again"
    shown = drawn(capsys, board.view())
    for words in ("nothing answers; trying again", "frames/s", "dropped ring=2", "1 active", "instrument", "± 0.01"):
        assert words in shown, words


def test_a_problem_goes_away_with_the_next_answer():
    board = Board()
    board.problem = "nothing answers"
    board.take(STATUS, 1.0)
    assert board.problem == "" and board.last_seq() == 3


def test_text_from_the_daemon_is_no_markup(capsys):
    status = {"parts": [{"name": "[red]x", "state": "[bold]", "detail": "[link=http://x]y[/link]", "reason": "a.b"}]}
    shown = drawn(capsys, view.status(status))
    for words in ("[red]x", "[bold]", "[a.b] [link=http://x]y[/link]."):
        assert words in shown
