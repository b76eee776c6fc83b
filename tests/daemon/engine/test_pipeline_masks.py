"""Masks changed between two frames of one pipeline."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.engine.detector import StepDetector
from daemon.engine.measures import NoiseModel, kept_columns
from daemon.engine.pipeline import Pipeline, PipelineSettings
from daemon.errors import MaskError, MaskReason
from daemon.mask_edits import EDITS
from daemon.photometry.compile import compile_operator
from daemon.photometry.edits import edit_masks
from daemon.photometry.masks import find_particles
from daemon.photometry.outlines import outlines_of
from daemon.recipe import MaskSettings
from hw.camera.contract import FrameStamp
from tests.scenes import PoissonScene

RATE_HZ = 100.0
SETTINGS = PipelineSettings(bit_depth=12, frame_rate_hz=RATE_HZ, baseline_s=0.095)
BASELINE = 10
"""Frames of it."""
MASKS = MaskSettings(min_area_px=30, background_px=48)


@pytest.fixture(scope="module")
def made():
    """(scene, masks, operator, function that edits and compiles)"""
    scene = PoissonScene(seed=8, height=200, width=260, particles=12)
    noise = NoiseModel(8.0, 7.0, 64.0)
    reference_dn = scene.mean_e() / noise.gain_e_per_dn + noise.dark_dn
    masks = find_particles(reference_dn, noise, 400, MASKS, None)
    level_e = (reference_dn - noise.dark_dn).astype(np.float32) * np.float32(noise.gain_e_per_dn)

    def edited(before, *edits):
        after, _ = edit_masks(before, EDITS.validate_python(list(edits)), reference_dn, noise, MASKS)
        return after, compile_operator(level_e, after.measured(), noise, 400)

    return scene, masks, compile_operator(level_e, masks, noise, 400), edited


@pytest.fixture(scope="module")
def frames(made):
    scene = made[0]
    mean = scene.mean_e()
    return [scene.expose(mean) for _ in range(60)]


def show(pipeline, frames, first):
    for n, frame in enumerate(frames, start=first):
        pipeline.add(frame, FrameStamp(n, 500.0 + n / RATE_HZ, 9.0 + n / RATE_HZ))
    return pipeline.take()


def changed(made, *edits):
    """(masks, operator, kept columns) after edits of the particles at these indices."""
    _, masks, _, edited = made
    after, operator = edited(masks, *edits)
    return after, operator, kept_columns(masks, after)


def replace_at(made, index):
    masks = made[1]
    outline_px = [list(point) for point in outlines_of(masks.labels)[index + 1]]
    return {"action": "replace", "particle_id": int(masks.particle_id[index]), "outline_px": outline_px}


def test_frames_clock_f0_and_drift_go_on(made, frames):
    after, operator, kept = changed(made, replace_at(made, 4))
    pipeline = Pipeline(made[2], SETTINGS)
    before = show(pipeline, frames[:20], 0)
    other = pipeline.with_masks(operator, kept, 2)
    batch = show(other, frames[20:30], 20)
    assert (before.mask_version, batch.mask_version) == (1, 2)
    np.testing.assert_array_equal(batch.frame, range(20, 30))
    np.testing.assert_allclose(batch.t_s, np.arange(20, 30) / RATE_HZ, atol=1e-9)
    assert not batch.flags.any(), "no gap, no jump"
    assert other.drift_px == pytest.approx(pipeline.drift_px, abs=0.1)
    np.testing.assert_array_equal(batch.baseline_flux_e[kept >= 0], before.baseline_flux_e[kept[kept >= 0]])
    assert batch.flux_e.shape == (10, after.count - 1) and np.isnan(batch.baseline_flux_e[kept < 0]).all()


def test_particles_that_stay_are_measured_alike(made, frames):
    """The one that was replaced by itself too: the same frames by either pipeline."""
    _, operator, kept = changed(made, replace_at(made, 4))
    one, two = Pipeline(made[2], SETTINGS), Pipeline(made[2], SETTINGS)
    show(one, frames[:20], 0), show(two, frames[:20], 0)
    with_old, with_new = show(one, frames[20:30], 20), show(two.with_masks(operator, kept, 2), frames[20:30], 20)
    stays = kept >= 0
    away = np.abs(with_new.flux_e[:, stays] - with_old.flux_e[:, kept[stays]]) / with_old.flux_sigma_e[:, kept[stays]]
    assert away.max() < 0.2
    np.testing.assert_allclose(with_new.flux_e[:, ~stays][:, 0], with_old.flux_e[:, 4], rtol=1e-3)


@pytest.mark.parametrize("every", [1, 4, 40])
def test_a_new_particle_has_its_own_baseline_however_frames_are_batched(made, frames, every):
    _, operator, kept = changed(made, replace_at(made, 4))
    pipeline = Pipeline(made[2], SETTINGS)
    show(pipeline, frames[:20], 0)
    pipeline = pipeline.with_masks(operator, kept, 2)
    batches = [show(pipeline, frames[n : n + every], n) for n in range(20, 60, every)]
    flux = np.concatenate([batch.flux_e[:, kept < 0] for batch in batches])[:, 0]
    last = batches[-1]
    assert last.baseline_end_frame == 20 + BASELINE
    assert last.baseline_flux_e[kept < 0][0] == pytest.approx(flux[:BASELINE].mean(dtype=float), rel=1e-6)
    assert np.isfinite(last.baseline_flux_e).all() and np.isfinite(last.baseline_layer_flux_e).all()


def test_steps_are_seen_across_the_change_and_of_new_particles_too(made):
    scene = made[0]
    quiet, bright = scene.mean_e(), scene.mean_e(brightness=np.where(np.arange(scene.count) == 3, 1.3, 1.0))
    pictures = [scene.expose(quiet if n < 160 else bright) for n in range(220)]
    truth = scene.labels()
    masks = made[1]
    at = {int(truth[round(y), round(x)]) - 1: i for i, (y, x) in enumerate(zip(masks.y_px, masks.x_px, strict=True))}
    stays, gone = at[3], at[5]
    for edit, expected in ((replace_at(made, gone), stays), (replace_at(made, stays), None)):
        after, operator, kept = changed(made, edit)
        pipeline = Pipeline(made[2], SETTINGS)
        show(pipeline, pictures[:60], 0)
        pipeline = pipeline.with_masks(operator, kept, 2)
        found = show(pipeline, pictures[60:], 60).detections
        column = int(np.flatnonzero(kept == expected)[0]) if expected is not None else len(kept) - 1
        assert {each.index for each in found} == {column}
        assert all(158 <= each.onset_frame <= 162 for each in found)
        assert after.positions[column] == (expected if expected is not None else after.count - 1)


def test_masks_cannot_change_while_the_baseline_is_measured(made, frames):
    _, operator, kept = changed(made, replace_at(made, 4))
    pipeline = Pipeline(made[2], SETTINGS)
    show(pipeline, frames[:5], 0)
    with pytest.raises(MaskError) as caught:
        pipeline.with_masks(operator, kept, 2)
    assert caught.value.reason is MaskReason.BASELINE
    assert show(pipeline, frames[5:20], 5).baseline_flux_e is not None, "the run goes on as it was"


def test_a_second_change_begins_the_baseline_of_the_first_anew(made, frames):
    _, masks, first, edited = made
    second, operator2 = edited(masks, replace_at(made, 4))
    third, operator3 = edited(second, {"action": "remove", "particle_id": int(masks.particle_id[0])})
    pipeline = Pipeline(first, SETTINGS)
    show(pipeline, frames[:20], 0)
    pipeline = pipeline.with_masks(operator2, kept_columns(masks, second), 2)
    show(pipeline, frames[20:25], 20)
    pipeline = pipeline.with_masks(operator3, kept_columns(second, third), 3)
    batch = show(pipeline, frames[25:45], 25)
    assert batch.mask_version == 3 and batch.baseline_end_frame == 25 + BASELINE
    assert np.isfinite(batch.baseline_flux_e).all() and len(batch.baseline_flux_e) == masks.count - 1


def test_the_detector_takes_over_what_stays():
    rng = np.random.default_rng(1)
    sigma = np.full((200, 3), 0.01)
    contrast = rng.normal(0, 0.01, (400, 3))
    contrast[300:, 2] += 0.1
    flags = np.zeros((200, 3), np.uint16)
    before = StepDetector(3, RATE_HZ, 1.0)
    before.add(np.arange(200), contrast[:200], sigma, flags)
    after = StepDetector(2, RATE_HZ, 1.0)
    after.go_on_from(before, np.array([2, -1]))
    found = after.add(np.arange(200, 400), contrast[200:, [2, 0]], sigma[:, :2], flags[:, :2])
    assert [each.index for each in found] == [0]
    assert abs(found[0].onset_frame - 300) <= 1 and found[0].magnitude == pytest.approx(0.1, abs=0.01)
