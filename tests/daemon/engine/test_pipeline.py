from dataclasses import fields, replace

import numpy as np
import pytest

from daemon.engine.measures import FrameFlag, MeasureBatch
from daemon.engine.pipeline import JumpWatch, Pipeline, PipelineSettings
from hw.camera.contract import FrameStamp
from tests.measuring import operator_of
from tests.scenes import PoissonScene

RATE_HZ = 100.0
SETTINGS = PipelineSettings(bit_depth=12, frame_rate_hz=RATE_HZ, baseline_s=0.1)
PER_FRAME = ("frame", "block_id", "t_s", "host_t_s", "drift_y_px", "illumination", "flux_e", "flags")


@pytest.fixture(scope="module")
def scene():
    return PoissonScene(seed=5, height=200, width=260, particles=12)


@pytest.fixture(scope="module")
def operator(scene):
    return operator_of(scene)


@pytest.fixture(scope="module")
def still(scene):
    """60 noisy frames of the still scene."""
    mean = scene.mean_e()
    return [scene.expose(mean) for _ in range(60)]


def stamp(n, device_t_s=None, host_t_s=None):
    t_s = n / RATE_HZ
    return FrameStamp(n, 500.0 + t_s if device_t_s is None else device_t_s, 9.0 + t_s if host_t_s is None else host_t_s)


def measured(pipeline, frames, stamps=None, every=10**9):
    """Batches of `every` frames and the rest."""
    batches = []
    for n, frame in enumerate(frames):
        pipeline.add(frame, stamps[n] if stamps else stamp(n))
        if (n + 1) % every == 0:
            batches.append(pipeline.take())
    batches.append(pipeline.take())
    return [batch for batch in batches if batch is not None]


def joined(batches, name):
    return np.concatenate([getattr(batch, name) for batch in batches])


def flags_of(batch):
    return [FrameFlag(int(flag)) for flag in batch.flags]


def test_frames_are_numbered_and_dated_from_the_first(operator, still):
    (batch,) = measured(Pipeline(operator, SETTINGS), still[:8])
    np.testing.assert_array_equal(batch.frame, range(8))
    np.testing.assert_array_equal(batch.block_id, range(8))
    np.testing.assert_allclose(batch.t_s, np.arange(8) / RATE_HZ, atol=1e-9)
    np.testing.assert_allclose(batch.host_t_s, 9.0 + np.arange(8) / RATE_HZ)
    assert batch.camera_t0_s == 500.0
    assert not batch.flags.any() and batch.flags.dtype == np.uint32
    assert np.isfinite(batch.flux_e).all() and batch.flux_e.shape == (8, 12)
    assert np.isfinite(batch.layer_flux_e).all() and batch.layer_flux_e.shape == (8, 12, 4)


def test_nothing_added_is_nothing_to_take(operator, still):
    pipeline = Pipeline(operator, SETTINGS)
    assert pipeline.take() is None and pipeline.t0_s is None
    pipeline.add(still[0], stamp(0))
    assert len(pipeline) == 1 and len(pipeline.take()) == 1
    assert pipeline.take() is None and len(pipeline) == 0


