"""What a run needs before its first frame counts: reference, particles, file, orders for the engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from daemon.cell.plan import plan_experiment
from daemon.config import Settings
from daemon.diagnostics.checks.clock import is_synchronised
from daemon.engine.child import ask
from daemon.engine.host import EngineHost
from daemon.engine.link import Message
from daemon.engine.measures import MaskSet, kept_columns
from daemon.engine.pipeline import PipelineSettings
from daemon.engine.wire import masks_message, measure_message
from daemon.errors import (
    CameraError,
    CameraReason,
    EngineError,
    EngineReason,
    InstrumentError,
    MaskError,
    RunError,
    RunReason,
    StoreError,
    StoreReason,
    all_reasons,
)
from daemon.events import Event
from daemon.mask_edits import MaskEdit
from daemon.photometry.blocks import grown
from daemon.photometry.clock import ClockRelation
from daemon.photometry.noise import NoiseHints
from daemon.photometry.science import ScienceSettings
from daemon.recipe import Recipe
from daemon.runs.active import ActiveRun, Ending
from daemon.runs.baseline import baseline_seconds
from daemon.runs.calibrations import calibrations_for
from daemon.runs.metadata import run_metadata
from daemon.runs.prepare import (
    Prepared,
    Reference,
    edit_message,
    edited_from,
    level,
    prepared_from,
    reference_message,
)
from daemon.runs.recorder import Recorder
from daemon.store.paths import StateLayout
from daemon.store.writer import StoreWriter
from hw.camera.contract import CameraInfo
from hw.potentiostat.contract import PotentiostatInfo

log = logging.getLogger("runs")


class RunSetup:
    """Carries a run from nothing to measuring, and a restarted engine back into it."""

    def __init__(
        self,
        settings: Settings,
        paths: StateLayout,
        engine: EngineHost,
        cell_info: Callable[[], PotentiostatInfo | None],
        writer: StoreWriter,
        publish: Callable[[list[Event]], None],
    ) -> None:
        self._settings, self._paths, self._engine = settings, paths, engine
        self._cell_info, self._writer, self._publish = cell_info, writer, publish

    async def stored(self, future: Future[Any]) -> Any:
        """Wait for the store to have something on disk. Raises `StoreError`."""
        limit_s = self._settings.store.answer_timeout_s
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), limit_s)
        except TimeoutError:
            raise StoreError(StoreReason.OVERLOADED, f"the store took more than {limit_s:g} s") from None

    def check_experiment(self, recipe: Recipe) -> None:
        """Raises `ExperimentError` for one that limits, settings or the potentiostat, where it is known, rule out."""
        if recipe.experiment is not None:
            plan_experiment(recipe.experiment, self._settings.cell, self._cell_info())

    async def reference(self, recipe: Recipe, info: CameraInfo) -> Reference:
        """Average the next frames; add what camera, settings and stored calibrations say of it."""
        frames = recipe.reference_frames
        timeout_s = self._settings.camera.start_timeout_s + 2.0 * frames / max(info.frame_rate_hz, 0.01)
        taken = await self._engine.capture(frames, timeout_s)
        maps = await asyncio.to_thread(calibrations_for, info, self._paths.catalogue)
        for note in maps.notes:
            log.warning("%s", note)
        camera = self._settings.camera
        hints = NoiseHints(
            camera.gain_e_per_dn if camera.gain_e_per_dn is not None else info.gain_e_per_dn,
            camera.read_noise_e if camera.read_noise_e is not None else info.read_noise_e,
            camera.dark_dn if camera.dark_dn is not None else info.dark_dn,
        )
        pixel_size_nm = camera.pixel_size_nm if camera.pixel_size_nm is not None else info.pixel_size_nm
        return Reference(
            taken.mean_dn, taken.variance_dn2, frames, info.bit_depth, hints, pixel_size_nm,
            maps.dark, maps.flat, taken, maps.notes,
        )  # fmt: skip

    async def prepare(self, reference: Reference, recipe: Recipe) -> Prepared:
        """Noise, particles and operator, found in a process of its own. Raises `RunError`, `EngineError`."""
        order = reference_message(reference, recipe.masks)
        return prepared_from(await self._asked(order, "finding the particles", RunError))

    async def create(self, active: ActiveRun, info: CameraInfo, prepared: Prepared, reference: Reference) -> None:
        """The run's file, its science and its clock."""
        cell = self._cell_info()
        electrode = self._settings.cell.electrode
        capacity_mah = self._settings.cell.capacity_mah or (cell.capacity_mah if cell is not None else None)
        synchronised = await asyncio.to_thread(is_synchronised)
        metadata = await asyncio.to_thread(  # reads files
            run_metadata,
            run_id=active.summary.run_id,
            started=datetime.fromisoformat(active.summary.started_utc),
            recipe=active.recipe,
            prepared=prepared,
            camera=info,
            electrode=electrode,
            capacity_mah=capacity_mah,
            source=f"driver {self._settings.camera.driver}",
            notes=list(reference.notes),
            dark_frame=reference.dark_map is not None,
            flat_frame=reference.flat_map is not None,
            clock_synchronised=synchronised,
        )
        await self.stored(self._writer.create_run(active.summary.path, metadata, active.summary))
        science = ScienceSettings(electrode=electrode, capacity_mah=capacity_mah)
        recorder = Recorder(active.summary.run_id, prepared.masks, science, self._writer, self._publish)
        await active.in_thread(recorder.open, reference.mean_dn, level(reference, prepared.noise))
        active.clock = ClockRelation(
            info.clock_id,
            cell.clock_id if cell is not None else "",
            cell_rate=cell.clock_rate if cell is not None else 1.0,
        )
        active.recorder = recorder

    async def measure(self, active: ActiveRun, info: CameraInfo, prepared: Prepared, reference: Reference) -> None:
        """Order the engine to measure from the next frame on."""
        settings = self._pipeline_settings(active, info, reference)
        nothing = np.empty((0, 0), np.float32)  # the noise is known now, its evidence need not stay in memory
        active.reference = replace(reference, variance_dn2=nothing)
        active.camera = info.identity
        order = measure_message(prepared.operator, settings, camera=active.camera)
        await self._engine.request(order, self._settings.camera.start_timeout_s)

    async def resume(self, active: ActiveRun) -> None:
        """Give a restarted engine the run it lost: same masks, same F0, frames numbered on. With another camera
        than it began with the run ends instead. Raises `CameraError`, `EngineError`, `RunError` once it has ended.
        """
        recorder, prepared, reference = active.recorder, active.prepared, active.reference
        if recorder is None or prepared is None or reference is None:
            return
        info = await self._engine.camera(self._settings.camera.start_timeout_s)
        if recorder.baseline is None and active.waiting_frames:  # F0 may be among what the science has still to see
            await active.behind(lambda _: None)
        t0_s = active.camera_t0_s
        message = measure_message(
            prepared.operator,
            self._pipeline_settings(active, info, reference),
            baseline=_baseline_of(prepared.masks, recorder.baseline),
            first_frame=active.last_frame + 1,
            first_t_s=t0_s if np.isfinite(t0_s) else None,
            last_stamp=active.last_stamp,
            rewind=False,
            mask_version=prepared.masks.version,
            camera=active.camera,
        )
        try:
            await self._engine.request(message, self._settings.camera.start_timeout_s)
        except CameraError as error:
            if error.reason is not CameraReason.CHANGED:
                raise
            active.end(Ending(error.code, error.detail))

    async def edit(
        self, active: ActiveRun, before: Prepared, edits: list[MaskEdit]
    ) -> tuple[Prepared, list[int | None]]:
        """The masks with edits carried out and compiled, in a process of its own, and the ids that each edit made.

        Nothing is changed yet. Raises `MaskError`, `EngineError`.
        """
        if active.reference is None:
            raise RunError(RunReason.NOT_RUNNING, f"run '{active.summary.run_id}' does not measure yet")
        order = edit_message(active.reference, before, edits, active.recipe.masks)
        return edited_from(await self._asked(order, "editing the masks", MaskError))

    async def _asked(self, order: Message, what: str, kind: type[InstrumentError]) -> Message:
        """The preparing process' answer. Raises an error of `kind` with its reason, or `EngineError` without one."""
        limit_s = self._settings.engine.prepare_timeout_s
        try:
            answer = await ask("daemon.runs.prepare", order, limit_s)
        except TimeoutError:
            raise EngineError(EngineReason.PREPARE_SLOW, f"{what} took more than {limit_s:g} s") from None
        except ChildProcessError as error:
            raise EngineError(EngineReason.PREPARE_DIED, f"the process for {what} ended early: {error}") from None
        if answer.kind == "failed":
            reason = next(r for r in all_reasons() if r.code == answer.fields["code"])
            raise kind(reason, answer.fields["detail"])
        return answer

    async def change_masks(self, before: Prepared, after: Prepared) -> int:
        """Order the engine to go on by other masks; the number of the first frame that they measure."""
        kept = kept_columns(before.masks, after.masks)
        # longer than the silence after which a hung engine is ended: an order cannot be left undecided
        limit_s = max(self._settings.camera.start_timeout_s, 2.0 * self._settings.engine.silence_s)
        reply = await self._engine.request(masks_message(after.operator, kept, after.masks.version), limit_s)
        return int(reply.fields["from_frame"])

    def _pipeline_settings(self, active: ActiveRun, info: CameraInfo, reference: Reference) -> PipelineSettings:
        cell = self._cell_info()
        # an accelerated twin stamps its frames further apart than they come
        rate = cell.clock_rate if cell is not None and cell.clock_id and cell.clock_id == info.clock_id else 1.0
        return PipelineSettings(
            bit_depth=info.bit_depth,
            pixel_format=info.pixel_format.value,
            frame_rate_hz=info.frame_rate_hz / rate,
            baseline_s=baseline_seconds(active.recipe.baseline_s, None),
            false_alarms_per_day=self._settings.engine.step_false_alarms_per_day,
            dark_map=reference.dark_map,
            flat_map=reference.flat_map,
            clock_rate=info.clock_rate,
        )


def _baseline_of(
    masks: MaskSet, baseline: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """F0 (P,) and (P, 4) in the columns that the engine measures; NaN for particles too new to have one."""
    if baseline is None:
        return None
    flux_e, layer_flux_e = (grown(np.asarray(each), masks.count, np.nan)[masks.positions] for each in baseline)
    return flux_e, layer_flux_e
