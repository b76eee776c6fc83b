"""Fronts in traces: places known at some instants of a half, read when their time comes, between them linear."""

from __future__ import annotations

import numpy as np

from daemon.store.reader import RunReader


class FrontTraces:
    """Fronts of the particles `ids` (K,), for chunks in order of time: only series of the present chunk are held."""

    def __init__(self, reader: RunReader, ids: np.ndarray) -> None:
        self._reader = reader
        column = {int(identity): k for k, identity in enumerate(ids)}
        self._spans = [span for span in reader.front_spans() if span["particle_id"] in column]
        self._columns = np.array([column[span["particle_id"]] for span in self._spans], np.int64)
        self._from_s = np.array([span["t0_s"] for span in self._spans])
        self._to_s = np.array([span["t1_s"] for span in self._spans])
        self._held: dict[int, dict[str, np.ndarray]] = {}

    def fill(self, t_s: np.ndarray, derived: dict[str, np.ndarray]) -> None:
        """Write `front_px` and `front_sigma_px` of the frames at `t_s` (N,) into (N, K) arrays of these names, and
        `transformed_fraction` where no calibration tells it.
        """
        if not len(t_s) or not len(self._spans):
            return
        here = np.flatnonzero((self._from_s <= t_s[-1]) & (self._to_s >= t_s[0]))
        self._hold([self._spans[k]["rowid"] for k in here])
        for k in here.tolist():
            series = self._held.get(self._spans[k]["rowid"])
            if series is None:
                continue
            known = (t_s >= self._from_s[k]) & (t_s <= self._to_s[k])
            column, when = self._columns[k], t_s[known]
            for name in ("front_px", "front_sigma_px"):
                derived[name][known, column] = np.interp(when, series["t_s"], series[name])
            charged = charged_fraction(self._spans[k]["half"], series["fraction"])
            own = derived["transformed_fraction"][known, column]
            told = np.interp(when, series["t_s"], charged)
            derived["transformed_fraction"][known, column] = np.where(np.isnan(own), told, own)

    def _hold(self, rowids: list[int]) -> None:
        """Read what is new, let go of what is past."""
        self._held = {rowid: series for rowid, series in self._held.items() if rowid in rowids}
        self._held |= self._reader.front_series([rowid for rowid in rowids if rowid not in self._held])


def charged_fraction(half: str, transformed: np.ndarray) -> np.ndarray:
    """Share of the area in the charged phase from the share that the half's front has passed; NaN outside halves."""
    return {"charge": transformed, "discharge": 1.0 - transformed}.get(half, np.full(len(transformed), np.nan))
