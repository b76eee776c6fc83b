"""What a front does to a particle's layers and axial bins, from its outline and the blur of the optics.

Two ways through a particle: `core`, the depth from its outline, and `axial`, the distance along its major axis from the
outline's end. A front at a place has transformed all that lies before it; each layer's or bin's share of that is
tabulated once, with what drift adds to it, so that a series of measures is read as places of a front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from daemon.engine.measures import LAYERS, MaskSet
from daemon.photometry.patches import GROW_SIGMA, Patch
from daemon.photometry.slices import Sliced
from kernels.photometry import AXIAL_BINS

GRID = 64
"""Steps of the tables along a way: half a pixel for a particle of 32 px."""
FINE = 4
"""Points a pixel and axis that the inside is sampled at."""
BEYOND_EDGE = 0.27
"""Points by which the nearest one outside lies beyond an outline, mean over directions."""
BEYOND_TIP = 0.36
"""... and by which a tip lies beyond the last one inside."""
A_SLICE = 8
"""Particles made at a time."""
LEAST_PIXELS = 20
"""A smaller particle has no inside to speak of."""
RING_LEAST = 30
SMOOTHING_PX = 0.7
"""Of an outline's image before it is sharpened: keeps noise from growing."""
SHARPENED = 3
NEAR_PX = 3
SURE_PX = 2
"""Deeper inside the mask everything is the particle's, however bright; farther out than `NEAR_PX` nothing is."""
CORRECTIONS = 4
AREA_SHARE = 0.08
"""An outline whose area differs more from the mask's is not that of an even particle: the mask's own is taken."""
CORE, AXIAL = 0, 1
WAYS = (len(LAYERS), AXIAL_BINS)
"""Channels that see a front along each way."""


@dataclass(frozen=True)
class Way:
    """One way through P particles."""

    length_px: np.ndarray
    """(P,) from its begin to its end; NaN where the particle is not known."""
    passed: np.ndarray
    """(P, GRID + 1) float32: share of the area before each of equally spaced places."""
    response: np.ndarray
    """(P, GRID + 1, K) float32: share of each channel's own change when the front stands there, 0 to 1."""
    drift: np.ndarray
    """(P, GRID + 1, K, 2) float32: what a px of drift, y and x, adds to that."""
    nuisance: np.ndarray
    """(P, 2, K) float32: relative change of each channel of an even particle for 1 px**2 more of the PSF's variance,
    and for a px of drift along its major axis.
    """

    @classmethod
    def empty(cls, particles: int, channels: int) -> Way:
        """Nothing known yet."""
        shape = (particles, GRID + 1)
        return cls(
            np.full(particles, np.nan), np.zeros(shape, np.float32), np.zeros((*shape, channels), np.float32),
            np.zeros((*shape, channels, 2), np.float32), np.zeros((particles, 2, channels), np.float32),
        )  # fmt: skip

    def set(self, i: int, place_px: np.ndarray, length_px: float, light: np.ndarray, axis: np.ndarray) -> None:
        """Fill in particle i from N points inside: their places (N,) and what each channel sees of them, and of them
        moved and blurred, (4, K, N); `axis` (2,) is the unit vector of the major one, down and right.
        """
        step = length_px / GRID
        index = np.minimum((place_px / step).astype(np.intp), GRID - 1)
        count = np.bincount(index, minlength=GRID)
        sums = np.stack([[np.bincount(index, row, GRID) for row in plane] for plane in light])
        passed = np.concatenate([[0.0], np.cumsum(count)]) / len(place_px)
        seen = np.concatenate([np.zeros((*sums.shape[:2], 1)), np.cumsum(sums, axis=2)], axis=2)
        whole = seen[:, :, -1]
        own = np.where(whole[0] > 0, whole[0], np.inf)
        self.length_px[i], self.passed[i] = length_px, passed
        self.response[i] = (seen[0] / own[:, None]).T
        # the engine has taken off what an even particle of the same brightness does when it moves
        moved = (seen[1:3] - passed * whole[1:3, :, None]) / own[:, None]
        self.drift[i] = moved.transpose(2, 1, 0)
        self.nuisance[i] = whole[3] / own, axis @ whole[1:3] / own


