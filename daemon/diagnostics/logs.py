"""The service's log: to the journal or the console, to a rotating file, and to a ring in memory that the API reads.

Logging never waits: lines go through a bounded queue to a writer thread; what does not fit is counted.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import queue
import sys
import threading
import traceback
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from systemd.journal import JournalHandler, send

from daemon.errors import InstrumentError

MAX_MESSAGE_CHARS = 2000
MAX_TRACEBACK_CHARS = 8000
RING_ENTRIES = 5000
QUEUE_LINES = 5000
FILE_BYTES = 5_000_000
FILES_KEPT = 4  # with FILE_BYTES at most 25 MB of a small card
STOP_WAIT_S = 5.0  # for a journal or disk that hangs
QUIET = ("asyncio", "aiohttp.access", "numba", "h5py", "PIL")
"""Libraries whose debug lines nobody asked for."""


@dataclass(frozen=True)
class LogEntry:
    """One line of the log. `created_s` is wall time, a label; `seq` counts within the process."""

    seq: int
    created_s: float
    level_number: int
    fields: dict[str, Any]
    """`utc`, `level`, `logger`, `message`, `thread`; with an error also `code`, `exception`."""


def one_line(text: str, limit: int = MAX_MESSAGE_CHARS) -> str:
    """`text` with line breaks and other unprintable characters escaped, and cut at `limit`: no line can be forged."""
    if len(text) > limit:
        text = f"{text[:limit]}... ({len(text) - limit} more characters)"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def entry_of(record: logging.LogRecord, seq: int) -> LogEntry:
    """A log record as plain fields; never raises, whatever the caller logged."""
    try:
        message = record.getMessage()
    except Exception as failure:  # noqa: BLE001  a wrong format string must not take the caller down
        message = f"{record.msg!r} (arguments do not fit: {failure})"
    fields: dict[str, Any] = {
        "utc": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": one_line(record.name, 100),
        "message": one_line(message),
        "thread": one_line(str(record.threadName), 100),
    }
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        fields["exception"] = "".join(traceback.format_exception(error))[-MAX_TRACEBACK_CHARS:]
        if isinstance(error, InstrumentError):
            fields["code"] = error.code
    return LogEntry(seq, record.created, record.levelno, fields)


class LogRing:
    """The newest entries in memory. Appended to from any thread."""

    def __init__(self, entries: int = RING_ENTRIES) -> None:
        self._entries: deque[LogEntry] = deque(maxlen=entries)
        self._lock = threading.Lock()
        self._seq = 0

    def add(self, record: logging.LogRecord) -> LogEntry:
        """Number the record and keep it."""
        with self._lock:
            self._seq += 1
            entry = entry_of(record, self._seq)
            self._entries.append(entry)
            return entry

    def after(self, seq: int, level_number: int = 0) -> list[LogEntry]:
        """Kept entries with a higher number at `level_number` or above, oldest first."""
        with self._lock:
            return [entry for entry in self._entries if entry.seq > seq and entry.level_number >= level_number]

    @property
    def last_seq(self) -> int:
        """The number of the newest entry."""
        return self._seq


class Sink:
    """Where the writer thread puts entries."""

    def write(self, entry: LogEntry) -> None:
        """Put one entry. Raises `OSError`."""
        raise OSError("no sink")

    def close(self) -> None:
        """Release what is held; idempotent."""


def readable(fields: dict[str, Any]) -> str:
    """An entry for people; traceback lines carry a bar, so that none looks like a line of its own."""
    utc, level, logger, message = (
        one_line(str(fields.get(name, ""))) for name in ("utc", "level", "logger", "message")
    )
    lines = [f"{utc[:23]}Z {level:<8}{logger}: {message}"]
    lines += [f"    | {one_line(line)}" for line in str(fields.get("exception", "")).splitlines()]
    return "\n".join(lines)


class ConsoleSink(Sink):
    """Readable lines on a stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, entry: LogEntry) -> None:
        self._stream.write(readable(entry.fields) + "\n")
        self._stream.flush()


