"""Frame counts over all lives of the engine: what a dead engine had in hand is named, not forgotten."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Totals:
    """captured = idle + measured + dropped + what the engine holds now."""

    captured: int = 0
    idle: int = 0
    """Captured while no run was in progress."""
    measured: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """By ``stage.reason``."""


class EngineBook:
    """Adds up the counters of engines that died and the one that lives."""

    def __init__(self) -> None:
        self._past = Totals()
        self._received = 0
        self.counters: dict[str, Any] = {}
        """The living engine's own, from its latest heartbeat; empty before the first."""

    def heartbeat(self, counters: dict[str, Any]) -> None:
        """Take the living engine's counters."""
        self.counters = counters

    def received(self, frames: int) -> None:
        """Measures of `frames` frames arrived."""
        self._received += frames

    def engine_ended(self) -> None:
        """Close the book of this life.

        Measured is what arrived; what it had captured beyond that by its last heartbeat is lost as ``engine.died``.
        """
        idle = self.counters.get("idle", 0)
        dropped = Counter(self.counters.get("dropped", {}))
        known = idle + self._received + dropped.total()
        captured = max(self.counters.get("captured", 0), known)
        if captured > known:
            dropped["engine.died"] += captured - known
        past = self._past
        self._past = Totals(
            past.captured + captured, past.idle + idle, past.measured + self._received, past.dropped + dropped
        )
        self.counters, self._received = {}, 0

    def totals(self) -> Totals:
        """Counts since the daemon began."""
        past, now = self._past, self.counters
        return Totals(
            past.captured + now.get("captured", 0),
            past.idle + now.get("idle", 0),
            past.measured + now.get("measured", 0),
            past.dropped + Counter(now.get("dropped", {})),
        )
