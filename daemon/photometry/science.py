"""A run's science: measures and the cell's record in, contrasts, SoC, cycles, ensemble and events out.

Live and offline use the same object; what it gives depends on frames and samples only, not on how they were batched.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from daemon.cell.samples import CellRow
from daemon.engine.measures import MaskSet, MeasureBatch
from daemon.events import Event, EventKind
from daemon.photometry.activity import ACTIVE, DEAD, LOST, MIN_CHARGE_SHARE, Activity
from daemon.photometry.aftermath import closing_detail
from daemon.photometry.axial_book import AxialBook
from daemon.photometry.balance import Balance, balance
from daemon.photometry.blocks import Block, BlockMeans, History, all_grown, finite_mean, grown
from daemon.photometry.contrast import ContrastMaker, Contrasts
from daemon.photometry.curves import HalfCurves, half_curves
from daemon.photometry.cycles import CycleBook
from daemon.photometry.derive import SocTable
from daemon.photometry.ensemble import SPREAD_MEANS, RateSpread, ensemble_row, rate_spread
from daemon.photometry.events import EventReader
from daemon.photometry.fronts import FrontFinder
from daemon.photometry.halves import CellTrack, Half
from daemon.photometry.kinetics import Kinetics
from daemon.photometry.outlook import Outlook
from daemon.photometry.slices import Sliced, completed
from daemon.photometry.soc import Calibrator
from daemon.photometry.standstill import Standstill
from daemon.photometry.update import ScienceUpdate
from daemon.tables import CALIBRATIONS, FRONT_MODES, PARTICLE_STATES

DONE = object()
SLICE_S = 0.05
"""A slice of what ends with a half is done every so much run time: a few milliseconds of work."""
MOST_WAITING = 64
"""Blocks that may wait for it; then the rest is done at once."""


@dataclass(frozen=True)
class ScienceSettings:
    """What a run fixes for its science."""

    electrode: Literal["cathode", "anode"] = "cathode"
    """Which electrode is watched; SoC is in the cell's sense for both: charging raises it."""
    capacity_mah: float | None = None
    """Nominal capacity, for C-rates; the window's charge when None."""
    block_s: float = 0.25
    """Frames are averaged over this much run time before anything but contrasts and events is made of them."""
    history_points: int = 1024
    """Points kept a particle and half; a longer half is kept more coarsely."""
    waiting_blocks: int = 1024
    """Blocks that may wait for the cell's record; beyond that the oldest is left out of cycles and SoC, and counted."""
    ensemble_s: float = 1.0
    lost_after_s: float = 5.0
    """A particle at the frame's edge this long is lost."""
    baseline_buffer_bytes: int = 128_000_000
    """Measures held while the baseline lasts."""


