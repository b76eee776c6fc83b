"""When the disk will be full, from how its free space fell over the last minutes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from daemon.errors import StoreError, StoreReason

WINDOW_S = 600.0
LEAST_S = 120.0  # a shorter look sees the log's own rise and fall instead of the results
NOISE_MB = 8.0  # two logs of 4 MB that are emptied when they are large
HYSTERESIS = 1.25


class FillForecast:
    """Free space sampled on the monotonic clock; begins anew when the load changes or room was made."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()

    def restart(self) -> None:
        """Forget: what comes is another load."""
        self._samples.clear()

    def add(self, now_s: float, free_mb: float) -> None:
        """A sample."""
        if self._samples and free_mb - self._samples[-1][1] > 2 * NOISE_MB:
            self.restart()
        self._samples.append((now_s, free_mb))
        while now_s - self._samples[0][0] > WINDOW_S:
            self._samples.popleft()

    @property
    def rate_mb_per_h(self) -> float | None:
        """How fast free space falls, by least squares; None while that cannot be told from no fall."""
        if not self._samples or self._samples[-1][0] - self._samples[0][0] < LEAST_S:
            return None
        t_s, free_mb = np.array(self._samples).T
        t_s = t_s - t_s.mean()
        fall_mb_per_s = -float(t_s @ free_mb) / float(t_s @ t_s)
        return 3600 * fall_mb_per_s if fall_mb_per_s * np.ptp(t_s) >= NOISE_MB else None

    def full_in_h(self, least_mb: float) -> float | None:
        """Hours until only `least_mb` are free; None when that is not known."""
        rate = self.rate_mb_per_h
        if rate is None:
            return None
        return max(0.0, self._samples[-1][1] - least_mb) / rate


@dataclass
class DiskWatch:
    """Free space, its forecast and one warning each time either falls below its bound."""

    least_mb: int
    """Where a run ends."""
    low_mb: float
    low_h: float
    free_mb: int | None = None

    def __post_init__(self) -> None:
        self._forecast = FillForecast()
        self._load = ""
        self._is_low = False

    @property
    def full_in_h(self) -> float | None:
        """Hours until a run would be ended for want of room; None when not known."""
        return self._forecast.full_in_h(self.least_mb)

    @property
    def problem(self) -> StoreError | None:
        """What keeps a run from beginning, or going on: too little is free."""
        if self.free_mb is None or self.free_mb >= self.least_mb:
            return None
        detail = f"only {self.free_mb} MB are free below the state directory, {self.least_mb} MB are wanted"
        return StoreError(StoreReason.DISK_FULL, detail)

    def add(self, now_s: float, free_mb: int, load: str) -> str:
        """A sample under `load` (the run in progress, or nothing); a sentence when it became low just now, else empty.

        It is told anew with each load, and after it was well again.
        """
        if load != self._load:
            self._load, self._is_low = load, False
            self._forecast.restart()
        self._forecast.add(now_s, free_mb)
        self.free_mb = free_mb
        was_low, self._is_low = self._is_low, self._low(HYSTERESIS if self._is_low else 1.0)
        return self._sentence() if self._is_low and not was_low else ""

    def as_dict(self) -> dict[str, float | None]:
        """For the status; None where nothing is known."""
        rate, hours = self._forecast.rate_mb_per_h, self.full_in_h
        return {
            "free_mb": self.free_mb,
            "falls_mb_per_h": None if rate is None else round(rate, 1),
            "full_in_h": None if hours is None else round(hours, 2),
        }

    def _low(self, factor: float) -> bool:
        hours = self.full_in_h
        soon = hours is not None and hours < factor * self.low_h
        return soon or (self.free_mb is not None and self.free_mb < factor * self.low_mb)

    def _sentence(self) -> str:
        hours = self.full_in_h
        when = "" if hours is None else f", the rest lasts {hours:.1f} h at the rate of the last minutes"
        return f"{self.free_mb} MB are free{when}"
