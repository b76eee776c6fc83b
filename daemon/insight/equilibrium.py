"""The cell's equilibrium voltage over the ensemble's SoC, from a run's own slow halves and rests, or from a file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.errors import InsightError, InsightReason
from kernels.kinetics import TABLE_HI, TABLE_LO

TABLE_POINTS = 481
BINS = 50
REST_SHARE = 0.02
"""Currents below this share of the largest are rest."""
MIN_REST_S = 300.0
ONE_WAY_SIGMA_V = 0.03
"""Charge alone, or discharge alone: how far half of a usual polarisation is."""
BASE_SIGMA_V = 0.0005
LINEAR_V = 0.03
"""Charge and discharge less apart than this lie evenly about U: Butler-Volmer is linear there."""
FILE_SIGMA_V = 0.0005
MIN_SLOPE_V = 0.02
"""Of U over SoC: a solid solution's voltage rises."""


@dataclass(frozen=True)
class Equilibrium:
    """U over SoC and how sure it is."""

    table_v: np.ndarray
    """(481,) over `TABLE_LO` to `TABLE_HI`, straight on where nothing was seen."""
    sigma_v: np.ndarray
    """(481,) one standard deviation."""
    origin: str
    """How it is known, in words."""

    def at(self, soc: np.ndarray) -> np.ndarray:
        """V at `soc`, any shape."""
        return np.interp(soc, grid(), self.table_v)

    def sigma_at(self, soc: np.ndarray) -> np.ndarray:
        """Standard deviation in V at `soc`."""
        return np.interp(soc, grid(), self.sigma_v)


def grid() -> np.ndarray:
    """(481,) SoC of the table's points."""
    return np.linspace(TABLE_LO, TABLE_HI, TABLE_POINTS)


def bin_edges() -> np.ndarray:
    """(BINS + 1,) over 0..1, denser towards the ends, where voltages bend."""
    return np.asarray(np.sin(np.linspace(0.0, np.pi / 2, BINS + 1)) ** 2)


def from_file(path: Path) -> Equilibrium:
    """A CSV of two columns with a header: SoC (0 to 1) and cell voltage in V at rest. Raises `InsightError`."""
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            rows = [row for row in csv.reader(lines) if row][1:]
        values = np.array([[float(row[0]), float(row[1])] for row in rows])
    except (OSError, ValueError, IndexError) as error:
        raise InsightError(InsightReason.BAD_OCV, f"{path}: {error}") from error
    if len(values) < 2 or not np.isfinite(values).all() or (np.diff(values[:, 0]) <= 0).any():
        raise InsightError(InsightReason.BAD_OCV, f"{path}: two or more rows with rising SoC are needed")
    knots = (values[:, 0] - values[0, 0], values[:, 1])
    return Equilibrium(_table(knots[0] + values[0, 0], knots[1]), np.full(TABLE_POINTS, FILE_SIGMA_V), f"{path.name}")


def from_run(t_s: np.ndarray, voltage_v: np.ndarray, current_ma: np.ndarray, soc: np.ndarray) -> Equilibrium:
    """From the cell's record: (n,) times, cell voltages, currents (positive charging) and the ensemble's SoC.

    In each of 50 bins of SoC the slowest charge and the slowest discharge are interpolated to no current; the ends of
    rests join in. Raises `InsightError` when neither covers half of the SoC.
    """
    known = np.isfinite(voltage_v) & np.isfinite(current_ma) & np.isfinite(soc)
    t_s, voltage_v, current_ma, soc = (values[known] for values in (t_s, voltage_v, current_ma, soc))
    largest = np.max(np.abs(current_ma), initial=0.0)
    edges = bin_edges()
    centre = 0.5 * (edges[1:] + edges[:-1])
    up, up_ma = _slowest(soc, voltage_v, current_ma, REST_SHARE * largest)
    down, down_ma = _slowest(soc, voltage_v, -current_ma, REST_SHARE * largest)
    with np.errstate(invalid="ignore"):
        both = (up * down_ma + down * up_ma) / (up_ma + down_ma)
    volts = np.where(np.isfinite(both), both, np.where(np.isfinite(up), up, down))
    apart = np.abs(up - down)
    own = BASE_SIGMA_V + apart / 4 * apart / (apart + LINEAR_V)
    sigma = np.where(np.isfinite(both), own, ONE_WAY_SIGMA_V)
    if np.isfinite(volts).sum() < BINS / 2:
        raise InsightError(InsightReason.NO_OCV, "the cell's record covers less than half of the SoC")
    seen = np.isfinite(volts)
    volts, sigma = (np.interp(centre, centre[seen], values[seen]) for values in (volts, np.where(seen, sigma, np.nan)))
    rests = _rests(t_s, voltage_v, current_ma, REST_SHARE * largest)
    _join_rests(volts, sigma, centre, soc, voltage_v, rests)
    inside = (centre >= centre[seen][0]) & (centre <= centre[seen][-1])
    table = _table(centre[inside], np.maximum.accumulate(volts[inside]))
    return Equilibrium(table, np.interp(grid(), centre, sigma), _origin(both, rests))


