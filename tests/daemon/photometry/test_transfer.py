import numpy as np
import pytest

from daemon.engine.transfer import Transfer, TransferSums
from daemon.photometry.transfer import inactive_pixels, read_off
from tests.scenes import PoissonScene

SHAPE = (240, 320)
COMMON = {"common_dn": 700.0, "common_pixels": SHAPE[0] * SHAPE[1]}


def scene_of(**options):
    return PoissonScene(seed=3, height=SHAPE[0], width=SHAPE[1], particles=20, **options)


def taken(scene, light, frames=60, common=None):
    mean, sums = scene.mean_e(), TransferSums(SHAPE, common)
    for n in range(frames):
        sums.add(scene.expose(mean * light(n)))
    return sums.result()


@pytest.mark.parametrize(("bit_depth", "gain"), [(12, 8.0), (8, 110.0), (16, 0.5)])
def test_the_line_is_the_cameras_with_rounding_in_its_height(bit_depth, gain):
    scene = scene_of(bit_depth=bit_depth, gain_e_per_dn=gain)
    line = read_off(taken(scene, lambda n: 1.0), bit_depth).line
    slope_sigma, height_sigma = np.sqrt(np.diag(line.covariance))
    assert abs(line.slope_dn - 1 / gain) < 3.5 * slope_sigma < 0.05 / gain
    want = (line.mean_dn - 64) / gain + (7 / gain) ** 2 + 1 / 12
    assert abs(line.variance_dn2 - want) < 3.5 * height_sigma < 0.01 * want


@pytest.mark.parametrize(
    "light", [lambda n: 1 + 0.1 * n / 60, lambda n: 1 + 0.05 * np.sin(2 * n)], ids=["ramp", "ripple"]
)
@pytest.mark.parametrize("texture_e", [0.0, 300.0])
def test_answers_to_the_light_vanish_at_the_dark_level(light, texture_e):
    level, sigma = read_off(taken(scene_of(texture_e=texture_e), light), 12).dark_dn
    assert abs(level - 64) < 3.5 * sigma < 40


def test_steady_light_tells_no_dark_level():
    assert read_off(taken(scene_of(), lambda n: 1.0), 12).dark_dn is None


def test_common_changes_add_nothing_to_the_variance():
    quiet, rippled = (
        read_off(taken(scene_of(), light), 12).line for light in (lambda n: 1, lambda n: 1 + 0.2 * (n % 2))
    )
    assert rippled.variance_dn2 - quiet.variance_dn2 == pytest.approx(0.1 * 6000 / 64, rel=0.4)  # it was 10 % brighter


def test_changes_of_what_is_not_the_light_are_not_taken_for_it():
    """Half of the scene brightens, dark pixels more than bright ones, or all by as many DN."""
    mean, rng = np.linspace(500, 900, SHAPE[0] * SHAPE[1]).reshape(SHAPE), np.random.default_rng(0)
    variance = mean / 8 * rng.chisquare(60, SHAPE) / 60
    for response in (np.where(np.arange(320) < 160, 2.0, 0.0) + 0 * mean, 2 - mean / 700, np.ones(SHAPE)):
        answers = {"level_response": response + rng.normal(0, 1e-3, SHAPE), "level_power_dn2": 1e7}
        assert read_off(Transfer(mean, variance, 60, 59, **COMMON, **answers), 12).dark_dn is None


def test_inactive_pixels_keep_off_particles():
    scene = scene_of()
    inactive = inactive_pixels(taken(scene, lambda n: 1.0), 12)
    assert not inactive[scene.coverage() > 0].any() and inactive.mean() > 0.3
    assert not inactive_pixels(Transfer(np.full(SHAPE, np.nan), np.ones(SHAPE), 9, 8), 12).any()


def test_common_light_of_inactive_pixels_is_blind_to_particles():
    scene = scene_of()
    inactive = inactive_pixels(taken(scene, lambda n: 1.0), 12)
    sums = TransferSums(SHAPE, inactive)
    for n in range(60):
        sums.add(scene.expose(scene.mean_e(brightness=1 + 0.01 * n) * (1 + 0.05 * np.sin(2 * n))))
    level, sigma = read_off(sums.result(), 12).dark_dn
    assert abs(level - 64) < 4 * sigma < 40


def test_pixels_of_one_line_are_fitted_too():
    mean = np.full((40, 2000), 4095.0)
    mean[20:25] = np.linspace(500, 900, 2000)
    variance = mean / 8 * np.random.default_rng(0).chisquare(60, mean.shape) / 60
    answers = {"level_response": mean / 700, "level_power_dn2": 1e7}
    evidence = read_off(Transfer(mean, variance, 60, 59, common_dn=700.0, common_pixels=80_000, **answers), 12)
    assert evidence.line.slope_dn == pytest.approx(1 / 8, rel=0.05) and evidence.dark_dn is None
