"""Processes that give way."""

from __future__ import annotations

import subprocess
import sys

import psutil

from daemon.service import priority
from daemon.service.priority import FRAMES_FIRST, LAST, give_way

SHOWS = """
import psutil
from daemon.service.priority import give_way
give_way({niceness}, idle_disk={idle_disk})
me = psutil.Process()
print(me.nice(), int(me.ionice().ioclass))
"""


def shown(niceness: int, idle_disk: bool) -> list[int]:
    code = SHOWS.format(niceness=niceness, idle_disk=idle_disk)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=30).stdout
    return [int(word) for word in said.split()]


def test_a_process_lowers_its_own_priority():
    here = psutil.Process().nice()
    assert shown(FRAMES_FIRST, False)[0] == min(19, here + FRAMES_FIRST)
    assert shown(LAST, True) == [19, int(psutil.IOPRIO_CLASS_IDLE)]


def test_where_that_is_forbidden_it_goes_on(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(priority.os, "nice", refuse)
    monkeypatch.setattr(priority.psutil.Process, "ionice", refuse)
    give_way(LAST, idle_disk=True)
