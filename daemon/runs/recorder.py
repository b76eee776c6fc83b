"""Science and store of one run: measures and cell rows in, rows on disk out. The same live and offline."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daemon.cell.samples import CellRow
from daemon.engine.measures import Clip, MaskSet, MeasureBatch
from daemon.events import Event
from daemon.mask_edits import MaskVersion
from daemon.photometry.science import Science, ScienceSettings
from daemon.photometry.update import ScienceUpdate
from daemon.store.operations import utc_now
from daemon.store.writer import StoreWriter
from daemon.tables import PARTICLES

MAX_CLIPS = 4000
"""A run: about 30 MB of particles of 8 px radius."""
CLIPS_OF_ONE = 20
TELL_S = 0.25
TEXT_DEFAULTS = {"front_mode": "none", "calibration": "none", "state": "active"}


@dataclass(frozen=True)
class Told:
    """How a run stands, all of the same moment. Nobody changes what is in it."""

    summary: dict[str, Any]
    """The science's own."""
    states: np.ndarray
    """(P,) indices into `PARTICLE_STATES`."""
    soc: np.ndarray
    """(P,) latest state of charge."""
    labels: np.ndarray
    """(H, W) label image."""


class Recorder:
    """One run's science and its way to the store. Not thread-safe: one thread calls it.

    `told` says how things stand, at most `TELL_S` ago; it is replaced as a whole, so that any thread may read it.

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
        """F0 of particles and layers, (P,) and (P, 4), once the engine knows it."""
        self._about = MaskVersion(masks.version, 0, "")
        self._coming: dict[int, tuple[MaskSet, MaskVersion]] = {}
        self._masks_stored: Future[None] = Future()
        self._clips_left = MAX_CLIPS
        self._clips_of: Counter[int] = Counter()
        self._tell()

    def open(self, reference_dn: np.ndarray, level_dn: np.ndarray | None = None) -> None:
        """Store what the run starts from: particles and masks. `level_dn` is the reference above its dark level, the
        flat field divided out.
        """
        masks = self.masks
        self._about = MaskVersion(masks.version, 0, utc_now(), particles=len(masks.positions))
        self._writer.put_particles(particle_rows(masks))
        self._masks_stored = self._writer.put_masks(self._about, masks.labels, reference_dn)
        self.science.see(reference_dn, level_dn)

    @property
    def about_masks(self) -> MaskVersion:
        """The version of the masks in effect."""
        return self._about

    def expect(self, masks: MaskSet, about: MaskVersion) -> None:
        """Be ready for batches measured by the next version of the masks. Any thread."""
        self._coming[masks.version] = (masks, about)

    def change_masks(self, version: int, from_frame: int) -> Future[None]:
        """Go on with an expected version, which measured every frame from `from_frame` on; done when it is on disk.

        Whichever knows first says so, the engine's reply or the first batch; saying it again changes nothing.
        """
        if version != self._about.version:
            masks, about = self._coming.pop(version)
            rows = particle_rows(masks)[self.masks.count :]
            self.masks, self._about = masks, replace(about, utc=utc_now(), from_frame=from_frame)
            if rows:
                self._writer.put_particles(rows)
            self._masks_stored = self._writer.put_masks(self._about, masks.labels)
            self._store(self.science.change_masks(masks))
            self._tell()
        elif from_frame < self._about.from_frame:  # an engine that died took the first frames with it
            self._about = replace(self._about, from_frame=from_frame)
            self._masks_stored = self._writer.put_masks(self._about, self.masks.labels)
        return self._masks_stored

    def add(self, batch: MeasureBatch) -> None:
        """Digest one batch of frames."""
        if batch.mask_version != self._about.version or batch.frame[0] < self._about.from_frame:
            self.change_masks(batch.mask_version, int(batch.frame[0]))
        batch = batch.spread(self.masks)
        if batch.baseline_flux_e is not None and batch.baseline_layer_flux_e is not None:
            self.baseline = (batch.baseline_flux_e, batch.baseline_layer_flux_e)
        self.frames += len(batch)
        self.last_frame = int(batch.frame[-1])
        self.last_t_s, self.last_host_t_s = float(batch.t_s[-1]), float(batch.host_t_s[-1])
        self._put_clips(batch)
        self._store(self.science.add(batch))
        if time.monotonic() >= self._tell_again_s:
            self._tell()

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
        self._tell()

    def _tell(self) -> None:
        science = self.science
        with np.errstate(all="ignore"):  # what cannot be computed is NaN
            self.told = Told(science.summary(), science.states, science.soc_now, self.masks.labels)
        self._tell_again_s = time.monotonic() + TELL_S

    def _store(self, update: ScienceUpdate) -> None:
        writer = self._writer
        if update.frame_columns is not None and update.particle_columns is not None:
            columns = (update.frame_columns, update.particle_columns)
            writer.put_chunk(*columns, wait_s=self._chunk_wait_s, mask_version=self.masks.version)
        for rows, put in (
            (update.cycles, writer.put_cycles),
            (update.health, writer.put_health),
            (update.rates, writer.put_rates),
            (update.fronts, writer.put_fronts),
            (update.axes, writer.put_axes),
            (update.axial, writer.put_axial),
            (update.ensemble, writer.put_ensemble),
            (update.calibrations, writer.put_calibrations),
            (update.particles, writer.update_particles),
        ):
            if rows:
                put(rows)
        if update.fragments:
            writer.put_particles(TEXT_DEFAULTS | row for row in update.fragments)
        if update.metadata:
            writer.set_metadata(update.metadata)
        if update.events:
            self._put_events(update.events)

    def _put_clips(self, batch: MeasureBatch) -> None:
        """As many as the budget holds: a particle that steps for ever must not fill the disk."""
        chosen: list[tuple[int, Clip]] = []
        for clip in batch.clips:
            particle_id = int(self.masks.particle_id[clip.index])
            left = self._clips_left - len(chosen)
            if left > 0 and self._clips_of[particle_id] < CLIPS_OF_ONE:
                self._clips_of[particle_id] += 1
                chosen.append((particle_id, clip))
        self._clips_left -= len(chosen)
        if chosen:
            self._writer.put_clips(chosen)

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
            "parent_id": (int(masks.parent_id[i]) or None) if masks.parent_id is not None else None,
            "y_px": float(masks.y_px[i]),
            "x_px": float(masks.x_px[i]),
        }
        rows.append(row)
    return rows
