"""Edits of a run's masks: from the request to what is on disk."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest

from daemon.engine.wire import measure_order
from daemon.errors import EngineError, EngineReason, MaskError, MaskReason, RunError, RunReason
from daemon.mask_edits import MAX_EDITS, MaskChange
from daemon.photometry.outlines import outlines_of
from daemon.recipe import Recipe
from daemon.store.reader import RunReader
from tests.daemon.runs.rig import rig, until

RECIPE = Recipe(reference_frames=20, baseline_s=0.1)
BASELINE = 12
"""Frames that certainly end the baseline."""


@asynccontextmanager
async def measuring(folder, engine, frames=30):
    """(rig, run id) of a run that has measured `frames`."""
    async with rig(folder, engine) as one:
        run_id = (await one.runs.start(RECIPE)).run_id
        await one.runs.wait_running(run_id)
        await show(one, engine, frames)
        yield one, run_id


async def show(one, engine, frames):
    """Measure `frames` more, and wait until the science has them."""
    recorder = one.runs._active.recorder
    wanted = recorder.frames + frames
    engine.show(frames)
    await until(lambda: recorder.frames >= wanted)


def change(*edits, version=None):
    return MaskChange.model_validate({"edits": list(edits), "version": version})


def remove(particle_id):
    return {"action": "remove", "particle_id": particle_id}


def again(one, particle_id, action="replace"):
    masks = one.runs._active.prepared.masks
    index = int(np.flatnonzero(masks.particle_id == particle_id)[0])
    outline_px = [list(point) for point in outlines_of(masks.labels)[index + 1]]
    own = {"particle_id": particle_id} if action == "replace" else {}
    return {"action": action, "outline_px": outline_px, **own}


def versions_on_disk(one, run_id):
    with RunReader(one.layout.run_path(run_id)) as reader:
        return reader.mask_versions()


async def stored_run(one, run_id):
    """(rows of frames, contrasts, particles by id, mask versions) once the run has ended."""
    await one.runs.stop(run_id)

    def read():
        with RunReader(one.layout.run_path(run_id)) as reader:
            frames, values = reader.particle_columns(["contrast"])
            particles = {row["particle_id"]: row for row in reader.particles()}
            return frames, values["contrast"], particles, reader.mask_versions(), reader.metadata()

    return await asyncio.to_thread(read)


async def refused(one, run_id, reason, *edits, version=None, kind=MaskError):
    """Nothing changes on a refusal: not the engine, not the science, not what is known of the run."""
    active = one.runs._active
    before = active.prepared, active.recorder.masks, active.recorder.about_masks, one.runs.current().particles
    orders = len(one.engine.orders)
    with pytest.raises(kind) as caught:
        await one.runs.edit_masks(run_id, change(*edits, version=version), "me")
    assert caught.value.reason is reason and caught.value.detail and caught.value.remedy
    assert before == (
        active.prepared, active.recorder.masks, active.recorder.about_masks, one.runs.current().particles
    )  # fmt: skip
    assert len(one.engine.orders) == orders
    return caught.value.detail


async def test_an_edit_is_in_effect_and_on_disk_when_it_is_answered(tmp_path, engine):
    async with measuring(tmp_path, engine) as (one, run_id):
        engine.pipeline.add(*_frame(engine))  # measured, and not sent yet
        edits = change(remove(2), again(one, 5), version=1)
        about = await one.runs.edit_masks(run_id, edits, "token:me")
        assert (about.version, about.from_frame, about.actor, about.particles) == (2, 31, "token:me", 7)
        assert [edit.get("new_particle_id") for edit in about.edits] == [None, 9]
        assert [each.version for each in await asyncio.to_thread(versions_on_disk, one, run_id)] == [1, 2]
        assert one.runs.current().particles == 9 and one.runs.live_labels().max() == 9
        assert len(one.runs.live_states()) == len(one.runs.live_soc()) == 9
        await show(one, engine, 30)
        frames, contrast, particles, versions, metadata = await stored_run(one, run_id)
    np.testing.assert_array_equal(frames["frame"], range(61))
    assert contrast.shape == (61, 9) and versions[1] == about and metadata["mask_version"] == 2
    assert np.isfinite(contrast[:31, :8]).all()
    assert np.isnan(contrast[31:, [1, 4]]).all() and np.isfinite(contrast[31:, [0, 2, 3, 5, 6, 7]]).all()
    begun = 31 + 11  # frames at 0.00 to 0.10 s of its own baseline
    assert np.isnan(contrast[:begun, 8]).all() and np.isfinite(contrast[begun:, 8]).all()
    assert particles[2]["state"] == particles[5]["state"] == "lost"
    assert particles[9]["parent_id"] == 5 and particles[9]["state"] == "active"
    assert particles[9]["area_px"] == particles[5]["area_px"]
    assert particles[9]["brightness_e"] == pytest.approx(particles[5]["brightness_e"], rel=0.02)


def _frame(engine):
    from hw.camera.contract import FrameStamp

    n = engine.shown
    engine.shown += 1
    return engine._scene.expose(engine._mean_e), FrameStamp(n, 50.0 + n / 100, 1.0 + n / 100)


async def test_each_edit_is_a_version_and_frames_belong_to_one(tmp_path, engine):
    async with measuring(tmp_path, engine) as (one, run_id):
        for particle_id in (1, 2, 3):
            await one.runs.edit_masks(run_id, change(remove(particle_id)), "me")
            await show(one, engine, 5)
        outline = outlines_of(one.runs._active.prepared.masks.labels)
        assert set(outline) == {4, 5, 6, 7, 8}
        frames, contrast, _, versions, _ = await stored_run(one, run_id)
    assert [each.from_frame for each in versions] == [0, 30, 35, 40]
    known = np.isfinite(contrast)
    for index, first in ((0, 30), (1, 35), (2, 40), (3, 45)):
        assert known[:, index].tolist() == [n < first for n in frames["frame"]]


async def test_a_particle_may_be_outlined_again_after_its_removal(tmp_path, engine):
    async with measuring(tmp_path, engine) as (one, run_id):
        back = again(one, 3, "add")
        await one.runs.edit_masks(run_id, change(remove(3)), "me")
        about = await one.runs.edit_masks(run_id, change(back), "me")
        assert about.version == 3 and about.edits[0]["new_particle_id"] == 9
        await show(one, engine, 20)
        _, contrast, particles, _, _ = await stored_run(one, run_id)
    assert np.isfinite(contrast[-5:, 8]).all() and particles[9]["parent_id"] is None


async def test_refusals_change_nothing(tmp_path, engine):
    async with measuring(tmp_path, engine) as (one, run_id):
        assert "99" in await refused(one, run_id, MaskReason.NO_PARTICLE, remove(1), remove(99))
        await refused(one, run_id, MaskReason.OVERLAP, again(one, 1, "add"))
        await refused(one, run_id, MaskReason.NEAR_EDGE, {"action": "add", "outline_px": [[0, 0], [0, 9.0], [9, 9]]})
        detail = await refused(one, run_id, MaskReason.STALE, remove(1), version=4)
        assert "version 4" in detail and "newest is 1" in detail
        await refused(one, run_id, MaskReason.TOO_MANY_EDITS, *[remove(1)] * (MAX_EDITS + 1))
        about = await one.runs.edit_masks(run_id, change(remove(1), version=1), "me")
        assert about.version == 2, "a refused edit leaves no gap"
        await refused(one, run_id, MaskReason.STALE, remove(2), version=1)


async def test_only_a_run_that_measures_can_be_edited(tmp_path, engine):
    async with rig(tmp_path, engine) as one:
        with pytest.raises(RunError) as unknown:
            await one.runs.edit_masks("nope", change(remove(1)), "me")
        assert unknown.value.reason is RunReason.NOT_FOUND
        engine.hold = True
        run_id = (await one.runs.start(RECIPE)).run_id
        with pytest.raises(RunError) as early:
            await one.runs.edit_masks(run_id, change(remove(1)), "me")
        assert early.value.reason is RunReason.NOT_RUNNING
        await one.runs.stop(run_id)
        with pytest.raises(RunError) as late:
            await one.runs.edit_masks(run_id, change(remove(1)), "me")
        assert late.value.reason is RunReason.NOT_RUNNING


async def test_the_baseline_comes_first(tmp_path, engine):
    async with measuring(tmp_path, engine, frames=5) as (one, run_id):
        await refused(one, run_id, MaskReason.BASELINE, remove(1))
        await show(one, engine, BASELINE)
        assert (await one.runs.edit_masks(run_id, change(remove(1)), "me")).from_frame == 5 + BASELINE


async def test_an_engine_that_dies_over_it_leaves_the_masks_as_they_were(tmp_path, engine):
    async with measuring(tmp_path, engine) as (one, run_id):
        engine.refusal = EngineError(EngineReason.DIED, "the engine ended before it answered")
        with pytest.raises(EngineError):
            await one.runs.edit_masks(run_id, change(remove(1)), "me")
        engine.refusal = None
        await one.runs._setup.resume(one.runs._active)
        order = measure_order(engine.orders[-1])
        assert (order["mask_version"], order["operator"].particles, order["first_frame"]) == (1, 8, 30)
        await show(one, engine, 5)
        about = await one.runs.edit_masks(run_id, change(remove(2)), "me")
        assert about.version == 2
        await show(one, engine, 5)
        _, contrast, _, versions, _ = await stored_run(one, run_id)
    assert np.isfinite(contrast[-1, 0]) and np.isnan(contrast[-1, 1])
    assert [(each.version, each.from_frame) for each in versions] == [(1, 0), (2, 35)]


async def test_a_restarted_engine_gets_the_newest_masks_and_f0s_gaps(tmp_path, engine):
    async with measuring(tmp_path, engine) as (one, run_id):
        await one.runs.edit_masks(run_id, change(remove(1), again(one, 2)), "me")
        await show(one, engine, 3)  # the new one's baseline is under way
        await one.runs._setup.resume(one.runs._active)
        order = measure_order(engine.orders[-1])
        assert order["mask_version"] == 2 and order["operator"].particles == 7
        assert np.isnan(order["baseline"][0]).tolist() == [False] * 6 + [True]
        assert order["first_frame"] == 33
        await show(one, engine, 20)
        frames, contrast, _, versions, _ = await stored_run(one, run_id)
    np.testing.assert_array_equal(frames["frame"], range(53))
    assert np.isfinite(contrast[33:, 2:8]).all() and np.isfinite(contrast[-5:, 8]).all()
    assert [each.from_frame for each in versions] == [0, 30]


async def test_frames_an_engine_took_with_it_are_numbered_again_by_the_newest_masks(tmp_path, engine):
    """The reply came, the first batches by the new masks did not: their numbers are given again, by these masks."""
    async with measuring(tmp_path, engine) as (one, run_id):
        deliver, engine.on_batch = engine.on_batch, lambda batch: None
        engine.show(6)  # lost on the way
        about = await one.runs.edit_masks(run_id, change(remove(1)), "me")
        assert about.from_frame == 36
        engine.on_batch = deliver
        await one.runs._setup.resume(one.runs._active)
        await show(one, engine, 10)
        frames, contrast, _, versions, _ = await stored_run(one, run_id)
    np.testing.assert_array_equal(frames["frame"], range(40))
    assert np.isnan(contrast[30:, 0]).all() and np.isfinite(contrast[:30, 0]).all()
    assert [each.from_frame for each in versions] == [0, 30]


async def test_requests_at_once_are_carried_out_in_turn(tmp_path, engine):
    async with measuring(tmp_path, engine) as (one, run_id):
        wishes = [change(remove(n), version=1 if n == 3 else None) for n in (1, 2, 3)]
        answers = await asyncio.gather(
            *(one.runs.edit_masks(run_id, wish, "me") for wish in wishes), return_exceptions=True
        )
        assert [getattr(answer, "version", None) for answer in answers] == [2, 3, None]
        assert answers[2].reason is MaskReason.STALE
        assert one.runs._active.prepared.masks.positions.tolist() == [2, 3, 4, 5, 6, 7]


async def test_a_run_that_ends_meanwhile_is_said_to_have_ended(tmp_path, engine):
    async with measuring(tmp_path, engine) as (one, run_id):
        active = one.runs._active
        await active.drain()  # nothing behind this is digested any more
        await until(lambda: one.runs.current() is None)
        with pytest.raises(RunError) as caught:
            await active.behind(lambda recorder: recorder.frames)
        assert caught.value.reason is RunReason.NOT_RUNNING
        with pytest.raises(RunError):
            await one.runs.edit_masks(run_id, change(remove(1)), "me")
