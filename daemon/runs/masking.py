"""Edits of the masks of a run in progress: from the request to the frame they take effect with, one at a time."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from daemon.errors import MaskError, MaskReason, RunError, RunReason
from daemon.mask_edits import EDITS, MAX_EDITS, MaskChange, MaskVersion
from daemon.runs.active import ActiveRun
from daemon.runs.prepare import Prepared
from daemon.runs.setup import RunSetup

log = logging.getLogger("runs.masks")


class MaskEditor:
    """Carries out one request after the other; each takes effect as a whole or changes nothing."""

    def __init__(self, setup: RunSetup) -> None:
        self._setup = setup
        self._turn = asyncio.Lock()

    async def edit(self, active: ActiveRun, change: MaskChange, actor: str) -> MaskVersion:
        """The version that is in effect, and on disk, when this returns. Raises `MaskError`, `RunError`."""
        if len(change.edits) > MAX_EDITS:
            raise MaskError(
                MaskReason.TOO_MANY_EDITS, f"{len(change.edits)} edits at once, at most {MAX_EDITS} are made"
            )
        async with self._turn:
            before = self._editable(active, change)
            after, made = await self._setup.edit(active, before, change.edits)
            return await self._put_into_effect(active, before, after, _about(after, change, made, actor))

    def _editable(self, active: ActiveRun, change: MaskChange) -> Prepared:
        """The masks in effect. Raises `RunError` (NOT_RUNNING), `MaskError` (BASELINE, STALE)."""
        prepared, recorder = active.prepared, active.recorder
        if prepared is None or recorder is None or not active.running.is_set() or active.finished.is_set():
            raise RunError(RunReason.NOT_RUNNING, f"run '{active.summary.run_id}' is not measuring")
        newest = prepared.masks.version
        if change.version is not None and change.version != newest:
            raise MaskError(
                MaskReason.STALE, f"the edits are meant for version {change.version}, the newest is {newest}"
            )
        if recorder.baseline is None:
            raise MaskError(MaskReason.BASELINE, "the run's baseline is still being measured")
        return prepared

    async def _put_into_effect(
        self, active: ActiveRun, before: Prepared, after: Prepared, about: MaskVersion
    ) -> MaskVersion:
        recorder = active.recorder
        assert recorder is not None
        recorder.expect(after.masks, about)
        from_frame = await self._setup.change_masks(before, after)
        # from here on a restarted engine must be given these
        active.prepared = after
        on_disk = await active.behind(lambda one: one.change_masks(about.version, from_frame))
        await self._setup.stored(on_disk)
        log.info(
            "run %s: masks version %d from frame %d on, %d particles, by %s",
            active.summary.run_id, about.version, from_frame, about.particles, about.actor,
        )  # fmt: skip
        return recorder.about_masks


def _about(after: Prepared, change: MaskChange, made: list[int | None], actor: str) -> MaskVersion:
    edits: list[dict[str, Any]] = EDITS.dump_python(change.edits, mode="json")
    for edit, particle_id in zip(edits, made, strict=True):
        if particle_id is not None:
            edit["new_particle_id"] = particle_id
    masks = after.masks
    return MaskVersion(masks.version, -1, "", actor, edits, len(masks.positions))