class JournalSink(Sink):
    """The systemd journal, with structured fields."""

    def write(self, entry: LogEntry) -> None:
        fields = entry.fields
        extra = {"PHOTOMETRYD_CODE": fields["code"]} if "code" in fields else {}
        text = "\n".join([fields["message"], fields.get("exception", "")]).rstrip()
        send(
            text,
            PRIORITY=str(JournalHandler.map_priority(entry.level_number)),
            LOGGER=fields["logger"],
            THREAD_NAME=fields["thread"],
            SYSLOG_IDENTIFIER="photometryd",
            **extra,
        )


class RaisingFileHandler(logging.handlers.RotatingFileHandler):
    """Rotates as the library does, but lets its caller know of a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by the library inside its exception handler."""
        raise  # noqa: PLE0704


class FileSink(Sink):
    """JSON lines in a rotating file, for bundles made with the daemon dead."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handler: RaisingFileHandler | None = None

    def write(self, entry: LogEntry) -> None:
        if self._handler is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._handler = RaisingFileHandler(self._path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT)
        self._handler.emit(logging.makeLogRecord({"msg": json.dumps(entry.fields)}))

    def close(self) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            with suppress(OSError):  # the disk is still full: what was buffered is counted as failed already
                handler.close()


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether systemd connected `stream` to the journal (device and inode as `JOURNAL_STREAM` says)."""
    try:
        device, inode = environ["JOURNAL_STREAM"].split(":")
        state = os.fstat(stream.fileno())
        return (state.st_dev, state.st_ino) == (int(device), int(inode))
    except (KeyError, ValueError, OSError):
        return False


def log_file(state_dir: Path) -> Path:
    """Where a daemon with this state directory keeps its log file."""
    return state_dir / "logs" / "photometryd.jsonl"


def log_files(state_dir: Path) -> list[Path]:
    """The log file and its rotated predecessors, newest first, whether they exist or not."""
    newest = log_file(state_dir)
    return [newest, *(newest.with_name(f"{newest.name}.{number}") for number in range(1, FILES_KEPT + 1))]


class LogService(logging.Handler):
    """Owns the root logger between `start` and `stop`."""

    def __init__(
        self,
        level: str,
        state_dir: Path | None,
        *,
        stream: TextIO | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        super().__init__()
        self._level = level.upper()
        stream = stream or sys.stderr
        self._sinks: list[Sink] = [JournalSink() if is_journal(stream, environ) else ConsoleSink(stream)]
        if state_dir is not None:
            self._sinks.append(FileSink(log_file(state_dir)))
        self._queue: queue.Queue[LogEntry | None] = queue.Queue(QUEUE_LINES)
        self._thread: threading.Thread | None = None
        self._before: tuple[int, list[logging.Handler]] | None = None
        self.ring = LogRing()
        self.dropped_lines = 0
        """Lines that did not fit the queue; they are in the ring."""
        self.failed_writes = 0
        """Writes that a sink refused: full disk, closed terminal."""

    def start(self) -> None:
        """Take over the root logger and warnings; no line logged from here on blocks its caller."""
        if self._thread is not None:
            return
        root = logging.getLogger()
        self._before = (root.level, list(root.handlers))
        root.handlers[:] = [self]
        root.setLevel(self._level)
        for name in QUIET:
            logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
        logging.captureWarnings(True)
        self._thread = threading.Thread(target=self._write_all, name="log-writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, then give the root logger back; idempotent. Blocking, at most `STOP_WAIT_S`."""
        thread, self._thread = self._thread, None
        if thread is None or self._before is None:
            return
        root = logging.getLogger()
        level, root.handlers[:] = self._before
        root.setLevel(level)
        for name in QUIET:
            logging.getLogger(name).setLevel(logging.NOTSET)
        logging.captureWarnings(False)
        self._queue.put(None, timeout=STOP_WAIT_S)
        thread.join(STOP_WAIT_S)

    def set_level(self, level: str) -> None:
        """The least important lines that are kept from now on."""
        logging.getLogger().setLevel(level.upper())

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`."""
        entry = self.ring.add(record)
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self.dropped_lines += 1

    def _write_all(self) -> None:
        while (entry := self._queue.get()) is not None:
            for sink in self._sinks:
                self._write(sink, entry)
        for sink in self._sinks:
            sink.close()

    def _write(self, sink: Sink, entry: LogEntry) -> None:
        try:
            sink.write(entry)
        except (OSError, ValueError):  # a full disk, a closed stream: the other sinks and the ring still have it
            self.failed_writes += 1
            sink.close()
