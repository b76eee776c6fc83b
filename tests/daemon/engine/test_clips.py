from __future__ import annotations

import numpy as np
import pytest

from daemon.engine.clips import AFTER, BEFORE, LOOK_S, MAX_WAITING, ClipKeeper, mask_boxes
from daemon.engine.collector import Collector
from daemon.engine.measures import Detection
from daemon.engine.operator import empty_operator
from daemon.engine.pipeline import Pipeline, PipelineSettings
from hw.camera.contract import FrameStamp, PixelFormat
from tests.measuring import operator_of
from tests.scenes import PoissonScene

RATE_HZ = 10.0


@pytest.fixture(scope="module")
def scene():
    return PoissonScene(seed=15, height=180, width=240, particles=8)


@pytest.fixture(scope="module")
def operator(scene):
    return operator_of(scene)


def found(index, common=0.0, onset_frame=7):
    return Detection(index, onset_frame, onset_frame + 1, -0.1, 0.01, 50.0, common)


def keeper_of(operator, fmt=PixelFormat.MONO16, bits=12):
    collector = Collector(operator, fmt, bits)
    return ClipKeeper(operator, collector, RATE_HZ), collector


@pytest.mark.parametrize("told_late", [1, 3, 6])
def test_a_clip_holds_the_looks_before_and_after_a_step(operator, scene, told_late):
    keeper, collector = keeper_of(operator)
    frames = [scene.frame() for _ in range(BEFORE + AFTER + 7)]
    for k, frame in enumerate(frames):
        if k == BEFORE + told_late:
            keeper.want([found(3, onset_frame=BEFORE + 1)])
        keeper.add(collector.open(frame), k, k * LOOK_S, (0.0, 0.0))
    (clip,) = keeper.take()
    assert (clip.index, clip.onset_frame) == (3, BEFORE + 1)
    np.testing.assert_allclose(clip.t_s, LOOK_S * np.arange(1, 1 + BEFORE + AFTER))
    height, width = clip.pixels.shape[1:]
    for k, look in enumerate(clip.pixels):
        part = slice(clip.y0_px, clip.y0_px + height), slice(clip.x0_px, clip.x0_px + width)
        np.testing.assert_array_equal(look, frames[k + 1][part])
    assert keeper.take() == []


def test_the_patch_holds_the_particle_and_follows_the_drift(operator, scene):
    boxes = mask_boxes(operator)
    for index in range(scene.count):
        rows, columns = np.nonzero(scene.labels() == index + 1)
        top, bottom, left, right = boxes[index]
        assert top < rows.min() and rows.max() < bottom - 1 and left < columns.min() and columns.max() < right - 1
    keeper, collector = keeper_of(operator)
    frame = collector.open(scene.frame((3.0, -2.0)))
    keeper.add(frame, 0, 0.0, (3.2, -1.8))
    keeper.want([found(0)])
    keeper.close()
    (clip,) = keeper.take()
    shape = clip.pixels.shape[1:]
    moved = frame.reshape(scene.height, scene.width)[clip.y0_px + 3 :, clip.x0_px - 2 :][: shape[0], : shape[1]]
    np.testing.assert_array_equal(clip.pixels[0], moved)


def test_patches_beyond_the_frame_take_its_nearest_pixels(operator, scene):
    keeper, collector = keeper_of(operator)
    keeper.add(collector.open(scene.frame()), 0, 0.0, (10_000.0, -10_000.0))
    keeper.want([found(0)])
    keeper.close()
    assert len(keeper.take()) == 1


def test_looks_come_no_faster_than_they_should(operator, scene):
    keeper, collector = keeper_of(operator)
    frame = collector.open(scene.frame())
    for k in range(100):
        keeper.add(frame, k, k * 0.01, (0.0, 0.0))
    keeper.add(frame, 101, 5.0, (np.nan, 0.0))  # nobody knows where the scene stood
    keeper.want([found(0)])
    keeper.close()
    (clip,) = keeper.take()
    np.testing.assert_allclose(clip.t_s, [0.0, 0.5])


