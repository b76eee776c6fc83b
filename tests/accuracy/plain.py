"""What the field runs today, as a peer on the same frames: see `PlainPhotometry`."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.registration import phase_cross_correlation

UPSAMPLING = 20
"""Steps a pixel of the shift: as fine as a plain pipeline can afford."""


class PlainPhotometry:
    """Image correlation, linear interpolation, whole-frame normalisation, hard mask minus ring mean, every frame.

    `reference` is (H, W) DN above the dark level; `labels` are the fixed hard masks; rings reach from 2 to 5 px beyond
    the mask, where no neighbour is.
    """

    def __init__(self, reference: np.ndarray, labels: np.ndarray, dark_dn: float, upsampling: int = UPSAMPLING) -> None:
        self._reference, self._dark_dn, self._upsampling = reference, dark_dn, upsampling
        self._mean = float(reference.mean())
        self._labels = labels.ravel()
        self._count = int(labels.max())
        self._area = np.bincount(self._labels, minlength=self._count + 1)[1:]
        self._ring = rings(labels, self._count).ravel()
        self._ring_area = np.bincount(self._ring, minlength=self._count + 1)[1:]

    def __call__(self, dn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fluxes (P,) and drift (2,) of one (H, W) frame."""
        image = dn.astype(np.float64) - self._dark_dn
        back = -self.drift_px(image)
        if back.any():
            image = ndimage.shift(image, back, order=1, mode="nearest")
        image *= self._mean / image.mean()
        return self.sums(image), -back

    def drift_px(self, image: np.ndarray, normalization: str | None = None) -> np.ndarray:
        """(2,) y, x of an image (H, W) above the dark level.

        `normalization` "phase" is scikit-image's default; on blurred pictures correlation without it is far better.
        """
        back, _, _ = phase_cross_correlation(
            self._reference, image, upsample_factor=self._upsampling, normalization=normalization
        )
        return -back

    def sums(self, image: np.ndarray) -> np.ndarray:
        """Mask sums minus ring means."""
        flat = image.ravel()
        mask = np.bincount(self._labels, flat, self._count + 1)[1:]
        ring = np.bincount(self._ring, flat, self._count + 1)[1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            return mask - self._area * (ring / self._ring_area)


def rings(labels: np.ndarray, count: int) -> np.ndarray:
    """(H, W) int: i + 1 in the ring of particle i, nearest particle first."""
    free = ndimage.distance_transform_edt(labels == 0) > 2
    ring = np.zeros(labels.shape, int)
    nearest = np.full(labels.shape, np.inf)
    for i in range(count):
        outside = ndimage.distance_transform_edt(labels != i + 1)
        mine = free & (outside <= 5) & (outside < nearest)
        ring[mine], nearest[mine] = i + 1, outside[mine]
    return ring