def _origin(both: np.ndarray, rests: list[tuple[int, int]]) -> str:
    ways = "slowest charge and discharge" if np.isfinite(both).any() else "one direction alone"
    return f"the run's {ways}" + (f" and {len(rests)} rests" if rests else "")


def _slowest(soc: np.ndarray, volts: np.ndarray, current: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """(BINS,) voltage and current of the slowest samples that flow forwards, at the bins' centres; NaN where none."""
    edges = bin_edges()
    bins = np.clip(np.searchsorted(edges, soc, side="right") - 1, 0, BINS - 1)
    result = np.full((2, BINS), np.nan)
    slope = np.polyfit(soc, volts, 1)[0] if len(soc) > 2 and np.ptp(soc) > 0 else 0.0
    for b in range(BINS):
        mine = (bins == b) & (current > least)
        if mine.any():
            slow = mine & (current <= 1.1 * np.min(current[mine]))
            offset = soc[slow] - 0.5 * (edges[b] + edges[b + 1])
            result[:, b] = np.mean(volts[slow] - slope * offset), np.mean(current[slow])
    return result[0], result[1]


def _rests(t_s: np.ndarray, volts: np.ndarray, current: np.ndarray, least: float) -> list[tuple[int, int]]:
    """First and last sample of every rest of `MIN_REST_S`."""
    still = np.concatenate([[False], np.abs(current) <= least, [False]])
    starts, stops = np.flatnonzero(~still[:-1] & still[1:]), np.flatnonzero(still[:-1] & ~still[1:]) - 1
    return [(int(a), int(b)) for a, b in zip(starts, stops, strict=True) if t_s[b] - t_s[a] >= MIN_REST_S]


def _join_rests(
    volts: np.ndarray,
    sigma: np.ndarray,
    centre: np.ndarray,
    soc: np.ndarray,
    voltage_v: np.ndarray,
    rests: list[tuple[int, int]],
) -> None:
    """Weigh each rest's last voltage into its bin, as sure as it is quiet over its last fifth. In place."""
    for first, last in rests:
        bin_ = int(np.argmin(np.abs(centre - soc[last])))
        miss = voltage_v[last] - np.interp(soc[last], centre, volts)
        own = BASE_SIGMA_V + abs(voltage_v[last] - voltage_v[last - (last - first) // 5])
        share = sigma[bin_] ** 2 / (sigma[bin_] ** 2 + own**2)
        volts[bin_] += share * miss
        sigma[bin_] *= np.sqrt(1.0 - share)


def _table(soc: np.ndarray, volts: np.ndarray) -> np.ndarray:
    """On the grid, straight on at either end with the last fifth-bin's slope, at least `MIN_SLOPE_V`."""
    at = grid()
    inside = np.interp(at, soc, volts)
    lead = max(1, len(soc) // 25)
    first = max((volts[lead] - volts[0]) / (soc[lead] - soc[0]), MIN_SLOPE_V)
    last = max((volts[-1] - volts[-1 - lead]) / (soc[-1] - soc[-1 - lead]), MIN_SLOPE_V)
    result = inside + np.minimum(at - soc[0], 0.0) * first + np.maximum(at - soc[-1], 0.0) * last
    return np.asarray(result + MIN_SLOPE_V * 1e-3 * at)
