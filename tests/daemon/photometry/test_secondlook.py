from __future__ import annotations

import numpy as np
import pytest

from daemon.photometry.secondlook import MOST_CONTRAST, STEP_SIGMAS, SecondLook, judged

SIGMA, P, FRAMES = 1e-3, 20, 2000


def noise(frames: int = FRAMES, particles: int = P, seed: int = 5) -> np.ndarray:
    return SIGMA * np.random.default_rng(seed).standard_normal((frames, particles))


def looked(contrast: np.ndarray, onsets=None, every_s: float = 0.01, t_s=None) -> list:
    """All that is found in a movie, the first time it is found; what is found is known from then on."""
    second, known, found = SecondLook(contrast.shape[1]), dict(onsets or {}), []
    times = every_s * np.arange(len(contrast)) if t_s is None else t_s
    for k, (time_s, row) in enumerate(zip(times, contrast, strict=True)):
        if second.add(k, float(time_s), 1.0 + row):
            for detection, onset_t_s in second.look(k, 1.0, known):
                found.append((detection, onset_t_s))
                known[detection.index] = [*known.get(detection.index, []), onset_t_s]
    return found


def test_a_step_of_one_sigma_of_a_frame_is_seen_seconds_later():
    contrast = noise()
    contrast += 2e-3 * np.linspace(-1, 1, FRAMES)[:, None] ** 2
    contrast[1200:, 4] += 1.3 * SIGMA
    ((detection, onset_t_s),) = looked(contrast)
    assert detection.index == 4 and onset_t_s == pytest.approx(12.0, abs=0.25)
    assert detection.magnitude == pytest.approx(1.3 * SIGMA, abs=4 * detection.magnitude_sigma)
    assert detection.score >= STEP_SIGMAS**2 / 2
    assert 1300 < detection.detected_frame < 1500 and abs(detection.onset_frame - 1200) <= 25


def test_noise_and_smooth_changes_are_none():
    contrast = noise(6000)
    for index, pace_s in enumerate((1.0, 2.0, 3.0, 5.0, 10.0, 30.0)):
        contrast[:, index] += 0.1 / (1 + np.exp(-(0.01 * np.arange(6000) - 30.0) / pace_s))
    assert looked(contrast) == []


def test_known_steps_are_fitted_beside_and_not_found_again():
    contrast = noise()
    contrast[1000:, 3] += 5 * SIGMA
    contrast[1300:, 3] -= 2 * SIGMA
    ((detection, onset_t_s),) = looked(contrast, {3: [10.0]})
    assert onset_t_s == pytest.approx(13.0, abs=0.15)
    assert detection.magnitude == pytest.approx(-2 * SIGMA, abs=4 * detection.magnitude_sigma)
    assert looked(contrast, {3: [10.0, 13.0]}) == []


def test_what_many_do_and_what_is_large_is_left_to_others():
    contrast = noise()
    contrast[1200:, : P // 2] += 2 * SIGMA
    assert looked(contrast) == []
    contrast = noise()
    contrast[1200:, 2] += 2 * MOST_CONTRAST
    assert looked(contrast) == []


def test_a_slope_over_lost_frames_is_no_step():
    t_s = 0.01 * np.arange(FRAMES + 300)
    kept = np.r_[:1200, 1500 : FRAMES + 300]
    contrast = noise(len(kept)) + 2e-4 * t_s[kept, None]
    assert looked(contrast, t_s=t_s[kept]) == []


def test_slow_frames_few_frames_and_unknown_values_tell_nothing():
    contrast = noise()
    contrast[1200:, 4] += 2 * SIGMA
    assert looked(contrast, every_s=0.1) == [], "a tenth of a second holds one frame"
    assert looked(contrast[:400]) == []
    contrast[:, 4] = np.nan
    assert looked(contrast) == [] and looked(np.zeros((FRAMES, 0))) == []
    assert looked(np.zeros((FRAMES, 3))) == [], "without any noise nothing is above it"


def test_particles_that_come_later_are_watched_from_then_on():
    second, contrast, found = SecondLook(2), noise(), []
    contrast[1200:, 1] += 2 * SIGMA
    contrast[1700:, 5] += 2 * SIGMA
    known: dict[int, list[float]] = {}
    for k, row in enumerate(contrast):
        if k == 600:
            second.grow(P)
        if second.add(k, 0.01 * k, 1.0 + (row if k >= 600 else row[:2])):
            for detection, onset_t_s in second.look(k, 1.0, known):
                found.append(detection.index)
                known.setdefault(detection.index, []).append(onset_t_s)
    assert found == [1, 5]


def test_steps_are_judged_as_plain_least_squares_would():
    t_s, place = 0.1 * np.arange(60), np.array([40])
    value = noise(60, 3).T + 0.004 * (np.arange(60) >= 40)
    z, size, clear = judged(t_s, value, np.full((1, 60), 10.0), np.zeros((1, 60, 0)), place)
    time = np.linspace(-1, 1, 60)
    design = np.stack([np.ones(60), time, time**2, np.arange(60) >= 40], axis=1)
    plain = np.linalg.lstsq(design, value.T, rcond=None)[0][-1]
    np.testing.assert_allclose(size[:, 0], plain, rtol=1e-5)
    weighted, _, _ = judged(t_s, value, np.full((3, 60), 10.0), np.zeros((3, 60, 2)), place)
    np.testing.assert_allclose(weighted, z, rtol=1e-5)
    assert clear.all()