@pytest.mark.parametrize("every", [1, 7, 32])
def test_batch_sizes_change_nothing(scene, operator, still, every):
    brighter = np.ones(scene.count)
    brighter[3] = 1.25
    mean = scene.mean_e(brightness=brighter)
    frames = [*still[:40], *(scene.expose(mean) for _ in range(40))]
    once = measured(Pipeline(operator, SETTINGS), frames)
    often = measured(Pipeline(operator, SETTINGS), frames, every=every)
    assert len(once) == 1 and len(often) == -(-80 // every)
    for field in fields(MeasureBatch):
        scalar = field.name in ("camera_t0_s", "mask_version")
        if field.name != "detections" and not scalar and not field.name.startswith("baseline"):
            np.testing.assert_array_equal(joined(often, field.name), getattr(once[0], field.name))
    np.testing.assert_array_equal(often[-1].baseline_flux_e, once[0].baseline_flux_e)
    assert once[0].detections, "the step of a quarter was not seen"
    assert [d for batch in often for d in batch.detections] == once[0].detections
    assert {d.index for d in once[0].detections} == {3}
    assert all(38 <= d.onset_frame <= 42 for d in once[0].detections)


@pytest.mark.parametrize(("pixels", "flag"), [(0, FrameFlag.CONSTANT), (4095, FrameFlag.CONSTANT)])
def test_a_dead_or_white_camera_is_flagged_and_not_measured(operator, still, pixels, flag):
    frames = [still[0], np.full_like(still[0], pixels), still[1]]
    (batch,) = measured(Pipeline(operator, SETTINGS), frames)
    assert flags_of(batch) == [0, flag, 0]
    for name in ("flux_e", "flux_sigma_e", "layer_flux_e", "centroid_y_px"):
        assert np.isnan(getattr(batch, name)[1]).all()
        assert np.isfinite(getattr(batch, name)[[0, 2]]).all()
    assert np.isnan([batch.drift_y_px[1], batch.illumination[1], batch.focus[1]]).all()


def test_a_repeated_frame_is_flagged_and_not_measured(operator, still):
    (batch,) = measured(Pipeline(operator, SETTINGS), [still[0], still[0], still[0], still[1]])
    assert flags_of(batch) == [0, FrameFlag.REPEATED, FrameFlag.REPEATED, 0]
    assert np.isnan(batch.flux_e[1:3]).all() and np.isfinite(batch.flux_e[[0, 3]]).all()


def test_a_gap_in_the_block_ids_is_flagged_on_the_frame_behind_it(operator, still):
    blocks = [10, 11, 14, 15, 3]  # the last: a camera that counted from new
    stamps = [FrameStamp(block, 0.01 * n, 0.01 * n) for n, block in enumerate(blocks)]
    (batch,) = measured(Pipeline(operator, SETTINGS), still[:5], stamps)
    assert flags_of(batch) == [0, 0, FrameFlag.GAP_BEFORE, 0, FrameFlag.GAP_BEFORE]
    np.testing.assert_array_equal(batch.frame, range(5))


def test_a_camera_clock_that_begins_anew_is_spliced_on_by_the_hosts(operator, still):
    device = [100.0, 100.01, 100.02, 0.5, 0.51, 0.52]
    host = [7.0, 7.01, 7.02, 9.02, 9.03, 9.04]
    pipeline = Pipeline(operator, SETTINGS)
    stamps = [FrameStamp(n, *pair) for n, pair in enumerate(zip(device, host, strict=True))]
    first, second = measured(pipeline, still[:6], stamps, every=3)
    np.testing.assert_allclose(first.t_s, [0, 0.01, 0.02], atol=1e-9)
    np.testing.assert_allclose(second.t_s, [2.02, 2.03, 2.04], atol=1e-9)
    assert first.camera_t0_s == 100.0
    assert second.camera_t0_s == pytest.approx(0.5 - 2.02)  # cell rows of the same clock are dated by it


def run_time(operator, still, device, host, rate, **resumed):
    pipeline = Pipeline(operator, replace(SETTINGS, clock_rate=rate), **resumed)
    stamps = [FrameStamp(n, *pair) for n, pair in enumerate(zip(device, host, strict=True))]
    (batch,) = measured(pipeline, still[: len(stamps)], stamps)
    return batch.t_s, batch.camera_t0_s


@pytest.mark.parametrize("rate", [1.0, 60.0])
@pytest.mark.parametrize(
    "back_s, what",
    [
        (12.0, "power-cycled for ten minutes, 7 s further than it was when it went"),
        (259_200.0, "a spare one, three days in service"),
        (0.5, "begun anew"),
    ],
)
def test_a_clock_that_leaps_is_spliced_on_by_the_hosts(operator, still, rate, back_s, what):
    host = np.array([7.0, 7.01, 7.02, 607.02, 607.03, 607.04])
    device = rate * np.array([4.98, 4.99, 5.0, back_s, back_s + 0.01, back_s + 0.02])
    t_s, t0_s = run_time(operator, still, device, host, rate)
    np.testing.assert_allclose(t_s, rate * (host - 7.0), atol=1e-6)
    assert t0_s == pytest.approx(rate * (back_s - 600.02))


def test_a_clock_that_leaps_while_the_engine_restarts_is_spliced_on_too(operator, still):
    resumed = {"first_frame": 30, "first_t_s": 500.0, "last_stamp": (0.29, 9.29)}
    t_s, _ = run_time(operator, still, [9000.0, 9000.01], [11.29, 11.30], 1.0, **resumed)
    np.testing.assert_allclose(t_s, [2.29, 2.30], atol=1e-9)
    t_s, _ = run_time(operator, still, [502.29, 502.30], [11.31, 11.32], 1.0, **resumed)
    np.testing.assert_allclose(t_s, [2.29, 2.30], atol=1e-9)  # the camera's own


@pytest.mark.parametrize("held_up_s", [0.5, 4.9])
@pytest.mark.parametrize("rate", [1.0, 60.0])
def test_a_host_that_is_held_up_moves_no_time(operator, still, rate, held_up_s):
    device = np.arange(10) * 0.01
    host = 7.0 + np.where((device > 0.025) & (device < 0.075), 0.07 + held_up_s, device)
    host[8:] += held_up_s
    device[8:] += held_up_s  # what no buffer held is lost
    t_s, t0_s = run_time(operator, still, 50.0 + rate * device, host, rate)
    np.testing.assert_allclose(t_s, rate * device, atol=1e-6)
    assert t0_s == 50.0


def test_frames_at_a_pace_of_their_own_keep_their_times(operator, still):
    device = [0.0, 60.0, 120.0, 4000.0]
    t_s, t0_s = run_time(operator, still, device, [7.0, 7.01, 7.02, 7.03], None)
    np.testing.assert_allclose(t_s, device)
    assert t0_s == 0.0


def test_run_time_rises_strictly_whatever_the_clocks_do(operator, still):
    stamps = [FrameStamp(n, 5.0, 3.0) for n in range(4)]
    (batch,) = measured(Pipeline(operator, SETTINGS), still[:4], stamps)
    assert (np.diff(batch.t_s) > 0).all()


def test_f0_is_the_mean_of_the_baselines_frames(operator, still):
    (batch,) = measured(Pipeline(operator, SETTINGS), still[:30])
    within = batch.t_s <= SETTINGS.baseline_s
    assert within.sum() in (10, 11)  # 0.1 s at 100 a second, the edge as rounding has it
    np.testing.assert_allclose(batch.baseline_flux_e, batch.flux_e[within].mean(axis=0, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(batch.baseline_layer_flux_e, batch.layer_flux_e[within].mean(axis=0, dtype=float), 1e-6)


def test_a_slow_camera_has_five_frames_of_baseline_at_least(operator, still):
    stamps = [FrameStamp(n, 10.0 * n, 10.0 * n) for n in range(8)]
    batches = measured(Pipeline(operator, SETTINGS), still[:8], stamps, every=1)
    assert [batch.baseline_flux_e is not None for batch in batches] == [False] * 5 + [True] * 3
    flux = joined(batches, "flux_e")[:5]
    np.testing.assert_allclose(batches[-1].baseline_flux_e, flux.mean(axis=0, dtype=float), rtol=1e-6)


def test_unmeasured_frames_do_not_count_for_the_baseline(operator, still):
    stamps = [FrameStamp(n, 10.0 * n, 10.0 * n) for n in range(8)]
    frames = [still[0], still[0], *still[1:7]]
    batches = measured(Pipeline(operator, SETTINGS), frames, stamps, every=1)
    assert [batch.baseline_flux_e is not None for batch in batches] == [False] * 6 + [True] * 2
    assert np.isfinite(batches[-1].baseline_flux_e).all()


def test_a_run_that_ends_before_its_baseline_settles_for_what_there_is(operator, still):
    pipeline = Pipeline(operator, replace(SETTINGS, baseline_s=3600.0))
    assert measured(pipeline, still[:20])[0].baseline_flux_e is None
    pipeline.add(still[20], stamp(20))
    pipeline.close_baseline()
    batch = pipeline.take()
    assert np.isfinite(batch.baseline_flux_e).all()
    assert batch.detections == []


def test_closing_a_baseline_without_frames_is_harmless(operator):
    pipeline = Pipeline(operator, SETTINGS)
    pipeline.close_baseline()
    assert pipeline.take() is None


def test_an_interrupted_run_goes_on_with_its_baseline_numbers_and_times(operator, still):
    (before,) = measured(Pipeline(operator, SETTINGS), still[:30])
    baseline = (before.baseline_flux_e * 2, before.baseline_layer_flux_e)
    pipeline = Pipeline(operator, SETTINGS, baseline, first_frame=30, first_t_s=before.camera_t0_s)
    (after,) = measured(pipeline, still[30:40], [stamp(n) for n in range(35, 45)])
    np.testing.assert_array_equal(after.frame, range(30, 40))
    np.testing.assert_allclose(after.t_s, np.arange(35, 45) / RATE_HZ, atol=1e-9)
    np.testing.assert_array_equal(after.baseline_flux_e, baseline[0])


def test_a_run_interrupted_by_a_restart_of_the_camera_too_goes_on_in_time(operator, still):
    last = (0.29, 9.29)
    pipeline = Pipeline(operator, SETTINGS, first_frame=30, first_t_s=500.0, last_stamp=last)
    stamps = [FrameStamp(n, 3.0 + n / RATE_HZ, 11.29 + n / RATE_HZ) for n in range(4)]
    (after,) = measured(pipeline, still[:4], stamps)
    np.testing.assert_allclose(after.t_s, 2.29 + np.arange(4) / RATE_HZ, atol=1e-9)
    assert flags_of(after) == [FrameFlag.GAP_BEFORE, 0, 0, 0]  # whatever came meanwhile is lost


def test_illumination_steps_and_moves_of_the_scene_are_flagged_once(scene, operator, still):
    mean = scene.mean_e()
    brighter = [scene.expose(1.05 * mean) for _ in range(10)]
    moved = scene.mean_e(drift=(2.5, -1.5)) * 1.05
    frames = [*still[:20], *brighter, *(scene.expose(moved) for _ in range(10))]
    (batch,) = measured(Pipeline(operator, SETTINGS), frames)
    assert np.flatnonzero(batch.flags & FrameFlag.ILLUMINATION_STEP).tolist() == [20]
    assert np.flatnonzero(batch.flags & FrameFlag.DRIFT_JUMP).tolist() == [30]
    assert batch.drift_y_px[-1] == pytest.approx(2.5, abs=0.05)
    assert batch.drift_x_px[-1] == pytest.approx(-1.5, abs=0.05)
    assert batch.illumination[25] == pytest.approx(1.05, abs=2e-3)


def test_another_scene_is_not_mistaken_for_drift(scene, operator, still):
    other = PoissonScene(seed=77, height=scene.height, width=scene.width, particles=12)
    (batch,) = measured(Pipeline(operator, SETTINGS), [still[0], other.frame(), still[1]])
    assert batch.flags[1] & FrameFlag.DRIFT_UNKNOWN
    assert not batch.flags[2] & FrameFlag.DRIFT_UNKNOWN
    assert np.isnan([batch.drift_y_px[1], batch.drift_x_px[1], batch.focus[1]]).all()
    assert np.isfinite(batch.drift_y_px[[0, 2]]).all()


def noise_frames(scene, mean_dn, count):
    """What a camera shows whose light is gone: `mean_dn`, and its read noise."""
    rng = np.random.default_rng(3)
    size = (count, scene.height, scene.width)
    return list(np.rint(rng.normal(mean_dn, 2.0, size)).astype(np.uint16))


def other_frames(scene, count):
    other = PoissonScene(seed=77, height=scene.height, width=scene.width, particles=12)
    return [other.frame() for _ in range(count)]


BETWEEN = {
    "darkness": lambda scene: noise_frames(scene, scene.dark_dn, 12),
    "below the dark level": lambda scene: noise_frames(scene, scene.dark_dn - 1.0, 12),
    "stray light": lambda scene: noise_frames(scene, scene.dark_dn + 0.8, 12),
    "even light": lambda scene: noise_frames(scene, 800.0, 12),
    "another scene": lambda scene: other_frames(scene, 12),
}


@pytest.mark.parametrize("kind", BETWEEN)
def test_frames_that_do_not_show_the_scene_are_not_measured_and_leave_no_trace(scene, operator, still, kind):
    shown = [*range(30), *range(42, 72)]
    between = BETWEEN[kind](scene)
    (batch,) = measured(Pipeline(operator, SETTINGS), [*still[:30], *between, *still[30:]])
    unseen = slice(30, 42)
    for name in ("flux_e", "flux_sigma_e", "layer_flux_e", "axial_flux_e", "centroid_y_px", "drift_y_px", "focus"):
        assert np.isnan(getattr(batch, name)[unseen]).all(), name
    assert not batch.detections
    (alone,) = measured(Pipeline(operator, SETTINGS), still, [stamp(n) for n in shown])
    for name in ("flux_e", "flux_sigma_e", "layer_flux_e", "drift_y_px", "illumination"):
        np.testing.assert_array_equal(getattr(batch, name)[shown], getattr(alone, name))


@pytest.mark.parametrize("kind", ["darkness", "below the dark level", "stray light"])
def test_light_that_goes_and_comes_back_is_flagged_as_a_step_each_time(scene, operator, still, kind):
    (batch,) = measured(Pipeline(operator, SETTINGS), [*still[:30], *BETWEEN[kind](scene), *still[30:40]])
    dark = (batch.flags & FrameFlag.DARK) != 0
    assert np.flatnonzero(dark).tolist() == list(range(30, 42))
    assert np.flatnonzero(batch.flags & FrameFlag.ILLUMINATION_STEP).tolist() == [30, 42]
    assert np.isnan(batch.illumination[dark]).all() and np.isfinite(batch.illumination[~dark]).all()


def test_a_baseline_is_measured_in_frames_that_show_the_scene(scene, operator, still):
    hidden = [*BETWEEN["darkness"](scene), *BETWEEN["even light"](scene)]
    (batch,) = measured(Pipeline(operator, SETTINGS), [*hidden, *still[:30]])
    within = slice(len(hidden), batch.baseline_end_frame)
    assert batch.baseline_end_frame == len(hidden) + SETTINGS.baseline_min_frames
    np.testing.assert_allclose(batch.baseline_flux_e, batch.flux_e[within].mean(axis=0, dtype=float), rtol=1e-6)


def test_darkness_is_told_from_light_without_anything_to_register(scene, operator, still):
    pipeline = Pipeline(operator, SETTINGS)
    pipeline._registration.usable = False
    (batch,) = measured(pipeline, [*still[:5], *BETWEEN["darkness"](scene)[:5], *still[5:10]])
    assert np.isnan(batch.flux_e[5:10]).all() and np.isfinite(np.delete(batch.flux_e, range(5, 10), 0)).all()
    assert not batch.flags[:5].any() and (batch.flags[5:10] & FrameFlag.DARK).all()


def test_dark_and_flat_maps_replace_the_scalar_calibration(scene, operator, still):
    rng = np.random.default_rng(1)
    flat = rng.uniform(0.7, 1.3, still[0].shape).astype(np.float32)
    dark = rng.uniform(40, 200, still[0].shape).astype(np.float32)
    (clean,) = measured(Pipeline(operator, SETTINGS), still[:10])
    uneven = [np.rint((frame - 64.0) * flat + dark).astype(np.uint16) for frame in still[:10]]
    (mapped,) = measured(Pipeline(operator, replace(SETTINGS, dark_map=dark, flat_map=flat)), uneven)
    np.testing.assert_allclose(mapped.flux_e, clean.flux_e, rtol=2e-3)


def test_maps_follow_the_drift_on_the_sensor(scene, operator):
    """Dark levels are constants of the sums under one whole-pixel shift only, and gains belong to the sensor."""
    rng = np.random.default_rng(2)
    flat = rng.uniform(0.7, 1.3, operator.shape).astype(np.float32)
    dark = rng.uniform(40, 200, operator.shape).astype(np.float32)
    frames = [scene.frame(drift=shift) for shift in [(0.0, 0.0), (0.2, 0.1), (3.0, -2.0), (3.1, -2.2), (0.0, 0.0)]]
    (clean,) = measured(Pipeline(operator, SETTINGS), frames)
    assert clean.drift_y_px[2] == pytest.approx(3.0, abs=0.05)
    for maps in ({"dark_map": dark}, {"flat_map": flat}, {"dark_map": dark, "flat_map": flat}):
        own_flat, own_dark = maps.get("flat_map", np.float32(1.0)), maps.get("dark_map", np.float32(64.0))
        uneven = [np.rint((frame - 64.0) * own_flat + own_dark).astype(np.uint16) for frame in frames]
        (mapped,) = measured(Pipeline(operator, replace(SETTINGS, **maps)), uneven)
        np.testing.assert_allclose(mapped.flux_e, clean.flux_e, rtol=2e-3)
        np.testing.assert_allclose(mapped.drift_y_px, clean.drift_y_px, atol=2e-3)


def test_the_jump_watch_tells_steps_from_noise_walks_gaps_and_nan():
    rng = np.random.default_rng(0)
    watch = JumpWatch(0.003)
    values = 1.0 + rng.normal(0, 0.0003, 2000) + np.linspace(0, 0.02, 2000)
    assert not any(watch(value, after_gap=False) for value in values)
    assert not watch(float("nan"), after_gap=False)
    level = values[-1]
    assert not watch(level + 0.01, after_gap=True)
    assert watch(level + 0.02, after_gap=False)
    assert not watch(level + 0.02, after_gap=False)  # it is the new level