class Science:
    """One run. Single thread; give it cell rows and batches as they come, then `finish` once."""

    def __init__(self, masks: MaskSet, settings: ScienceSettings) -> None:
        count = masks.count
        self._settings = settings
        self._particle_id = np.asarray(masks.particle_id)
        self._weights = _areas(masks)
        self._contrasts = ContrastMaker(count, settings.baseline_buffer_bytes)
        self._blocks = BlockMeans(count, settings.block_s)
        self._track = CellTrack(settings.capacity_mah)
        self._waiting: deque[Block] = deque()
        self._half: Half = self._track.current
        self._history = History(count, settings.history_points)
        self._masks = masks
        self._calibrator = Calibrator(count, settings.capacity_mah)
        self._activity = Activity(count)
        self._standstill = Standstill(self._particle_id)
        self._book = CycleBook(self._particle_id, self._weights)
        self._events = EventReader(masks, settings.lost_after_s)
        self.fronts = FrontFinder(masks)
        self._axial = AxialBook(masks)
        self._table = SocTable({}, count)
        self._balance = Balance()
        self._kinds = np.zeros(count, np.int8) + CALIBRATIONS.index("none")
        self._ratio_sums = np.zeros((count, 5))
        self._rows: list[dict[str, Any]] = []
        self._removed = np.zeros(count, bool)
        self._told_states = np.full(count, -1, np.int8)
        self._told_kinds = self._kinds
        self._told_brightness = np.zeros(count, bool)
        self._spread = RateSpread()
        self._kinetics = Kinetics(settings.capacity_mah)
        self._outlook = Outlook(self._particle_id)
        self._block_t_s = float("nan")
        self._told_modes = self.fronts.modes.copy()
        self._ensemble_t_s = -np.inf
        self._ensemble: dict[str, Any] = {}
        self._blocks_left_out = 0
        self._finished = False
        self._update = ScienceUpdate()
        self._worked_t_s = 0.0
        self._ending: Sliced[None] | None = None
        """What the end of the last half asks for and is not done yet."""
        self.soc_now = np.full(count, np.nan, np.float32)
        """(P,) float32 SoC over the last batch, NaN where unknown."""

    @property
    def states(self) -> np.ndarray:
        """(P,) int8 indices into `PARTICLE_STATES`. Until a half has ended `active` means not shown otherwise."""
        return np.where(self._events.lost | self._removed, LOST, self._activity.states).astype(np.int8)

    def see(self, reference_dn: np.ndarray, level_dn: np.ndarray | None = None) -> None:
        """The (H, W) frame the masks were found in, and the same above its dark level, the flat field divided out."""
        self.fronts.see(reference_dn)
        if level_dn is not None:
            self._axial.see(level_dn)

    def change_masks(self, masks: MaskSet) -> ScienceUpdate:
        """Go on with the next version of the masks: removed particles are lost, new ones are appended.

        To be called between two batches, once F0 is known.
        """
        update = self._update = ScienceUpdate()
        with np.errstate(all="ignore"):
            self._work_off()
        count = masks.count
        self._masks, self._particle_id, self._weights = masks, np.asarray(masks.particle_id), _areas(masks)
        self._removed = np.zeros(count, bool) if masks.active is None else ~masks.active
        for part in (self._contrasts, self._blocks, self._history, self._calibrator, self._activity):
            part.grow(count)
        self._waiting = deque(all_grown(block, count) for block in self._waiting)
        self._book.grow(self._particle_id, self._weights)
        self.fronts.change_masks(masks)
        self._outlook.grow(self._particle_id)
        self._standstill.grow(self._particle_id)
        self._events.change_masks(masks)
        self._table = SocTable(dict(enumerate(self._rows)), count)
        self._kinds = grown(self._kinds, count, CALIBRATIONS.index("none"))
        self._ratio_sums = grown(self._ratio_sums, count, 0.0)
        self._told_states = grown(self._told_states, count, -1)
        self._told_kinds = grown(self._told_kinds, count, CALIBRATIONS.index("none"))
        self._told_brightness = grown(self._told_brightness, count, False)
        self._told_modes = grown(self._told_modes, count, FRONT_MODES.index("none"))
        self.soc_now = grown(self.soc_now, count, np.nan)
        update.axial += self._axial.change_masks(masks)
        self._tell_particles(update)
        return update

    def add_cell(self, rows: list[CellRow]) -> None:
        """Take samples in order, `t_s` already on the run's clock. Results follow with the next frames."""
        self._track.add(rows)

    def add(self, batch: MeasureBatch) -> ScienceUpdate:
        """Take the next frames."""
        update = self._update = ScienceUpdate()
        with np.errstate(all="ignore"):  # what cannot be computed is NaN
            self._measure(self._contrasts.add(batch), update)
            self.fronts.work()
        update.axial += self._axial.ready()
        self._tell_particles(update)
        return update

    def finish(self) -> ScienceUpdate:
        """End the run: the last halves, the final calibrations. Idempotent: later calls give an empty update."""
        update = self._update = ScienceUpdate()
        if self._finished:
            return update
        self._finished = True
        with np.errstate(all="ignore"):
            self._measure(self._contrasts.finish(), update)
            self._end()
        update.events += self._events.finish()
        update.fragments = self._events.fragments()
        update.axial += self._axial.finish()
        self._tell_particles(update)
        return update

    def summary(self) -> dict[str, Any]:
        """For the status, by name with units; NaN for what is not known yet."""
        states = Counter(self.states.tolist())
        kinds = Counter(self._kinds.tolist())
        half = self._track.current
        window = self._calibrator.window
        nan = float("nan")
        return {
            "particles": len(self._particle_id),
            **{f"particles_{name}": states.get(index, 0) for index, name in enumerate(PARTICLE_STATES)},
            **{f"calibration_{name}": kinds.get(index, 0) for index, name in enumerate(CALIBRATIONS)},
            **{name: self._ensemble.get(name, nan) for name in ("soc_mean", "soc_std", "active_fraction")},
            "rate_cv": self._spread.cv,
            "rate_cv_sigma": self._spread.sigma,
            "rate_cv_basis": self._spread.basis,
            "rate_cv_means": SPREAD_MEANS[self._spread.basis],
            "cycle": half.cycle if half.index >= 0 else None,
            "half": half.name or None,
            "window_mah": window.capacity_mah if window else nan,
            "two_phase": self._calibrator.two_phase,
            **self._outlook.summary(),
            **self._balance.told(),
            **self._axial.summary(self._table),
            "baseline_known": self._contrasts.flux_e is not None,
            "baseline_truncated": self._contrasts.truncated,
            "events_suppressed": self._events.suppressed,
            "cell_rows_rejected": self._track.rejected,
            "frames_out_of_order": self._blocks.out_of_order,
            "blocks_without_cell": self._blocks_left_out,
        }

    def _measure(self, ready: list[Contrasts], update: ScienceUpdate) -> None:
        if not ready:
            return
        frames = [part.frame_columns() for part in ready]
        particles = [part.particle_columns() for part in ready]
        update.frame_columns = _joined(frames, update.frame_columns)
        update.particle_columns = _joined(particles, update.particle_columns)
        for part in ready:
            self._frames(part, update)
        self.soc_now = self._table.soc(finite_mean(ready[-1].values[:, :, 0])).astype(np.float32)

    def _frames(self, part: Contrasts, update: ScienceUpdate) -> None:
        measured = np.isfinite(part.values)
        values = np.where(measured, part.values, 0.0)
        noise = np.where(measured[:, :, 0] & np.isfinite(part.sigma), part.sigma, 0.0) ** 2
        layer_noise = np.where(np.isfinite(part.layer_sigma), part.layer_sigma, 0.0) ** 2
        times = np.asarray(part.batch.t_s, float).tolist()
        rest_px = self.fronts.rest_px(part.batch.drift_y_px, part.batch.drift_x_px)
        axial = part.axial
        self._events.begin(part.batch)
        self._axial.begin(part, self._contrasts.baseline_frames)
        for k, t_s in enumerate(times):
            binned = None if axial is None else axial[k]
            block = self._blocks.add(t_s, values[k], measured[k], noise[k], binned, rest_px[k])
            if block is not None:
                self._on_block(block)
            self._axial.frame(k)
            self._work(t_s)
            self._ratio_sums[:, 0] += noise[k]
            self._ratio_sums[:, 1:] += layer_noise[k]
            events = [self._with_direction(event) for event in self._events.frame(part, k, self._table)]
            self._outlook.note(events)
            update.events += events

    def _with_direction(self, event: Event) -> Event:
        """A closed crack with what the current says to it: not gated, since halves are known late, but said."""
        if event.kind is not EventKind.CRACK_CLOSED:
            return event
        detail = closing_detail(self._track.current.sign, self._settings.electrode)
        return replace(event, detail="; ".join(filter(None, [event.detail, detail])))

    def _on_block(self, block: Block) -> None:
        self._axial.close(block)
        self._waiting.append(block)
        self._block_t_s = block.t_s
        if len(self._waiting) > MOST_WAITING:
            self._work_off()
        self._settle()
        if len(self._waiting) > self._settings.waiting_blocks:
            self._leave_out(self._waiting.popleft())
        if block.t_s - self._ensemble_t_s >= self._settings.ensemble_s:
            self._ensemble_t_s = block.t_s
            self._ensemble = ensemble_row(
                block.t_s, self._table.soc(block.values[:, 0]), self._weights, self.states,
                judged=self._activity.judged, rate_cv=self._spread.cv,
            )  # fmt: skip
            self._update.ensemble.append(self._ensemble)

    def _work(self, t_s: float) -> None:
        """Do what is due at `t_s` of what the end of the last half asks for."""
        while self._ending is not None and self._worked_t_s < t_s:
            self._worked_t_s += SLICE_S
            if next(self._ending, DONE) is DONE:
                self._ending = None
                self._settle()
        if self._ending is None:
            self._worked_t_s = t_s

    def _work_off(self) -> None:
        """Do all of it."""
        for _ in self._ending or ():
            pass
        self._ending = None

    def _leave_out(self, block: Block) -> None:
        """A block the cell's record never reached: of a run without a cell it still tells who is dead."""
        if self._track.has_record:
            self._blocks_left_out += 1
        else:
            self._history.append(block)

    def _settle(self) -> None:
        """Give waiting blocks to the halves they belong to, as far as the record reaches; they wait for the end of one
        to be worked off, too.
        """
        while self._waiting and self._ending is None:
            half = self._track.closed[0] if self._track.closed else self._track.current
            block = self._waiting[0]
            if half.end_t_s <= block.t_s:
                if not self._track.closed:
                    return
                self._ending = self._end_half(self._track.closed.popleft())
            elif block.t_s > self._track.settled_t_s:
                return
            else:
                self._history_of(half).append(self._waiting.popleft())

    def _history_of(self, half: Half) -> History:
        if half is not self._half:
            self._half = half
            self._history.clear()
        return self._history

    def _end_half(self, half: Half) -> Sliced[None]:
        curves = half_curves(half, self._history_of(half))
        if curves is None:
            return
        self._calibrator.add(curves)
        yield from self._axial.end_half(curves, self._history)
        if not half.sign:
            return
        yield
        enough = self._calibrator.passed_enough(curves, MIN_CHARGE_SHARE)
        if enough:
            self._judge(curves)
        yield from self._calibrate()
        if enough:
            self._balance = balance(curves, self._table, self._calibrator.window, self._weights)
        self._tell_cycles(curves, self._update)
        yield
        fronts = yield from self.fronts.end_half(curves, self._history)
        self._update.fronts += fronts
        axes = yield from self._axial.rows(self._with_curve)
        self._update.axes = axes

    @property
    def _with_curve(self) -> np.ndarray:
        """(P,) bool: those whose SoC is known all the way."""
        return self._table.usable & ~self._table.open_interior

    def _judge(self, curves: HalfCurves) -> None:
        """Who takes part, and who has stopped to."""
        swings = self._activity.add(curves, self._layer_sigma_ratio())
        if swings is not None:
            out = self._events.lost | self._removed | self._events.parted
            self._update.events += self._standstill.add(swings, curves, out, self._events.cracks_t_s, self._block_t_s)

    def _tell_cycles(self, curves: HalfCurves, update: ScienceUpdate) -> None:
        alive = self._activity.states != DEAD
        curves = self._book.joined(curves)
        active = self.states == ACTIVE
        curved = active & ~self._table.open_interior
        steps = self._kinetics.add(curves, self._table.soc, self._calibrator.window, curved)
        latest = self._book.add(curves, alive)
        for measures in self._book.kept:
            update.cycles += self._book.rows(measures, self._table.soc)
        for step in steps:
            update.rates += step.rows(self._particle_id)
        self._spread = rate_spread(latest, self._table.soc, active, steps)
        present = alive & (self.states != LOST)
        # a folded contrast is half way at another time than the particle is
        compared = active & (self._kinds != CALIBRATIONS.index("folded"))
        self._outlook.add(latest, self._table.soc, compared, present, self._block_t_s, update)

    def _end(self) -> None:
        """The last block, the halves that no later frame has ended, and a run that saw no current at all."""
        block = self._blocks.flush()
        if block is not None:
            self._on_block(block)
        self._track.finish()
        while self._ending is not None or self._track.closed:
            self._work_off()
            self._settle()
            if self._ending is None and self._track.closed:  # behind the last block
                self._ending = self._end_half(self._track.closed.popleft())
        if not self._track.has_halves:
            self._end_without_current()
        self._blocks_left_out += len(self._waiting)
        self._waiting.clear()
        completed(self._calibrate())
        self._update.metadata = self._balance.told()

    def _end_without_current(self) -> None:
        while self._waiting:
            self._history.append(self._waiting.popleft())
        curves = half_curves(self._half, self._history)
        if curves is not None:
            self._activity.add(curves, self._layer_sigma_ratio())
            self._update.fronts += completed(self.fronts.end_half(curves, self._history))

    def _calibrate(self) -> Sliced[None]:
        dead = self._activity.states == DEAD
        self._calibrator.mix(self._masks)
        rows = yield from self._calibrator.rows(self._particle_id, dead, self._layer_sigma_ratio())
        table = SocTable(dict(enumerate(rows)), len(rows))
        yield
        self._rows, self._table = rows, table
        self._kinds = np.array([CALIBRATIONS.index(row["kind"]) for row in rows], np.int8)
        spans = np.array([_span(row) for row in rows])
        self._events.phases.calibrate(self._table.two_phase, spans)
        self._update.calibrations = rows
        self._axial.changed = True

    def _layer_sigma_ratio(self) -> np.ndarray:
        """(P, 4) sigma of each layer's contrast over that of the particle, over the whole run."""
        own = self._ratio_sums[:, :1]
        return np.sqrt(self._ratio_sums[:, 1:] / np.where(own > 0, own, np.nan))

    def _tell_particles(self, update: ScienceUpdate) -> None:
        """Rows of all particles for the first time, then of those that changed; the brightness once F0 is known."""
        flux_e = self._contrasts.flux_e
        if flux_e is None:
            return
        if self._axial.changed and self._ending is None:
            update.axes = completed(self._axial.rows(self._with_curve))
        states, kinds, modes = self.states, self._kinds, self.fronts.modes
        fresh = self._told_states < 0
        bright = ~self._told_brightness & (fresh | np.isfinite(flux_e))
        changed = bright | (states != self._told_states) | (kinds != self._told_kinds) | (modes != self._told_modes)
        self._told_states, self._told_kinds, self._told_modes = states, kinds, modes.copy()
        self._told_brightness = self._told_brightness | np.isfinite(flux_e)
        for index in np.flatnonzero(changed).tolist():
            row = {
                "particle_id": int(self._particle_id[index]),
                "state": PARTICLE_STATES[states[index]],
                "calibration": CALIBRATIONS[kinds[index]],
                "front_mode": FRONT_MODES[modes[index]],
            }
            if bright[index]:
                row |= {"brightness_e": float(flux_e[index])}
            update.particles.append(row)


def _areas(masks: MaskSet) -> np.ndarray:
    """(P,) weights of the ensemble: areas, or ones where a mask set does not tell them."""
    area = np.asarray(masks.table.get("area_px", np.ones(masks.count)), float)
    return np.where(np.isfinite(area) & (area > 0), area, 0.0)


def _span(row: dict[str, Any]) -> float:
    """Contrast at the charged end minus that at the discharged end; 0 without a curve."""
    knots = row["contrast_knots"]
    return (knots[-1] - knots[0]) * (1.0 if row["soc_knots"][-1] > row["soc_knots"][0] else -1.0) if knots else 0.0


def _joined(parts: list[dict[str, np.ndarray]], before: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    parts = [before, *parts] if before else parts
    return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
