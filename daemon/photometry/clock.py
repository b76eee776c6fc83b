"""The potentiostat's clock related to the run's clock (seconds since the run's first frame, on the camera's clock)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

USB_LATENCY_S = 0.003
"""Shortest delay between an instant on a device and its record on the host: read-out, transfer and wake-up. It cannot
be told from a clock offset, so it stays in the uncertainty."""
ENVELOPE_POINTS = 128
"""Pairs kept a device; when full, the later-arriving one of each neighbouring two is dropped."""

RATE_TOLERANCE = 0.01
"""Crystals differ by at most hundreds of ppm; a slope beyond this is an upset, not a clock."""


@dataclass(frozen=True)
class Line:
    """host_t_s = host_0 + rate * (device_t_s - device_0), with the standard deviation of `host_0`."""

    device_0: float
    host_0: float
    rate: float
    sigma_s: float

    def host(self, device_t_s: float) -> float:
        """Host time of a device's instant."""
        return self.host_0 + self.rate * (device_t_s - self.device_0)

    def device(self, host_t_s: float) -> float:
        """The device's clock at a host time."""
        return self.device_0 + (host_t_s - self.host_0) / self.rate


class ArrivalEnvelope:
    """One device's clock against the host's from arrival times, which are late by a varying delay but never early.

    The line that lies below all pairs and closest to them on average: the edge of their lower convex hull over the
    mean device time. Until pairs span `min_span_s` of host time the rate is `nominal_rate`, host seconds a device
    second. Memory is bounded by `ENVELOPE_POINTS`.
    """

    def __init__(self, nominal_rate: float = 1.0, min_span_s: float = 60.0) -> None:
        self._nominal_rate = nominal_rate
        self._min_span_s = min_span_s
        self._pairs: list[tuple[float, float]] = []
        self._spacing = 0.0
        self._slot_start = -math.inf

    def add(self, device_t_s: float, host_t_s: float) -> None:
        """Take one pair; pairs that are not finite or go back on the device's clock are left out."""
        pair = (device_t_s, host_t_s)
        if not (math.isfinite(device_t_s) and math.isfinite(host_t_s)):
            return
        if self._pairs and device_t_s < self._pairs[-1][0]:
            return
        if self._pairs and device_t_s - self._slot_start < self._spacing:
            self._pairs[-1] = min(self._pairs[-1], pair, key=self._lateness)
            return
        self._pairs.append(pair)
        self._slot_start = device_t_s
        if len(self._pairs) >= ENVELOPE_POINTS:
            self._thin()

    def _lateness(self, pair: tuple[float, float]) -> float:
        return pair[1] - self._nominal_rate * pair[0]

    def _thin(self) -> None:
        pairs = self._pairs
        self._spacing = 2.0 * (pairs[-1][0] - pairs[0][0]) / ENVELOPE_POINTS
        self._pairs = [min(pairs[k : k + 2], key=self._lateness) for k in range(0, len(pairs), 2)]

    def line(self) -> Line | None:
        """The envelope, None before the first pair."""
        points = self._pairs
        if not points:
            return None
        middle = sum(point[0] for point in points) / len(points)
        device_0, host_0, rate = self._edge(points, middle)
        late = sorted(host - host_0 - rate * (device - device_0) for device, host in points)
        return Line(device_0, host_0, rate, math.hypot(USB_LATENCY_S, max(late[len(late) // 4], 0.0)))

    def _edge(self, points: list[tuple[float, float]], middle: float) -> tuple[float, float, float]:
        """Point and slope of the supporting line; the nominal slope while the pairs span too little time."""
        hull = _lower_hull(points)
        if hull[-1][1] - hull[0][1] >= self._min_span_s:
            for left, right in itertools.pairwise(hull):
                if left[0] <= middle <= right[0] and right[0] > left[0]:
                    rate = (right[1] - left[1]) / (right[0] - left[0])
                    if abs(rate / self._nominal_rate - 1.0) <= RATE_TOLERANCE:
                        return (*left, rate)
        return (*min(points, key=self._lateness), self._nominal_rate)


class ClockRelation:
    """run time = potentiostat time + offset, with the offset's standard deviation.

    With equal, non-empty clock ids the offset is exact and fixed by `start`. Otherwise it follows from host arrival
    times of frames and samples and is NaN until there is a pair of each. `*_rate` are device seconds a host second
    (1 for real devices). Pure and bounded in memory.
    """

    def __init__(
        self, camera_clock_id: str, cell_clock_id: str, camera_rate: float = 1.0, cell_rate: float = 1.0
    ) -> None:
        self.same_clock = bool(camera_clock_id) and camera_clock_id == cell_clock_id
        self._first_frame_t_s = math.nan
        self._frames = ArrivalEnvelope(1.0 / camera_rate)
        self._samples = ArrivalEnvelope(1.0 / cell_rate)
        self._cell_now = math.nan
        self._fit: tuple[Line, Line] | None = None
        self._stale = True

    def start(self, first_frame_device_t_s: float) -> None:
        """The camera's own time of the run's first frame."""
        self._first_frame_t_s = first_frame_device_t_s

    def add_frame(self, t_s: float, host_t_s: float) -> None:
        """A frame's run time and its arrival on the host."""
        self._frames.add(t_s, host_t_s)
        self._stale = True

    def add_sample(self, cell_t_s: float, host_t_s: float) -> None:
        """A sample's time on the potentiostat's clock and its arrival on the host."""
        self._samples.add(cell_t_s, host_t_s)
        if math.isfinite(cell_t_s):
            self._cell_now = cell_t_s
        self._stale = True

    def run_time(self, cell_t_s: float) -> float:
        """Run time of an instant on the potentiostat's clock; NaN while unknown."""
        if self.same_clock:
            return cell_t_s - self._first_frame_t_s
        lines = self._lines()
        return lines[0].device(lines[1].host(cell_t_s)) if lines else math.nan

    @property
    def offset_s(self) -> float:
        """run time - potentiostat time now; NaN while unknown."""
        if self.same_clock:
            return -self._first_frame_t_s
        return self.run_time(self._cell_now) - self._cell_now

    @property
    def sigma_s(self) -> float:
        """Standard deviation of `offset_s`; 0 on one clock, infinite while the offset is unknown."""
        if self.same_clock:
            return 0.0
        lines = self._lines()
        return math.hypot(lines[0].sigma_s, lines[1].sigma_s) / lines[0].rate if lines else math.inf

    def _lines(self) -> tuple[Line, Line] | None:
        if self._stale:
            frames, samples = self._frames.line(), self._samples.line()
            self._fit = (frames, samples) if frames and samples else None
            self._stale = False
        return self._fit


def _lower_hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Lower convex hull by rising abscissa (Andrew's monotone chain)."""
    hull: list[tuple[float, float]] = []
    for point in sorted(points):
        while len(hull) >= 2 and _turn(hull[-2], hull[-1], point) <= 0:
            hull.pop()
        hull.append(point)
    return hull


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
