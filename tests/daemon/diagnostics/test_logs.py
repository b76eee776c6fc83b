"""Logging: never blocks, never forges a line, keeps what a bundle needs."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.diagnostics import logs
from daemon.diagnostics.logs import (
    MAX_MESSAGE_CHARS,
    JournalSink,
    LogRing,
    LogService,
    entry_of,
    is_journal,
    log_file,
    log_files,
    one_line,
)
from daemon.errors import StoreError, StoreReason

log = logging.getLogger("daemon.part")


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def service(tmp_path: Path, stream: io.StringIO) -> Iterator[LogService]:
    service = LogService("info", tmp_path, stream=stream, environ={})
    service.start()
    yield service
    service.stop()


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("daemon", logging.INFO, __file__, 1, message, args, None)


def rows(directory: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in log_file(directory).read_text().splitlines()]


def test_a_line_reaches_console_file_and_ring(service: LogService, stream: io.StringIO, tmp_path: Path) -> None:
    log.info("run %s started", "r1")
    log.debug("not wanted")
    service.stop()
    assert "info    daemon.part: run r1 started\n" in stream.getvalue()
    (row,) = rows(tmp_path)
    assert (row["level"], row["logger"], row["message"]) == ("info", "daemon.part", "run r1 started")
    assert row["utc"].endswith("+00:00")
    assert [entry.fields for entry in service.ring.after(0)] == [row]


def test_an_error_carries_code_and_traceback(service: LogService, stream: io.StringIO, tmp_path: Path) -> None:
    try:
        raise StoreError(StoreReason.DISK_FULL, "no room\nFORGED LINE")
    except StoreError:
        log.exception("commit failed")
    service.stop()
    (row,) = rows(tmp_path)
    assert row["code"] == "store.disk_full"
    assert "StoreError" in row["exception"]
    assert all(line.startswith("    | ") for line in stream.getvalue().splitlines()[1:])


def test_warnings_are_logged(service: LogService, stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("careful", stacklevel=1)
    service.stop()
    assert "careful" in stream.getvalue()


def test_stop_gives_the_root_logger_back(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    service = LogService("debug", None, stream=io.StringIO(), environ={})
    service.start()
    service.start()
    assert root.handlers == [service]
    service.set_level("error")
    assert root.level == logging.ERROR
    service.stop()
    service.stop()
    assert (root.level, list(root.handlers)) == before


async def test_logging_in_the_loop_does_not_block(service: LogService) -> None:
    """The harness raises on any blocking call; `handleError` would print it."""
    for number in range(100):
        log.info("line %d", number)
    assert len(service.ring.after(0)) == 100


def test_a_stuck_sink_costs_lines_not_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "QUEUE_LINES", 10)
    release = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            release.wait(10)
            return len(text)

    service = LogService("info", None, stream=Stuck(), environ={})
    service.start()
    for number in range(50):
        log.info("line %d", number)
    assert service.dropped_lines >= 39
    assert len(service.ring.after(0)) == 50
    release.set()
    service.stop()


def test_a_full_disk_is_counted_and_the_console_goes_on(tmp_path: Path, stream: io.StringIO) -> None:
    (tmp_path / "logs").mkdir()
    log_file(tmp_path).symlink_to("/dev/full")
    service = LogService("info", tmp_path, stream=stream, environ={})
    service.start()
    log.info("one")
    log.info("two")
    service.stop()
    assert service.failed_writes == 2
    assert "one" in stream.getvalue()
    assert "two" in stream.getvalue()


def test_files_rotate_and_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 2000)
    service = LogService("info", tmp_path, stream=stream, environ={})
    service.start()
    for number in range(200):
        log.info("line %d", number)
    service.stop()
    kept = [path for path in log_files(tmp_path) if path.exists()]
    assert len(kept) == 1 + logs.FILES_KEPT == len(list((tmp_path / "logs").iterdir()))
    assert all(path.stat().st_size <= 2000 for path in kept)
    assert rows(tmp_path)[-1]["message"] == "line 199"


def test_hostile_text_stays_on_one_line_and_is_capped() -> None:
    hostile = "a\nb\r\x1b[31m\u2028\u202e\ud800\x00" + "x" * 10_000
    line = one_line(hostile)
    assert line.startswith(r"a\nb\r\x1b[31m\u2028\u202e\ud800\x00xxx")
    assert line.isprintable()
    assert len(line) < MAX_MESSAGE_CHARS + 200


@given(st.text())
def test_any_text_becomes_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable()
    if text.isprintable() and len(text) <= MAX_MESSAGE_CHARS:
        assert one_line(text) == text


def test_arguments_that_do_not_fit_do_not_raise() -> None:
    assert "arguments do not fit" in entry_of(record("%d of %d", "x"), 1).fields["message"]


def test_the_ring_forgets_the_oldest() -> None:
    ring = LogRing(entries=10)
    for number in range(25):
        ring.add(record("line %d", number))
    kept = ring.after(0)
    assert [entry.seq for entry in kept] == list(range(16, 26))
    assert [entry.seq for entry in ring.after(24)] == [25]
    assert ring.after(0, logging.WARNING) == []


def test_journal_lines_are_structured(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(logs, "send", lambda message, **fields: sent.append((message, fields)))
    try:
        raise StoreError(StoreReason.CORRUPT, "bad chunk")
    except StoreError as error:
        failure = logging.LogRecord("daemon.store", logging.ERROR, "", 1, "x", (), (type(error), error, None))
    JournalSink().write(entry_of(failure, 1))
    (message, fields) = sent[0]
    assert message.startswith("x\n")
    assert fields["PRIORITY"] == "3"
    assert fields["PHOTOMETRYD_CODE"] == "store.corrupt"
    assert fields["SYSLOG_IDENTIFIER"] == "photometryd"


def test_the_journal_is_recognised_by_its_stream(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        state = os.fstat(stream.fileno())
        assert is_journal(stream, {"JOURNAL_STREAM": f"{state.st_dev}:{state.st_ino}"})
        for named in ("1:2", "", "x:y", "1"):
            assert not is_journal(stream, {"JOURNAL_STREAM": named})
        assert not is_journal(stream, {})
    assert not is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})