class Geometry:
    """The ways through all particles of a mask set, made particle by particle when asked for.

    `reference` is the (H, W) frame the masks were found in, any unit; None: outlines are the masks' own, to a pixel.
    """

    def __init__(self, masks: MaskSet, reference: np.ndarray | None) -> None:
        self.ways = tuple(Way.empty(masks.count, channels) for channels in WAYS)
        self.sharp = np.zeros(masks.count, bool)
        """(P,) bool: outlines read off the reference, finer than a mask's pixels."""
        self._known = np.zeros(masks.count, bool)
        self._place = masks.positions
        self._masks = masks.measured()
        self._reference = reference
        self._next = 0
        self._scene: tuple[np.ndarray, np.ndarray, list[tuple[slice, slice] | None]] | None = None

    def work(self, particles: int) -> None:
        """Make at most so many particles more."""
        for position in range(self._next, min(self._next + particles, self._masks.count)):
            self._make(position)
            self._next = position + 1

    def need(self, wanted: np.ndarray) -> Sliced[None]:
        """Make whatever is missing of the `wanted` particles (P,) bool, a few a slice."""
        missing = np.flatnonzero(wanted[self._place] & ~self._known[self._place]).tolist()
        for count, position in enumerate(missing):
            self._make(position)
            if count % A_SLICE == 0:
                yield

    def _make(self, position: int) -> None:
        i = int(self._place[position])
        if self._known[i]:
            return
        self._known[i] = True
        if self._scene is None:
            occupied = self._masks.labels > 0
            distance = ndimage.distance_transform_edt(~occupied)
            boxes = ndimage.find_objects(self._masks.labels, max_label=self._masks.count)
            self._scene = occupied, distance, boxes
        occupied, distance, boxes = self._scene
        box = boxes[position]
        if box is None:
            return
        masks = self._masks
        patch = Patch(masks, position, box, occupied, distance, GROW_SIGMA * masks.psf_sigma_px)
        if (masks.labels[patch.window] == position + 1).sum() < LEAST_PIXELS:
            return
        near = ndimage.find_objects((patch.mask > 0).astype(np.int8))[0]
        inside, self.sharp[i] = self._inside(patch, near, position + 1)
        row, column = np.nonzero(inside)
        light = _seen(patch, near, masks.psf_sigma_px)[:, :, row // FINE, column // FINE]
        parts = slice(AXIAL_BINS, None), slice(0, AXIAL_BINS)
        depth, forth, axis = places(inside, patch.along[near])
        for way, part, place_px in zip(self.ways, parts, (depth, forth), strict=True):
            own = place_px[row, column]
            way.set(i, own, float(own.max()) + BEYOND_TIP / FINE, light[:, part], axis)

    def _inside(self, patch: Patch, part: tuple[slice, slice], label: int) -> tuple[np.ndarray, bool]:
        """(FINE h, FINE w) bool on a `part` of the window, of the mask's area, and whether the reference told it."""
        labels = self._masks.labels[patch.window][part]
        mask, others = labels == label, (labels > 0) & (labels != label)
        near = ndimage.binary_dilation(mask, iterations=NEAR_PX)
        sure = ndimage.binary_erosion(mask, iterations=SURE_PX)
        area = int(mask.sum())
        if self._reference is not None and patch.ring.sum() >= RING_LEAST and not (near & others).any():
            image = self._reference[patch.window].astype(float)
            image = image[part] - np.median(image[patch.ring])
            image = np.where(np.isfinite(image), image, 0.0)
            plateau = np.median(image[sure if sure.any() else mask])
            image /= plateau if plateau else 1.0
            inside = outline(image, near, sure, self._masks.psf_sigma_px)
            if abs(inside.sum() / (area * FINE**2) - 1.0) < AREA_SHARE:
                return inside, True
        return outline(mask.astype(float), near & ~others, sure, self._masks.psf_sigma_px, area), False


def outline(
    image: np.ndarray, near: np.ndarray, sure: np.ndarray, psf_sigma_px: float, area: int | None = None
) -> np.ndarray:
    """(FINE h, FINE w) bool: the body that `image` (h, w), 1 in a particle and 0 beside it, is the blurred picture of.

    Blur rounds corners off: the image is sharpened to third order, cut at half of its brightness, and corrected by
    what the body found so, blurred again, leaves unexplained. `near` and `sure` (h, w) bool are where the particle may
    be and where it is in any case. With an `area` (pixels) the image is a
    mask: it is smoothed and cut at the level of so many pixels.
    """
    blur = 0.5 * (psf_sigma_px**2 + SMOOTHING_PX**2)
    sharp = term = ndimage.gaussian_filter(image, SMOOTHING_PX)
    for order in range(1, (SHARPENED if area is None else 1) + 1):  # a mask has no blur but that of its pixels
        term = -blur / order * ndimage.laplace(term)
        sharp = sharp + term
    block = np.ones((FINE, FINE), bool)
    able, certain = np.kron(near, block), np.kron(sure, block)
    fine = _finer(sharp, 3)
    if area is not None:
        able &= ~certain
        wanted = min(max(area * FINE**2 - int(certain.sum()), 1), int(able.sum()))
        return certain | (able & (fine >= np.partition(fine[able], -wanted)[-wanted]))
    for _ in range(CORRECTIONS):
        body = certain | (able & (fine > 0.5))
        share = body.reshape(near.shape[0], FINE, near.shape[1], FINE).mean(axis=(1, 3))
        model = ndimage.gaussian_filter(share, psf_sigma_px)
        plateau = (model * image)[near].sum() / (model * model)[near].sum()
        fine += _finer(np.where(near, image - plateau * model, 0.0), 1)
    return certain | (able & (fine > 0.5))


def _finer(image: np.ndarray, order: int) -> np.ndarray:
    fine: np.ndarray = ndimage.zoom(image, FINE, order=order, mode="nearest", grid_mode=True)
    return fine


def places(inside: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place of each fine pixel along both ways, px: depth below the outline of `inside` (FINE h, FINE w) bool, and
    distance along its major axis from the first end, the one that `along` (h, w) counts from; and the axis, a unit
    vector down and right.
    """
    depth = (ndimage.distance_transform_edt(inside) - BEYOND_EDGE) / FINE
    y, x = np.nonzero(inside)
    _, vectors = np.linalg.eigh(np.cov(y, x))
    down, right = vectors[:, 1]
    if down * (along[1, 0] - along[0, 0]) + right * (along[0, 1] - along[0, 0]) < 0:
        down, right = -down, -right
    rows, columns = (np.arange(n)[:, None] / FINE for n in inside.shape)
    forth = down * rows + right * columns.T
    return depth, forth - forth[inside].min() + BEYOND_TIP / FINE, np.array([down, right])


def _seen(patch: Patch, part: tuple[slice, slice], psf_sigma_px: float) -> np.ndarray:
    """(4, 12, h, w): what each axial bin, then each layer sees of a pixel's light, of it moved a px in y and x, and
    blurred by 1 px**2; on a `part` of the window.
    """
    mask, axial, layer = patch.mask[part], patch.axial[part], patch.layer[part]
    planes = [mask * (axial == k) for k in range(AXIAL_BINS)]
    planes += [mask * (layer == k) for k in range(len(LAYERS))]
    seen = np.stack([ndimage.gaussian_filter(plane, psf_sigma_px, mode="constant") for plane in planes])
    bent = np.stack([ndimage.laplace(plane, mode="constant") for plane in seen])
    return np.stack([seen, *np.gradient(seen, axis=(1, 2)), 0.5 * bent])
