from __future__ import annotations

import numpy as np
import pytest

from daemon.engine.detector import StepDetector
from daemon.engine.measures import ParticleFlag

SIGMA = 1e-3


def noise(frames, particles, seed=0):
    return np.random.default_rng(seed).normal(0, SIGMA, (frames, particles))


def feed(detector, contrast, flags=None, batch=7, first_frame=0, frame=None):
    """All detections from `contrast` (N, P), given in batches."""
    flags = np.zeros(contrast.shape, np.uint16) if flags is None else flags
    frame = first_frame + np.arange(len(contrast)) if frame is None else frame
    detections = []
    for start in range(0, len(contrast), batch):
        part = slice(start, start + batch)
        sigma = np.full(contrast[part].shape, SIGMA)
        detections += detector.add(frame[part], contrast[part], sigma, flags[part])
    return detections


def test_a_step_with_all_that_is_said_of_it():
    contrast = noise(1_000, 12)
    contrast[900:, 5] += 0.02
    detections = feed(StepDetector(12, 100.0, 1.0), contrast, first_frame=5_000)
    assert len(detections) == 1
    found = detections[0]
    assert (found.index, found.onset_frame, found.detected_frame) == (5, 5_900, 5_902)
    assert found.magnitude == pytest.approx(0.02, abs=4 * found.magnitude_sigma)
    assert 0 < found.magnitude_sigma < 2 * SIGMA
    assert found.score > 15
    assert found.common_fraction == pytest.approx(1 / 12)


def test_batches_do_not_matter():
    contrast = noise(900, 6)
    contrast[700:, 2] -= 6 * SIGMA
    contrast[750:, 4] += 9 * SIGMA
    whole = feed(StepDetector(6, 100.0, 1.0), contrast, batch=900)
    assert [found.index for found in whole] == [2, 4]
    assert feed(StepDetector(6, 100.0, 1.0), contrast, batch=1) == whole
    assert feed(StepDetector(6, 100.0, 1.0), contrast.astype(np.float32), batch=13) != []


def test_what_many_particles_do_at_once_is_marked():
    contrast = noise(900, 12)
    contrast[800:] += 0.03 * (1 + np.arange(12) / 10)
    detections = feed(StepDetector(12, 100.0, 1.0), contrast)
    assert len(detections) == 12
    assert min(found.common_fraction for found in detections) > 0.9
    assert {found.onset_frame for found in detections} == {800}


def test_steps_apart_in_time_are_not_common():
    contrast = noise(900, 12)
    for i in range(12):
        contrast[600 + 20 * i :, i] += 0.03
    detections = feed(StepDetector(12, 100.0, 1.0), contrast)
    assert len(detections) == 12
    assert max(found.common_fraction for found in detections) == pytest.approx(1 / 12)


def test_saturated_and_off_frame_values_are_left_out():
    contrast = noise(900, 4)
    contrast[600:, :] += 0.1
    flags = np.zeros(contrast.shape, np.uint16)
    flags[600:, 0] = ParticleFlag.SATURATED
    flags[600:, 1] = ParticleFlag.EDGE
    flags[600:, 2] = ParticleFlag.BAD_RING
    detections = feed(StepDetector(4, 100.0, 1.0), contrast, flags)
    assert sorted(found.index for found in detections) == [2, 3]


def test_lost_frames_are_frames_without_values():
    """A ramp goes on while frames are lost; the line knows and raises nothing. A step is dated right."""
    t = np.arange(1_200)
    contrast = noise(1_200, 3) + 0.0005 * t[:, None]
    contrast[1_100:, 1] += 0.02
    kept = (t < 900) | (t >= 960)
    detections = feed(StepDetector(3, 100.0, 1.0), contrast[kept], frame=t[kept])
    assert [(found.index, found.onset_frame) for found in detections] == [(1, 1_100)]


def test_after_a_long_loss_everything_starts_anew():
    contrast = noise(1_200, 3)
    contrast[600:] += 0.2
    frame = np.arange(1_200) + np.where(np.arange(1_200) >= 600, 40_000, 0)
    contrast[1_100:, 2] -= 0.05
    detections = feed(StepDetector(3, 100.0, 1.0), contrast, frame=frame)
    assert [(found.index, found.onset_frame) for found in detections] == [(2, 41_100)]


def test_reset_forgets():
    contrast = noise(600, 3)
    detector = StepDetector(3, 100.0, 1.0)
    first = feed(detector, contrast)
    detector.reset()
    assert feed(detector, contrast + 0.5) == first == []


def test_nothing_but_nan():
    assert feed(StepDetector(3, 100.0, 1.0), np.full((50, 3), np.nan)) == []


def test_no_frames_and_no_particles():
    detector = StepDetector(3, 100.0, 1.0)
    assert detector.add(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3), np.uint16)) == []
    assert feed(StepDetector(0, 100.0, 1.0), np.zeros((5, 0))) == []


def test_noise_raises_nothing():
    """At one false alarm an instrument-day, a minute of 80 particles raises none."""
    detector = StepDetector(80, 100.0, 1.0)
    assert feed(detector, noise(6_000, 80, seed=4), batch=50) == []


def test_lost_frames_are_known_by_their_times():
    """A camera that lost frames counts on: only the times tell that a trace moved on meanwhile."""
    t = np.arange(1_200)
    contrast = noise(1_200, 3) + 0.0005 * t[:, None]
    contrast[1_100:, 1] += 0.02
    kept = (t < 900) | (t >= 960)
    shown, t_s = contrast[kept], 0.01 * t[kept]
    sigma, flags = np.full(shown.shape, SIGMA), np.zeros(shown.shape, np.uint16)
    detector = StepDetector(3, 100.0, 1.0)
    detections = []
    for start in range(0, len(shown), 7):
        part = slice(start, start + 7)
        detections += detector.add(np.arange(len(shown))[part], shown[part], sigma[part], flags[part], t_s[part])
    assert [(found.index, found.onset_frame) for found in detections] == [(1, 1_040)]
    blind = StepDetector(3, 100.0, 1.0).add(np.arange(len(shown)), shown, sigma, flags)
    assert {found.onset_frame for found in blind} >= {900, 1_040}


def test_steady_times_change_nothing_however_fast_they_run():
    contrast = noise(900, 4)
    contrast[700:, 2] += 0.02
    frame, sigma, flags = np.arange(900), np.full(contrast.shape, SIGMA), np.zeros(contrast.shape, np.uint16)
    plain = StepDetector(4, 100.0, 1.0).add(frame, contrast, sigma, flags)
    jittered = 15.0 * frame + np.random.default_rng(2).uniform(0, 5, 900)
    assert StepDetector(4, 100.0, 1.0).add(frame, contrast, sigma, flags, jittered) == plain != []
