"""What the API needs from the rest of the daemon; bootstrap fills it in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from daemon.api.reads import Reads
from daemon.config import Settings
from daemon.events import EventFeed
from daemon.parts import CellControl, EngineControl, PartStatus, Runs, RunSummary
from daemon.store.backup import BackupReport

LogEntry = dict[str, Any]
"""`utc` (ISO 8601), `level`, `logger`, `message`, and whatever else the journal holds."""


class Logs(Protocol):
    """The service's log, newest entries last."""

    def __call__(
        self, *, since_utc: datetime | None, level: str, follow: bool
    ) -> list[LogEntry] | AsyncIterator[list[LogEntry]]:
        """Entries at `level` or above since `since_utc`.

        With `follow` false a bounded list; blocking, called in a thread. With `follow` true an asynchronous iterator
        of batches for ever, an empty batch now and then when nothing comes; called on the event loop.
        """


class Keeping(Protocol):
    """Taking runs elsewhere and deleting them. Blocking; called in threads."""

    def delete(self, run_id: str, actor: str, *, unexported: bool = False) -> RunSummary:
        """Delete a run's file; its row stays. Raises `RunError`, `StoreError`."""

    def mark_exported(self, run_ids: Sequence[str], where: str) -> None:
        """Runs that are elsewhere too now, as a whole."""

    def back_up(self, target: Path, progress: Callable[[float], None]) -> BackupReport:
        """Bring a backup up to date; what `progress` raises ends it. Raises `StoreError`."""


@dataclass
class ApiParts:
    """Everything the handlers call. Blocking callables are called in threads of the API's own."""

    settings: Settings
    settings_origins: dict[str, str]
    """``section.name`` to one of `daemon.layers.Origin`; absent means default."""
    version: dict[str, Any]
    runs: Runs
    engine: EngineControl
    cell: CellControl
    feed: EventFeed
    status: Callable[[], dict[str, Any]]
    """Cheap, on the event loop: `parts` (list of `PartStatus`) and any further fields of `models.StatusReply`."""
    ready: Callable[[], list[PartStatus]]
    """Cheap: the parts that keep the instrument from measuring; empty when ready."""
    metrics_text: Callable[[], bytes]
    """Blocking: the Prometheus text format."""
    bundle: Callable[[Path], None]
    """Blocking: write the diagnostics bundle (tar.gz) to this path."""
    logs: Logs
    audit: Callable[[str, str, str], None]
    """Blocking: record (actor, action, detail) of a request that changed something."""
    selftest: Callable[[], Awaitable[dict[str, Any]]]
    keeping: Keeping
    reads: Reads
    """Where runs' files are read for answers; ended with the API."""
    count_request: Callable[[str, int, float], None] = lambda method, status, duration_s: None
    """Cheap: told of every finished request that is no endless stream."""
    count_unauthorised: Callable[[str], None] = lambda kind: None
    """Cheap: told of every request without a token that is let in, and what was wrong with it."""
    note_fault: Callable[[str, str, str], None] = lambda code, detail, remedy: None
    """Cheap: told of what went wrong that no answer tells of."""
