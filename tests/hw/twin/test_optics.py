from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import fourier_gaussian, fourier_shift

from hw.twin.disturbances import Disturbance
from hw.twin.electrode import Electrode
from hw.twin.optics import Microscope, moving_taps
from hw.twin.sample import make_sample
from tests.hw.twin.conftest import options_of


def still(drift_y_px=0.0, drift_x_px=0.0, blur_px=0.0, illumination=1.0):
    return Disturbance(drift_y_px, drift_x_px, blur_px, illumination, 0.0, False)


def microscope_of(**options):
    options = options_of(**{"static": True} | options)
    sample = make_sample(options)
    one = Microscope(sample, options)
    one.scene.show(Electrode(sample).state)
    return one


def pictures(microscope, count, disturbance=None):
    out = np.empty((count, *microscope.field.shape), microscope.dtype)
    for picture in out:
        microscope.expose(disturbance or still(), picture)
    return out


@pytest.mark.parametrize("noise", ["pool", "poisson"])
def test_photon_transfer_gives_gain_and_read_noise(noise):
    """Variance in DN^2 = signal in DN / gain + (read / gain)^2 + 1/12, pixel by pixel."""
    one = microscope_of(noise=noise, gain_e_per_dn=4.0, read_noise_e=30.0, particle_e=4500.0)
    dark = microscope_of(
        noise=noise, gain_e_per_dn=4.0, read_noise_e=30.0, background_e=1e-3, particle_e=1e-3, dark_dn=64
    )
    points = []
    for scope in (dark, one):
        stack = pictures(scope, 120).astype(float)
        mean, variance = stack.mean(axis=0) - 64.0, stack.var(axis=0, ddof=1)
        edges = np.quantile(mean, np.linspace(0, 1, 9))
        points += [
            (mean[m].mean(), variance[m].mean()) for a, b in pairwise(edges) if (m := (mean >= a) & (mean <= b)).sum()
        ]
    slope, offset = np.polyfit(*np.array(points).T, 1)
    assert 1 / slope == pytest.approx(4.0, rel=0.02)
    assert offset == pytest.approx((30 / 4.0) ** 2 + 1 / 12, rel=0.05)


def test_noise_is_new_in_every_frame_and_free_of_pattern():
    one = microscope_of()
    stack = pictures(one, 40).astype(float)
    residual = (stack - stack.mean(axis=0)) / stack.std(axis=0)
    flat = residual.reshape(40, -1)
    between = flat @ flat.T / flat.shape[1]
    np.fill_diagonal(between, -1 / 39)
    assert np.abs(between + 1 / 39).max() < 5 / np.sqrt(flat.shape[1])
    for axis in (1, 2):
        rolled = (residual * np.roll(residual, 1, axis)).mean()
        assert abs(rolled) < 5 / np.sqrt(residual.size)
    assert np.abs((residual**3).mean()) < 0.02 and (residual**4).mean() == pytest.approx(3, abs=0.2)


def test_the_mean_picture_is_the_analytic_one():
    one = microscope_of(pixel_gain_sigma=0.01)
    mean = pictures(one, 200).astype(float).mean(axis=0)
    want = one.mean_e(still()) / 8.0 + 64.0
    sigma = np.sqrt((one.mean_e(still()) + 49) / 64 / 200)
    score = (mean - want) / sigma
    assert abs(score.mean()) < 0.05 and score.std() == pytest.approx(1, abs=0.05)


def test_dark_full_and_levels_are_those_of_the_camera():
    bright = microscope_of(background_e=60_000.0)
    assert (pictures(bright, 1) == 4095).all()
    black = microscope_of(background_e=1e-3, particle_e=1e-3)
    picture = pictures(black, 1)[0].astype(float)
    assert picture.mean() == pytest.approx(64, abs=0.05) and picture.std() == pytest.approx(
        np.hypot(7 / 8, 0.29), rel=0.05
    )


