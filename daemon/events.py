"""Events: the closed set of kinds, and the feed that followers resume by sequence number."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

KEPT_EVENTS = 2000  # ten seconds of the most that particles may tell: whoever is behind that is dropped as too slow


class EventKind(StrEnum):
    """Every kind of event there is. Particle kinds first, instrument kinds (particle_id null) after."""

    PHASE_ONSET = "phase_onset"
    PHASE_COMPLETE = "phase_complete"
    STEP = "step"
    CRACK = "crack"
    CRACK_CLOSED = "crack_closed"
    FRAGMENT = "fragment"
    DISCONNECTED = "disconnected"
    RECONNECTED = "reconnected"
    OUTLIER = "outlier"
    WARNING = "warning"
    LOST = "lost"
    SATURATED = "saturated"
    FOCUS_JUMP = "focus_jump"
    ILLUMINATION_STEP = "illumination_step"
    BUBBLE = "bubble"
    DRIFT_JUMP = "drift_jump"
    FRAMES_DROPPED = "frames_dropped"
    CAMERA_LOST = "camera_lost"
    CAMERA_BACK = "camera_back"
    CELL_LIMIT = "cell_limit"
    CELL_LOST = "cell_lost"
    CLOCK_STEP = "clock_step"
    DISK_LOW = "disk_low"
    RUN_DAMAGED = "run_damaged"
    ENGINE_RESTARTED = "engine_restarted"


@dataclass(frozen=True)
class Event:
    """One event. `magnitude` is in the unit of its kind (see docs/events.md); NaN where there is none.

    `particle_id` is None for the instrument's own. `seq` is instrument-wide, rises with every event and survives
    restarts; 0 until the store has assigned it. `event_id` counts within the run.
    A catalogue that was lost and made again leaves numbers out.
    """

    kind: EventKind
    t_s: float
    detected_t_s: float
    particle_id: int | None = None
    magnitude: float = float("nan")
    magnitude_sigma: float = float("nan")
    score: float = float("nan")
    detail: str = ""
    """A sentence for a person, optional."""
    run_id: str = ""
    event_id: int = 0
    seq: int = 0
    detected_host_t_s: float = float("nan")
    """`time.monotonic()` of the frame that settled it; for latency accounting, not exported."""

    def as_dict(self) -> dict[str, Any]:
        """Plain fields for JSON and rows (NaN not yet nulled)."""
        return {name: getattr(self, name) for name in SHOWN} | {"kind": self.kind.value}


SHOWN = tuple(each.name for each in fields(Event) if each.name != "detected_host_t_s")


class EventFeed:
    """The last events in memory, older ones from `load_older`; any number of followers, none of which can slow another.

    Single event loop only. `load_older(after, limit)` is blocking and called in a thread.
    """

    def __init__(self, load_older: Callable[[int, int], list[Event]], keep: int = KEPT_EVENTS) -> None:
        self._recent: deque[Event] = deque(maxlen=keep)
        self._load_older = load_older
        self._arrived = asyncio.Event()

    def preload(self, events: Iterable[Event]) -> None:
        """Begin with what an earlier life of the daemon published."""
        self._recent.extend(events)

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest event, 0 when there is none."""
        return self._recent[-1].seq if self._recent else 0

    def publish(self, events: Iterable[Event]) -> None:
        """Append committed events (with `seq` set, rising) and wake the followers."""
        self._recent.extend(events)
        self._arrived.set()
        self._arrived = asyncio.Event()

    async def after(self, seq: int, limit: int = 1000) -> list[Event]:
        """Up to `limit` events with a higher sequence number, oldest first, at once."""
        if self._recent and self._recent[0].seq <= seq + 1:
            return [event for event in self._recent if event.seq > seq][:limit]
        return await asyncio.to_thread(self._load_older, seq, limit)

    async def follow(self, seq: int, idle_s: float = 15.0) -> AsyncIterator[list[Event]]:
        """Batches of events after `seq` for ever; an empty batch after `idle_s` without any, for keep-alives."""
        while True:
            arrived = self._arrived
            batch = await self.after(seq)
            if batch:
                seq = batch[-1].seq
                yield batch
                continue
            try:
                await asyncio.wait_for(arrived.wait(), idle_s)
            except TimeoutError:
                yield []
