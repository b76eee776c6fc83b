"""A background that rises across a particle leaves a dipole; the ring tells it."""

import numpy as np
import pytest
from scipy import ndimage

from daemon.photometry.axial_light import UNSEEN, backgrounds_dipoles
from daemon.photometry.patches import EDGE_PX, GROW_SIGMA, smooth_step
from tests.daemon.photometry.test_axial import PSF, masks_of


def scene(slope: tuple[float, float], noise: float = 0.0) -> np.ndarray:
    """A rod of 1000 on a background of 500 that rises by `slope` a pixel."""
    y, x = np.indices((100, 100)) - 50.0
    body = ndimage.gaussian_filter(1000.0 * (masks_of([(24, 8, 35.0)]).labels > 0), PSF)
    return body + 500.0 + slope[0] * y + slope[1] * x + np.random.default_rng(1).normal(0, noise, y.shape)


def test_a_sloping_background_has_the_dipole_of_its_moments():
    masks, slope = masks_of([(24, 8, 35.0)]), (1.5, -2.0)
    outside = ndimage.distance_transform_edt(masks.labels == 0)
    mask = smooth_step(1.0 - (outside - GROW_SIGMA * PSF) / EDGE_PX)
    y, x = (axis - (mask * axis).sum() / mask.sum() for axis in np.indices(mask.shape).astype(float))
    rise = slope[0] * y + slope[1] * x
    light = (mask * scene((0.0, 0.0))).sum() - 500.0 * mask.sum()
    found = backgrounds_dipoles(masks, scene(slope, noise=3.0))[0]
    true = np.array([(mask * y * rise).sum(), (mask * x * rise).sum()]) / light
    assert np.abs(true).max() > 0.05
    assert found[:2] == pytest.approx(true, rel=0.05, abs=4e-3)
    assert 0.0 < found[2] < 0.02


def test_an_even_background_has_none():
    found = backgrounds_dipoles(masks_of([(24, 8, 35.0)]), scene((0.0, 0.0), noise=3.0))[0]
    assert np.abs(found[:2]).max() < 4 * found[2]


def test_without_a_ring_it_is_not_known():
    masks = masks_of([(24, 8, 35.0)])
    masks.excluded = masks.labels == 0
    np.testing.assert_array_equal(backgrounds_dipoles(masks, scene((1.0, 0.0)))[0], UNSEEN)
    masks.excluded = None
    np.testing.assert_array_equal(backgrounds_dipoles(masks, np.full((100, 100), np.nan))[0], UNSEEN)
    assert backgrounds_dipoles(masks, scene((1.0, 0.0)), start=1).shape == (0, 3)
