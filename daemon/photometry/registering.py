"""What tells the drift and the blur of a frame: four more sums a particle over the pixels photometry reads anyway.

One step of inverse-variance-weighted Gauss-Newton (Robinson & Milanfar 2004) written as fixed linear functionals, with
the gain and background of every particle projected out so that brightening is not motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from daemon.engine.operator import MARGIN_PX
from daemon.photometry.patches import Patch

# eighth-order central difference (taps -4..4): exact to 1e-4 for a PSF of sigma >= 1.2 px
DERIVATIVE = np.array([1 / 280, -4 / 105, 1 / 5, -4 / 5, 0.0, 4 / 5, -1 / 5, 4 / 105, -1 / 280])
SMOOTHING_PX = 0.8  # of the weights: the reference's own noise would else look like structure, and bias the shift
MANY = 200  # particles; fewer all tell the drift
SHARE = 0.75  # of what many tell of it; the rest are small ones that tell little and cost as much
SEARCH_PIXELS = 5_000  # 50 ms of search; enough for a shift that the series then refines


def derivative(image: np.ndarray, *axes: int) -> np.ndarray:
    """Derivative along each of `axes` in turn, per px."""
    for axis in axes:
        image = ndimage.correlate1d(image, DERIVATIVE, axis=axis, mode="nearest")
    return image


def interior(shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool: pixels that stay in the frame for any drift that is followed."""
    inside = np.zeros(shape, bool)
    inside[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = True
    return inside


@dataclass(frozen=True)
class Targets:
    """(H, W) images that weights are made of: the smoothed reference, its gradient and Laplacian, and the variance of
    a frame's pixel.
    """

    profile: np.ndarray
    y: np.ndarray
    x: np.ndarray
    laplace: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, reference_e: np.ndarray, variance: np.ndarray) -> Targets:
        """From the reference in electrons."""
        profile = ndimage.gaussian_filter(reference_e.astype(np.float32), SMOOTHING_PX)
        laplace = derivative(profile, 0, 0) + derivative(profile, 1, 1)
        return cls(profile, derivative(profile, 0), derivative(profile, 1), laplace, variance)

    def telling(self, patches: list[Patch]) -> np.ndarray:
        """(P,) bool: all particles, or of many the fewest that hold `SHARE` of what all tell of the drift."""
        told = np.zeros(len(patches))
        for p, patch in enumerate(patches):
            where = patch.mask > 0
            y, x = self.y[patch.window][where], self.x[patch.window][where]
            told[p] = ((y * y + x * x) / self.variance[patch.window][where]).sum()
        if len(patches) <= MANY:
            return np.ones(len(patches), bool)
        order = np.argsort(-told, kind="stable")
        count = int(np.searchsorted(np.cumsum(told[order]), SHARE * told.sum())) + 1
        chosen = np.zeros(len(patches), bool)
        chosen[order[:count]] = True
        return chosen

    def planes(self, patch: Patch) -> np.ndarray:
        """(4, h, w) weights of one particle on its window: y shift, x shift, blur, and a template of its likeness.

        The first three are orthogonal to the particle's own profile and to a constant.
        """
        where = patch.mask > 0
        w = 1.0 / self.variance[patch.window][where].astype(np.float64)
        profile = self.profile[patch.window][where].astype(np.float64)
        nuisance = np.column_stack([np.ones(len(profile)), profile - np.average(profile, weights=w)])
        depth = patch.layer[where] * (profile - profile.min())
        inner = np.column_stack([nuisance, depth - np.average(depth, weights=w)])
        planes = np.zeros((4, *patch.mask.shape))
        for row, (target, known) in enumerate(((self.y, nuisance), (self.x, nuisance), (self.laplace, inner))):
            t = target[patch.window][where]
            gram = np.linalg.pinv(known.T @ (known * w[:, None]))
            planes[row][where] = w * (t - known @ (gram @ (known.T @ (w * t))))
        planes[3][where] = w * nuisance[:, 1]
        return planes


def search_template(profile: np.ndarray, patches: list[Patch]) -> dict[str, np.ndarray]:
    """Some pixels of particles that stay in the frame, and the reference there without its mean: for finding a scene
    that jumped.
    """
    near = np.zeros(profile.shape, bool)
    for patch in patches:
        near[patch.window] |= patch.mask > 0
    index = np.flatnonzero(near & interior(profile.shape))
    index = index[:: max(1, len(index) // SEARCH_PIXELS)]
    template = profile.reshape(-1)[index].astype(np.float64)
    return {
        "search_index": index.astype(np.int32),
        "search_template": (template - (template.mean() if len(index) else 0.0)).astype(np.float32),
    }
