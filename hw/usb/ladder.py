"""What to do about a device that fails, step by step: from asking again to giving up.

Pure logic: what the steps do, the clock and the sleep are handed in.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hw.errors import InstrumentError


@dataclass(frozen=True)
class Rung:
    """One remedy, tried `tries` times before the next one; `act` raises `InstrumentError` when it cannot be done."""

    name: str
    act: Callable[[], None]
    tries: int = 1


class Ladder:
    """`failed` after each failure, `worked` after each success.

    Bounds: each rung's tries, and `within_s` from the first failure to giving up. After `settle_s` of success the next
    failure begins at the bottom: a remedy that holds for a moment only does not count as one.
    """

    def __init__(
        self,
        rungs: Sequence[Rung],
        *,
        settle_s: float = 1.0,
        within_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rungs, self._settle_s, self._within_s, self._clock = list(rungs), settle_s, within_s, clock
        self._rung = self._tried = 0
        self._began_s: float | None = None
        self._well_since_s: float | None = None
        self.counts: Counter[str] = Counter()
        """How often each rung was tried, and how often it was given up (``give up``)."""

    @property
    def troubled(self) -> bool:
        """Whether it is off the ground."""
        return self._began_s is not None

    def worked(self) -> None:
        """The device does what it should."""
        if self._began_s is None:
            return
        now_s = self._clock()
        if self._well_since_s is None:
            self._well_since_s = now_s
        if now_s - self._well_since_s >= self._settle_s:
            self._rung = self._tried = 0
            self._began_s = self._well_since_s = None

    def failed(self, error: InstrumentError) -> str:
        """Try the next remedy; its name. Raises `error` when there is none left, and what the last remedy raised."""
        now_s = self._clock()
        self._began_s = now_s if self._began_s is None else self._began_s
        self._well_since_s = None
        while self._rung < len(self._rungs) and now_s - self._began_s <= self._within_s:
            rung = self._rungs[self._rung]
            if self._tried >= rung.tries:
                self._rung, self._tried = self._rung + 1, 0
                continue
            self._tried += 1
            self.counts[rung.name] += 1
            try:
                rung.act()
            except InstrumentError as found:
                error, now_s = found, self._clock()
            else:
                return rung.name
        self.counts["give up"] += 1
        raise error
