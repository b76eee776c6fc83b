"""A run on the time grid of its models: as many points to a fast half as to a slow one, none across a switch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

REST_SHARE = 0.02
"""Currents below this share of the largest are rest."""
DRIVEN_POINTS, REST_POINTS = 120, 40
MAX_POINTS = 3000
MIN_SEGMENT_S = 5.0
"""Shorter pieces of one sign of current belong to the piece before: a device ranging, a sample missed."""
EVERY = 16
"""Steps of the model a point, half of them to either side of the border between two points. Backward Euler falls behind
where exchange quickens with charge, which a fit takes for slower exchange: with two steps NMC's came out at half."""
ROUGH_EVERY = 2
"""... while the common parameters are far from settled."""
LEVELS = 3.0
"""A change of current by this factor, as when a voltage is held, is a piece of its own: the voltage bends there."""


@dataclass(frozen=True)
class Cell:
    """The cell's record: (n,) arrays, rising times, no NaN. Currents are positive when they charge."""

    t_s: np.ndarray
    voltage_v: np.ndarray
    current_ma: np.ndarray

    @classmethod
    def cleaned(cls, t_s: np.ndarray, voltage_v: np.ndarray, current_ma: np.ndarray) -> Cell:
        """Without samples that are not whole or do not come later than the one before."""
        good = np.isfinite(t_s) & np.isfinite(voltage_v) & np.isfinite(current_ma)
        t_s, voltage_v, current_ma = t_s[good], voltage_v[good], current_ma[good]
        later = np.concatenate([[True], t_s[1:] > np.maximum.accumulate(t_s)[:-1]]) if len(t_s) else np.zeros(0, bool)
        return cls(t_s[later], voltage_v[later], current_ma[later])

    @property
    def largest_ma(self) -> float:
        """Largest current of either sign."""
        return float(np.max(np.abs(self.current_ma), initial=0.0))

    def segments(self) -> list[tuple[float, float, int]]:
        """(from, to, sign of the current) of pieces in which the current keeps its sign and about its size."""
        if len(self.t_s) < 2:
            return []
        size = np.abs(self.current_ma) / max(self.largest_ma, 1e-30)
        sign = np.where(size <= REST_SHARE, 0, np.sign(self.current_ma)).astype(int)
        level = np.round(np.log(np.maximum(size, REST_SHARE)) / np.log(LEVELS)).astype(int)
        code = np.where(sign == 0, 0, sign * (level + 100))
        pieces: list[tuple[float, float, int]] = []
        starts = np.concatenate([[0], np.flatnonzero(np.diff(code)) + 1])
        ends = self.t_s[np.append(starts[1:] - 1, len(self.t_s) - 1)]
        for first, end in zip(starts.tolist(), ends.tolist(), strict=True):
            begin = pieces[-1][1] if pieces else float(self.t_s[0])
            if end - begin < MIN_SEGMENT_S and pieces:
                pieces[-1] = (pieces[-1][0], end, pieces[-1][2])
            elif end > begin:
                pieces.append((begin, end, int(sign[first])))
        return pieces

    def means(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(S,) mean voltage and current between (S + 1,) `edges`, by straight lines through the samples."""
        width = np.diff(edges)
        volts, current = (np.diff(_integral(self.t_s, v, edges)) / width for v in (self.voltage_v, self.current_ma))
        return volts, current

    def at(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Voltage and current at `t_s`, by straight lines through the samples."""
        return np.interp(t_s, self.t_s, self.voltage_v), np.interp(t_s, self.t_s, self.current_ma)


def _integral(t_s: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Integral from the first time to `at` of a line through the samples; a jump is where its second sample is."""
    total = np.concatenate([[0.0], np.cumsum(np.diff(t_s) * 0.5 * (values[1:] + values[:-1]))])
    i = np.clip(np.searchsorted(t_s, at, side="right") - 1, 0, len(t_s) - 2)
    part = at - t_s[i]
    slope = (values[i + 1] - values[i]) / (t_s[i + 1] - t_s[i])
    return total[i] + values[i] * part + 0.5 * slope * part**2


def shares(pieces: list[tuple[float, float, int]]) -> list[int]:
    """Points to each of the cell's pieces, `MAX_POINTS` in all at most."""
    wanted = [DRIVEN_POINTS if sign else REST_POINTS for _, _, sign in pieces]
    factor = min(1.0, MAX_POINTS / max(sum(wanted), 1))
    return [max(4, int(count * factor)) for count in wanted]


def steps(t_s: np.ndarray, borders: np.ndarray, every: int = EVERY) -> np.ndarray:
    """(S + 1,) edges of the model's steps: each of (M,) `t_s` is one, and so is the border to the next, (M - 1,).

    S is (M - 1) * `every`, which is even.
    """
    half = every // 2
    share = np.arange(half) / half
    before = t_s[:-1, None] + (borders - t_s[:-1])[:, None] * share
    after = borders[:, None] + (t_s[1:] - borders)[:, None] * share
    return np.append(np.hstack([before, after]).ravel(), t_s[-1])


def grouped(
    pieces: list[tuple[float, float, int]], read: Callable[[float, float, int], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(M,) times and (M - 1,) borders between them, from `read(from, to, points)`, the times of a piece's means."""
    times: list[np.ndarray] = []
    borders: list[Any] = []
    for (begin, end, _), count in zip(pieces, shares(pieces), strict=True):
        mine = read(begin, end, count)
        if not len(mine):
            continue
        borders += [[begin] if times else [], 0.5 * (mine[1:] + mine[:-1])]
        times.append(mine)
    if not times:
        return np.zeros(0), np.zeros(0)
    return np.concatenate(times), np.concatenate(borders)