def test_illumination_and_exposure_scale_the_light():
    one = microscope_of(noise="none")
    light = pictures(one, 1)[0].astype(float) - 64
    one.exposure_us = 1000.0
    half = pictures(one, 1, still(illumination=1.2))[0].astype(float) - 64
    np.testing.assert_allclose(half, light * 0.6, atol=1.1)


def centroid(picture, i, sample, radius):
    y, x = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
    near = np.hypot(y - sample.y_px[i], x - sample.x_px[i]) < radius
    weight = np.where(near, picture, 0.0)
    return np.array([(weight * y).sum(), (weight * x).sum()]) / weight.sum()


@pytest.mark.parametrize("drift", [(0.3, -0.7), (2.0, 3.0), (-4.45, 6.1), (0.001, 0.0)])
def test_a_particle_appears_where_drift_takes_it(drift):
    """At (y, x) in the reference means at (y + drift_y, x + drift_x)."""
    one = microscope_of(
        background_texture=0.0,
        pixel_gain_sigma=0.0,
        illumination_falloff=0.0,
        background_e=1e-3,
        particles=1,
        dead_fraction=0,
    )
    reach = 2 * one.sample.radius_px[0] + 10
    before, after = (centroid(one.mean_e(d), 0, one.sample, reach) for d in (still(), still(*drift)))
    np.testing.assert_allclose(after - before, drift, atol=2e-4)


def test_moving_and_blurring_match_fourier_optics():
    one = microscope_of(pixel_gain_sigma=0.0, illumination_falloff=0.0)
    image = one.scene.image
    spectrum = np.fft.fft2(image.astype(float))
    want = np.fft.ifft2(fourier_shift(fourier_gaussian(spectrum, 0.5), (0.37, -1.21))).real
    got = one.mean_e(still(0.37, -1.21, 0.5))
    np.testing.assert_allclose(got, want[24:-24, 24:-24], atol=0.002 * 10_000)


@pytest.mark.parametrize("shift", [0.0, 0.5, -0.25, 3.75, -7.1])
@pytest.mark.parametrize("blur", [0.0, 0.3, 0.7, 1.4])
def test_taps_have_the_mean_and_variance_asked_for(shift, blur):
    first, taps = moving_taps(shift, blur)
    at = first + np.arange(len(taps))
    assert taps.sum() == pytest.approx(1, abs=1e-5)
    assert (taps * at).sum() == pytest.approx(shift, abs=1e-4)
    assert (taps * (at - shift) ** 2).sum() == pytest.approx(blur**2, abs=1e-3)


def test_defocus_keeps_the_light():
    one = microscope_of(pixel_gain_sigma=0.0, illumination_falloff=0.0)
    sharp, soft = one.mean_e(still()), one.mean_e(still(blur_px=1.2))
    assert soft.sum() == pytest.approx(sharp.sum(), rel=1e-3)
    assert np.abs(np.diff(soft)).max() < 0.85 * np.abs(np.diff(sharp)).max()


def test_the_largest_drift_and_blur_stay_inside_the_scene():
    one = microscope_of()
    for sign in (-1, 1):
        assert np.isfinite(pictures(one, 1, still(sign * 14.0, sign * 14.0, 1.4))).all()
        assert pictures(one, 1, still(sign * 14.0, sign * 14.0, 1.4)).min() > 400


def test_hot_pixels_stay_hot():
    one = microscope_of(static=False, hot_pixels=5, background_e=500.0, particle_e=100.0)
    stack = pictures(one, 20).astype(float).mean(axis=0)
    hot = np.argwhere(stack > np.median(stack) + 100)
    assert {tuple(p) for p in hot} <= set(zip(one.hot_y, one.hot_x, strict=True)) and len(hot) >= 4


def test_the_field_dims_towards_the_corners_and_pixels_differ():
    one = microscope_of(pixel_gain_sigma=0.004)
    assert one.field[0, 0] < 0.95 * one.field[60, 80]
    fine = one.field[1:-1, 1:-1] - (one.field[1:-1, :-2] + one.field[1:-1, 2:]) / 2
    assert fine.std() == pytest.approx(0.004 * np.sqrt(1.5), rel=0.1)
