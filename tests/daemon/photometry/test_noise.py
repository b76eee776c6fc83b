import numpy as np
import pytest

from daemon.errors import RecordingError, RecordingReason
from daemon.photometry.noise import NoiseHints, resolve_noise
from tests.scenes import PoissonScene


def _statistics(frames):
    frames = np.stack(frames).astype(np.float32)
    variance = (np.diff(frames, axis=0) ** 2).sum(axis=0) / (2 * (len(frames) - 1))
    return frames.mean(axis=0), variance


@pytest.fixture(scope="module")
def statistics():
    scene = PoissonScene(seed=9, height=200, width=260, particles=15)
    mean = scene.mean_e()
    return _statistics([scene.expose(mean) for _ in range(40)])


def test_what_is_given_is_taken(statistics):
    noise = resolve_noise(NoiseHints(3.0, 2.0, 10.0), *statistics, 12, 40)
    assert (noise.gain_e_per_dn, noise.read_noise_e, noise.dark_dn, noise.estimated) == (3.0, 2.0, 10.0, False)


def test_the_gain_comes_from_the_photon_transfer_line(statistics):
    noise = resolve_noise(NoiseHints(dark_dn=64.0), *statistics, 12, 40)
    assert noise.gain_e_per_dn == pytest.approx(8.0, rel=0.05)
    assert noise.estimated


def test_a_negative_intercept_is_a_dark_level(statistics):
    noise = resolve_noise(NoiseHints(), *statistics, 12, 40)
    assert noise.gain_e_per_dn == pytest.approx(8.0, rel=0.05)
    assert noise.dark_dn == pytest.approx(64.0, abs=30.0)


def test_moving_pixels_do_not_spoil_it(statistics):
    mean, variance = statistics
    spoiled = variance.copy()
    spoiled[:60] *= 40
    noise = resolve_noise(NoiseHints(dark_dn=64.0), mean, spoiled, 12, 40)
    assert noise.gain_e_per_dn == pytest.approx(8.0, rel=0.3)


def test_an_even_scene_still_tells_its_relative_noise():
    rng = np.random.default_rng(0)
    frames = rng.poisson(9_000, (40, 100, 100)) / 3.0
    noise = resolve_noise(NoiseHints(), *_statistics(list(frames)), 12, 40)
    assert noise.estimated
    assert noise.gain_e_per_dn == pytest.approx(3.0, rel=0.05)


def test_an_even_scene_with_a_known_dark_level_tells_the_gain():
    rng = np.random.default_rng(0)
    frames = 64 + rng.poisson(9_000, (40, 100, 100)) / 3.0
    noise = resolve_noise(NoiseHints(dark_dn=64.0), *_statistics(list(frames)), 12, 40)
    assert noise.gain_e_per_dn == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize(
    ("mean", "variance", "frames"),
    [
        (np.linspace(100, 4000, 10_000).reshape(100, 100), np.full((100, 100), np.nan), 1),
        (np.linspace(100, 3000, 10_000).reshape(100, 100), np.zeros((100, 100)), 40),
        (np.linspace(100, 3000, 9).reshape(3, 3), np.ones((3, 3)), 40),
        (np.full((100, 100), 4095.0), np.ones((100, 100)), 40),
    ],
)
def test_what_cannot_be_estimated_is_asked_for_by_name(mean, variance, frames):
    with pytest.raises(RecordingError, match="gain_e_per_dn") as caught:
        resolve_noise(NoiseHints(), mean.astype(np.float32), variance.astype(np.float32), 12, frames)
    assert caught.value.reason is RecordingReason.MISSING_VALUE


def test_variance_that_falls_with_brightness_gives_one_point_not_a_negative_gain():
    mean = np.linspace(100, 3000, 10_000).reshape(100, 100).astype(np.float32)
    variance = np.linspace(300, 10, 10_000).reshape(100, 100).astype(np.float32)
    assert resolve_noise(NoiseHints(), mean, variance, 12, 40).gain_e_per_dn > 0
