"""Talking to systemd: readiness, status text, watchdog pings. Silent where no supervisor listens."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import Counter, deque
from collections.abc import Mapping

log = logging.getLogger(__name__)

MAX_STATUS_CHARS = 500
MAX_WAITING = 32  # messages; a supervisor that reads has none waiting
PROMPT_S = 0.5  # what a word that matters may take: longer than any healthy supervisor needs
SEND_S = 0.25  # one try to send; between two of them the thread looks whether it is to end


class Notifier:
    """The service manager's ear. Any thread may call, nothing raises, and no call waits for systemd to read,
    but `ready`, `stopping` and `close`, for at most `PROMPT_S`.

    A thread sends, in order. Of progress texts only the newest waits. Bound: `MAX_WAITING` messages; policy at the
    bound: the oldest watchdog ping goes, as a newer one says the same, else the new message.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, ...]] = deque()
        self._thread: threading.Thread | None = None
        self._sending = False
        self._closed = False
        self._given_up = False
        self._failing = False
        self.counts: Counter[str] = Counter()
        """Messages `sent`, `replaced` by a newer text, `dropped` at the bound or the end, `failed` in sending."""
        self.last_status = ""
        """The newest status text, for those who have no supervisor."""

    def ready(self, text: str = "ready") -> None:
        """The service does its work from now on."""
        self._send("READY=1", self._status(text))
        self._flush(PROMPT_S)

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(self._status(text))

    def starting(self, text: str, expect_s: float) -> None:
        """Progress of a slow start: the start timeout is extended to `expect_s` from now."""
        self._send(self._status(text), f"EXTEND_TIMEOUT_USEC={round(expect_s * 1e6)}")

    def stopping(self, text: str = "stopping", expect_s: float | None = None) -> None:
        """The service is on its way down, which may take `expect_s`."""
        extend = [] if expect_s is None else [f"EXTEND_TIMEOUT_USEC={round(expect_s * 1e6)}"]
        self._send("STOPPING=1", self._status(text), *extend)
        self._flush(PROMPT_S)

    def watchdog(self) -> None:
        """All vital parts made progress."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Send what waits, as far as systemd takes it within `PROMPT_S`, and end the thread. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._flush(PROMPT_S)
        with self._changed:
            self._given_up = True
            while self._waiting:
                self._waiting.pop()
                self.counts["dropped"] += 1
        if self._thread is not None:
            self._thread.join(2 * SEND_S)

    def _status(self, text: str) -> str:
        self.last_status = " ".join(text.split())[:MAX_STATUS_CHARS]
        return f"STATUS={self.last_status}"

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with self._changed:
            if self._closed or not self._has_room(lines):
                self.counts["dropped"] += 1
                return
            self._waiting.append(lines)
            self._changed.notify_all()
            if self._thread is None:
                # a daemon thread: a supervisor that hangs cannot hold the exit
                self._thread = threading.Thread(target=self._work, name="notify", daemon=True)
                self._thread.start()

    def _has_room(self, lines: tuple[str, ...]) -> bool:
        """Make room for `lines`: what they replace goes, and at the bound the oldest ping."""
        if older := next((waiting for waiting in self._waiting if _replaces(lines, waiting)), None):
            self._waiting.remove(older)
            self.counts["replaced"] += 1
        if len(self._waiting) >= MAX_WAITING and ("WATCHDOG=1",) in self._waiting:
            self._waiting.remove(("WATCHDOG=1",))
            self.counts["dropped"] += 1
        return len(self._waiting) < MAX_WAITING

    def _flush(self, timeout_s: float) -> None:
        """Wait until nothing waits to be sent."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._sending, timeout_s)

    def _work(self) -> None:
        while (lines := self._next()) is not None:
            outcome = ""
            while not outcome and not self._given_up:
                outcome = self._tried("\n".join(lines))
            with self._changed:
                self.counts[outcome or "dropped"] += 1
                self._sending = False
                self._changed.notify_all()

    def _next(self) -> tuple[str, ...] | None:
        """The oldest message once there is one; None when there will be none any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            self._sending = True
            return self._waiting.popleft()

    def _tried(self, text: str) -> str:
        """What became of a try: `sent`, `failed`, or nothing yet because systemd does not read."""
        try:
            _deliver(self._address, text)
        except OSError as error:
            self._tell_failure(error)
            return "" if isinstance(error, TimeoutError) else "failed"
        self._failing = False
        return "sent"

    def _tell_failure(self, error: OSError) -> None:
        if not self._failing:  # once an outage
            log.warning("systemd does not take notifications: %s", error)
        self._failing = True


def _deliver(address: str, text: str) -> None:
    """One datagram. Raises `OSError`, of which `TimeoutError` when the reader's buffer stays full for `SEND_S`.

    The systemd module's `notify` is no use here: it holds the interpreter's lock while it waits for the reader.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(SEND_S)
        sender.connect(f"\0{address[1:]}" if address.startswith("@") else address)  # "@": Linux's abstract names
        sender.send(text.encode("utf-8", "replace"))


def _replaces(newer: tuple[str, ...], older: tuple[str, ...]) -> bool:
    """Whether `newer` tells all that `older` does: both are progress texts of the same kind."""
    names = [line.partition("=")[0] for line in newer]
    return names[0] == "STATUS" and names == [line.partition("=")[0] for line in older]
