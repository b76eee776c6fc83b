"""Talking to systemd: readiness, status text, watchdog pings. Silent where no supervisor listens."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from systemd.daemon import notify

log = logging.getLogger(__name__)

MAX_STATUS_CHARS = 500


class Notifier:
    """The service manager's ear. Every call is quick, may come from any thread and never raises."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._listening = bool(environ.get("NOTIFY_SOCKET"))
        self._failed = False
        self.last_status = ""
        """The newest status text, for those who have no supervisor."""

    def ready(self, text: str = "ready") -> None:
        """The service does its work from now on."""
        self._send("READY=1", self._status(text))

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

    def watchdog(self) -> None:
        """All vital parts made progress."""
        self._send("WATCHDOG=1")

    def _status(self, text: str) -> str:
        self.last_status = " ".join(text.split())[:MAX_STATUS_CHARS]
        return f"STATUS={self.last_status}"

    def _send(self, *lines: str) -> None:
        if not self._listening:
            return
        try:
            notify("\n".join(lines))
            self._failed = False
        except OSError as error:
            if not self._failed:  # once an outage
                log.warning("systemd does not take notifications: %s", error)
            self._failed = True