@pytest.mark.parametrize("fmt", [PixelFormat.MONO8, PixelFormat.MONO12P, PixelFormat.MONO16])
def test_every_format_gives_its_own_values(operator, fmt):
    rng = np.random.default_rng(4)
    height, width = operator.shape.tolist()
    bits = {PixelFormat.MONO8: 8, PixelFormat.MONO12P: 12, PixelFormat.MONO16: 16}[fmt]
    image = rng.integers(0, 2**bits, (height, width)).astype(np.uint16)
    keeper, collector = keeper_of(operator, fmt, bits)
    if fmt is PixelFormat.MONO8:
        frame = image.astype(np.uint8)
    elif fmt is PixelFormat.MONO16:
        frame = image
    else:
        a, b = image.reshape(-1, 2).T
        frame = np.column_stack([a & 255, a >> 8 | (b & 15) << 4, b >> 4]).astype(np.uint8).reshape(-1)
    keeper.add(collector.open(frame), 0, 0.0, (0.0, 0.0))
    keeper.want([found(2)])
    keeper.close()
    (clip,) = keeper.take()
    part = image[clip.y0_px :, clip.x0_px :][: clip.pixels.shape[1], : clip.pixels.shape[2]]
    lost = 1 if bits == 16 else 0
    np.testing.assert_array_equal(clip.pixels[0] >> lost, part >> lost)


def test_common_steps_busy_particles_and_too_many_have_no_clip(scene):
    many = operator_of(PoissonScene(seed=16, height=400, width=500, particles=40, radius_px=(4, 7)))
    keeper, collector = keeper_of(many)
    keeper.want([found(0)])  # nothing was looked at yet
    keeper.add(collector.open(np.zeros((400, 500), np.uint16)), 0, 0.0, (0.0, 0.0))
    keeper.want([found(1, common=0.9), found(2), found(2)])
    keeper.want([found(index) for index in range(3, 40)])
    keeper.close()
    clips = keeper.take()
    assert len(clips) == MAX_WAITING
    assert [clip.index for clip in clips[:2]] == [2, 3]


def test_memory_is_bounded(operator, scene, monkeypatch):
    one_look = 2 * sum(int((b - a) * (d - c)) for a, b, c, d in mask_boxes(operator))
    for looks, kept in ((0, 0), (3, 3), (50, BEFORE)):
        monkeypatch.setattr("daemon.engine.clips.MAX_KEPT_BYTES", looks * one_look)
        keeper, collector = keeper_of(operator)
        for k in range(10):
            keeper.add(collector.open(scene.frame()), k, k * LOOK_S, (0.0, 0.0))
        keeper.want([found(0, onset_frame=99)])
        keeper.close()
        assert [len(clip.t_s) for clip in keeper.take()] == ([kept] if kept else [])


def test_an_operator_without_particles_keeps_nothing():
    keeper, collector = keeper_of(empty_operator((32, 48)))
    keeper.add(collector.open(np.zeros((32, 48), np.uint16)), 0, 0.0, (0.0, 0.0))
    assert keeper.take() == []


def test_a_step_in_the_pipeline_brings_its_clip(operator, scene):
    """A particle darkens by a fifth half way: looks before show it bright, looks after dark."""
    pipeline = Pipeline(operator, PipelineSettings(bit_depth=12, frame_rate_hz=RATE_HZ, baseline_s=1.0))
    dark = np.ones(scene.count)
    dark[5] = 0.8
    before, after, clips = scene.mean_e(), scene.mean_e(brightness=dark), []
    for n in range(160):
        frame = scene.expose(before if n < 80 else after)
        pipeline.add(frame, FrameStamp(n, n / RATE_HZ, n / RATE_HZ))
        if n % 20 == 19:
            clips += pipeline.take().clips
    (clip,) = [clip for clip in clips if clip.index == 5]
    assert abs(clip.onset_frame - 80) <= 2
    level = clip.pixels.astype(float).mean(axis=(1, 2)) - scene.dark_dn
    was = clip.t_s < 8.0
    assert was.sum() >= BEFORE - 1 and (~was).sum() >= AFTER
    assert level[was].min() > level[~was].max()
