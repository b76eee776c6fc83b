"""Reading and following the log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon.diagnostics import log_reader
from daemon.diagnostics.log_reader import LogReader, read_log_files
from daemon.diagnostics.logs import LogRing, log_file, log_files


def add(ring: LogRing, message: str, level: int = logging.INFO) -> None:
    ring.add(logging.LogRecord("daemon", level, "", 1, message, (), None))


def read(reader: LogReader, since_utc: datetime | None = None, level: str = "debug") -> list[str]:
    found = reader(since_utc=since_utc, level=level, follow=False)
    assert isinstance(found, list)
    return [entry["message"] for entry in found]


def follow(reader: LogReader, since_utc: datetime | None = None) -> AsyncIterator[list[dict[str, Any]]]:
    batches = reader(since_utc=since_utc, level="info", follow=True)
    assert not isinstance(batches, list)
    return batches


def old_line(message: str, minutes: int, level: str = "info") -> str:
    utc = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(timespec="milliseconds")
    return json.dumps({"utc": utc, "level": level, "logger": "daemon", "message": message}) + "\n"


def test_level_and_time_select() -> None:
    ring = LogRing()
    add(ring, "a")
    add(ring, "b", logging.ERROR)
    reader = LogReader(ring, None)
    assert read(reader) == ["a", "b"]
    assert read(reader, level="warning") == ["b"]
    assert read(reader, since_utc=datetime.now(UTC) + timedelta(minutes=1)) == []


def test_what_an_earlier_process_wrote_comes_first(tmp_path: Path) -> None:
    newest, older = log_files(tmp_path)[:2]
    newest.parent.mkdir()
    older.write_text(old_line("oldest", 30) + old_line("noise", 29, "debug"))
    newest.write_text(old_line("old", 10) + "{damaged\n" + "[1]\n")
    ring = LogRing()
    add(ring, "new")
    reader = LogReader(ring, tmp_path)
    assert read(reader, level="info") == ["oldest", "old", "new"]
    assert read(reader, since_utc=datetime.now(UTC) - timedelta(minutes=20), level="info") == ["old", "new"]


def test_lines_of_this_process_are_not_repeated_from_its_file(tmp_path: Path) -> None:
    ring = LogRing()
    add(ring, "new")
    log_file(tmp_path).parent.mkdir()
    log_file(tmp_path).write_text(old_line("old", 10) + json.dumps(ring.after(0)[0].fields) + "\n")
    assert read(LogReader(ring, tmp_path)) == ["old", "new"]


def test_a_huge_file_is_read_from_its_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "TAIL_BYTES", 1000)
    log_file(tmp_path).parent.mkdir()
    log_file(tmp_path).write_text("".join(old_line(f"line {n}", 10) for n in range(100)))
    messages = [fields["message"] for fields in read_log_files(tmp_path)]
    assert messages[-1] == "line 99"
    assert 1 < len(messages) < 20


async def test_followers_get_what_comes_and_keep_alives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "POLL_S", 0.01)
    monkeypatch.setattr(log_reader, "IDLE_S", 0.05)
    ring = LogRing()
    add(ring, "before")
    batches = follow(LogReader(ring, None))
    assert await anext(batches) == []  # nothing came: a keep-alive
    add(ring, "after")
    add(ring, "noise", logging.DEBUG)
    batch = await asyncio.wait_for(anext(batches), 2)
    assert [entry["message"] for entry in batch] == ["after"]


async def test_following_from_a_time_begins_with_the_past() -> None:
    ring = LogRing()
    add(ring, "before")
    batches = follow(LogReader(ring, None), datetime.now(UTC) - timedelta(minutes=1))
    assert [entry["message"] for entry in await anext(batches)] == ["before"]
