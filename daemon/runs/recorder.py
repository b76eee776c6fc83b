"""Science and store of one run: measures and cell rows in, rows on disk out. The same live and offline."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from daemon.cell.samples import CellRow
from daemon.engine.measures import MaskSet, MeasureBatch
from daemon.events import Event
from daemon.photometry.science import Science, ScienceSettings
from daemon.photometry.update import ScienceUpdate
from daemon.store.writer import StoreWriter
from daemon.tables import PARTICLES

TEXT_DEFAULTS = {"front_mode": "none", "calibration": "none", "state": "active"}


class Recorder:
    """One run's science and its way to the store. Not thread-safe: one thread calls it.

    `chunk_wait_s`: how long frames may wait for a full store before they are dropped; 0 live.
    `on_events(events)` is called with committed events, sequence numbers set, from the writer's thread.
    """

    def __init__(
        self,
        run_id: str,
        masks: MaskSet,
        settings: ScienceSettings,
        writer: StoreWriter,
        on_events: Callable[[list[Event]], None],
        chunk_wait_s: float = 0.0,
    ) -> None:
        self.run_id = run_id
        self.masks = masks
        self.science = Science(masks, settings)
        self._writer = writer
        self._on_events = on_events
        self._chunk_wait_s = chunk_wait_s
        self.frames = 0
        self.last_frame = -1
        self.last_t_s = self.last_host_t_s = 0.0
        self.baseline: tuple[np.ndarray, np.ndarray] | None = None

    def open(self, reference_dn: np.ndarray) -> None:
        """Store what the run starts from: particles and masks."""
        self._writer.put_particles(particle_rows(self.masks))
        self._writer.put_masks(self.masks.version, self.masks.labels, reference_dn)

    def add(self, batch: MeasureBatch) -> None:
        """Digest one batch of frames."""
        if batch.baseline_flux_e is not None and batch.baseline_layer_flux_e is not None:
            self.baseline = (batch.baseline_flux_e, batch.baseline_layer_flux_e)
        self.frames += len(batch)
        self.last_frame = int(batch.frame[-1])
        self.last_t_s, self.last_host_t_s = float(batch.t_s[-1]), float(batch.host_t_s[-1])
        self._store(self.science.add(batch))

    def add_cell(self, rows: list[CellRow]) -> None:
        """Digest cell rows whose `t_s` is already run time."""
        self.science.add_cell(rows)
        self._writer.put_cell_samples(rows)

    def record(self, events: list[Event]) -> None:
        """Store events of the instrument itself."""
        self._put_events(events)

    def finish(self) -> None:
        """Store what the science knows only at the end."""
        self._store(self.science.finish())

    def _store(self, update: ScienceUpdate) -> None:
        writer = self._writer
        if update.frame_columns is not None and update.particle_columns is not None:
            writer.put_chunk(update.frame_columns, update.particle_columns, wait_s=self._chunk_wait_s)
        for rows, put in (
            (update.cycles, writer.put_cycles),
            (update.ensemble, writer.put_ensemble),
            (update.calibrations, writer.put_calibrations),
            (update.particles, writer.update_particles),
        ):
            if rows:
                put(rows)
        if update.events:
            self._put_events(update.events)

    def _put_events(self, events: list[Event]) -> None:
        future: Future[list[Event]] = self._writer.put_events(events)
        future.add_done_callback(self._committed)

    def _committed(self, future: Future[list[Event]]) -> None:
        # a failed write is the writer's to report; its events never reach the feed
        if not future.cancelled() and future.exception() is None:
            self._on_events(future.result())


def particle_rows(masks: MaskSet) -> list[dict[str, Any]]:
    """Rows of the `particles` table as segmentation knows them."""
    rows = []
    for i in range(masks.count):
        row: dict[str, Any] = {name: float(masks.table[name][i]) for name in PARTICLES if name in masks.table}
        row |= TEXT_DEFAULTS
        row |= {
            "particle_id": int(masks.particle_id[i]),
            "parent_id": None,
            "y_px": float(masks.y_px[i]),
            "x_px": float(masks.x_px[i]),
        }
        rows.append(row)
    return rows
