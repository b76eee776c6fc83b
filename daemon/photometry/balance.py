"""Whether the particles' charge adds up to the cell's: coulometry is of all of the electrode, not of what is seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daemon.photometry.curves import HalfCurves
from daemon.photometry.derive import SocTable
from daemon.photometry.ensemble import weighted
from daemon.photometry.soc import Window

LEAST_SPAN = 0.2
"""A half that passes less of the window tells no slope."""


@dataclass(frozen=True)
class Balance:
    """The weighted mean SoC of the field of view over the charge fraction of the cell, in one half.

    At rest and in slow halves the two are one by calibration; in a fast half they are not, and this is a test.
    """

    scale: float = float("nan")
    offset: float = float("nan")
    """Mean SoC where the cell's fraction is 0, by the line of slope `scale`."""
    rms: float = float("nan")
    """Root mean square of what the mean SoC lies off the cell's fraction."""
    sampling: float = float("nan")
    """Standard deviation of the mean of so many unlike particles: as far off it may lie by chance."""

    def told(self) -> dict[str, float]:
        """By name, for the status and the run's metadata."""
        names = ("scale", "offset", "rms", "sampling")
        return {f"charge_balance_{name}": getattr(self, name) for name in names}


def balance(curves: HalfCurves, table: SocTable, window: Window | None, weights: np.ndarray) -> Balance:
    """Compare in a half's driven part; NaN when too little charge passed or nothing is calibrated."""
    if window is None or not table.usable.any():
        return Balance()
    driven = curves.driven & np.isfinite(curves.charge_mah)
    fraction = window.fraction(curves.charge_mah[driven])
    soc = np.where(curves.known & ~table.open_interior, table.soc(curves.smooth[driven]), np.nan)
    each = [weighted(row, weights) for row in soc]
    mean, spread = np.array(each).reshape(-1, 2).T
    good = np.isfinite(mean) & (fraction >= 0.0) & (fraction <= 1.0)
    if good.sum() < 4 or np.ptp(fraction[good]) < LEAST_SPAN:
        return Balance()
    scale, offset = np.polyfit(fraction[good], mean[good], 1)
    share = np.where(np.isfinite(soc).any(axis=0), weights, 0.0)
    effective = share.sum() ** 2 / max(float((share**2).sum()), 1e-12)
    away = float(np.sqrt(np.mean((mean[good] - fraction[good]) ** 2)))
    sampling = float(np.sqrt(np.nanmean(spread[good] ** 2) / effective)) if np.isfinite(spread[good]).any() else np.nan
    return Balance(float(scale), float(offset), away, sampling)
