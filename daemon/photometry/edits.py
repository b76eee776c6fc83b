"""Editing masks: polygons in, the next version of a `MaskSet` out, or a refusal that leaves everything as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.draw import polygon2mask

from daemon.engine.measures import MaskSet, NoiseModel
from daemon.engine.operator import MARGIN_PX
from daemon.errors import MaskError, MaskReason
from daemon.mask_edits import AddEdit, MaskEdit, RemoveEdit, ReplaceEdit
from daemon.photometry.background import estimate_background
from daemon.photometry.masks import HALO_PX, RIM_PX
from daemon.photometry.segment import EIGHT
from daemon.photometry.shape import centroids, shape_table
from daemon.recipe import MaskSettings

SHARED_PX = 2
"""Pixels that a new outline may share with a neighbour; they stay the neighbour's."""


def edit_masks(
    masks: MaskSet,
    edits: Sequence[MaskEdit],
    reference_dn: np.ndarray,
    noise: NoiseModel,
    settings: MaskSettings,
) -> tuple[MaskSet, list[int | None]]:
    """The next version of `masks`, and for each edit the id of the particle it made, None where it made none.

    `reference_dn` (H, W) is the frame that the masks were found in. Particles keep their index and id; new ones are
    appended. Raises `MaskError`; `masks` itself is never changed.
    """
    table = _Editing(masks, settings)
    made = [table.carry_out(edit) for edit in edits]
    if not table.active.any():
        raise MaskError(MaskReason.NONE_LEFT, "these edits would remove the last particle")
    return table.finished(reference_dn, noise), made


def rasterised(outline_px: Sequence[Sequence[float]], shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool: pixels whose centres lie inside the closed outline, its holes filled; all points in the frame."""
    points = np.asarray(outline_px, float).reshape(-1, 2)
    return ndimage.binary_fill_holes(polygon2mask(shape, points))


class _Editing:
    """A copy of the masks with edits carried out on it one by one."""

    def __init__(self, masks: MaskSet, settings: MaskSettings) -> None:
        self._before, self._settings = masks, settings
        self.labels = masks.labels.copy()
        self.active = np.ones(masks.count, bool) if masks.active is None else masks.active.copy()
        self._ids = masks.particle_id.astype(np.int64)
        none = np.zeros(masks.count, np.int64)
        self._parents = none if masks.parent_id is None else masks.parent_id.astype(np.int64)
        self._excluded = np.zeros(masks.labels.shape, bool) if masks.excluded is None else masks.excluded.copy()

    def carry_out(self, edit: MaskEdit) -> int | None:
        """One edit; the id of the particle it made."""
        match edit:
            case RemoveEdit():
                self._excluded |= self._remove(edit.particle_id)
                return None
            case ReplaceEdit():
                old = self._remove(edit.particle_id)
                return self._add(edit.outline_px, old, edit.particle_id)
            case AddEdit():
                return self._add(edit.outline_px, np.zeros(self.labels.shape, bool), 0)

    def _remove(self, particle_id: int) -> np.ndarray:
        """Take a particle out; (H, W) bool, where it was. Its light stays and is nobody's background."""
        known = self._ids[: self._before.count] == particle_id
        found = np.flatnonzero(known & self.active[: self._before.count])
        if not len(found):
            what = f"particle {particle_id} was removed" if known.any() else f"there is no particle {particle_id}"
            raise MaskError(MaskReason.NO_PARTICLE, f"{what} in version {self._before.version} of the masks")
        pixels = self.labels == found[0] + 1
        self.labels[pixels] = 0
        self.active[found[0]] = False
        return pixels

    def _add(self, outline_px: Sequence[Sequence[float]], old: np.ndarray, parent_id: int) -> int:
        """A new particle where the outline is; what was foreign light within its blurred rim is its own now."""
        pixels = self._drawn(outline_px)
        self._excluded |= old
        self._excluded &= ndimage.distance_transform_edt(~pixels) > RIM_PX
        made = int(self._ids.max(initial=0)) + 1
        self._ids = np.append(self._ids, made)
        self._parents = np.append(self._parents, parent_id)
        self.active = np.append(self.active, True)
        self.labels[pixels] = len(self._ids)
        return made

    def _drawn(self, outline_px: Sequence[Sequence[float]]) -> np.ndarray:
        """(H, W) bool of a valid outline. Raises `MaskError`."""
        if len(outline_px) < 3:
            raise MaskError(MaskReason.BAD_OUTLINE, f"an outline of {len(outline_px)} points encloses nothing")
        self._check_place(np.asarray(outline_px, float))
        pixels = rasterised(outline_px, self.labels.shape)
        self._check_owners(pixels)
        pixels &= self.labels == 0
        area, pieces = int(pixels.sum()), ndimage.label(pixels, EIGHT)[1]
        low, high = self._settings.min_area_px, self._settings.max_area_px
        if not low <= area <= high:
            raise MaskError(MaskReason.BAD_AREA, f"the outline encloses {area} px, a particle has {low} to {high}")
        if pieces != 1:
            raise MaskError(MaskReason.BAD_OUTLINE, f"the outline encloses {pieces} areas that do not touch")
        return pixels

    def _check_place(self, points: np.ndarray) -> None:
        height, width = self.labels.shape
        low, high = np.full(2, float(MARGIN_PX)), np.array([height, width]) - 1.0 - MARGIN_PX
        outside = ((points < low) | (points > high)).any(axis=1)
        if outside.any():
            y, x = points[outside][0]
            raise MaskError(
                MaskReason.NEAR_EDGE,
                f"the point ({y:g}, {x:g}) lies outside y {low[0]:g} to {high[0]:g}, x {low[1]:g} to {high[1]:g}",
            )

    def _check_owners(self, pixels: np.ndarray) -> None:
        """Refuse an outline that takes pixels from another particle."""
        shared = np.bincount(self.labels[pixels], minlength=1)
        shared[0] = 0
        if shared.sum() > SHARED_PX:
            owner = int(self._ids[shared.argmax() - 1])
            raise MaskError(MaskReason.OVERLAP, f"{int(shared.max())} px of the outline belong to particle {owner}")

    def finished(self, reference_dn: np.ndarray, noise: NoiseModel) -> MaskSet:
        """The next version: the rows of new particles measured, those of others as they were."""
        before, count = self._before, self._before.count
        number = np.cumsum(self.active) * self.active
        dense = np.concatenate([[0], number]).astype(np.int32)[self.labels]
        image_e = (np.asarray(reference_dn, float) - noise.dark_dn) * noise.gain_e_per_dn
        hidden = ndimage.binary_dilation((dense > 0) | self._excluded, iterations=HALO_PX)
        fresh: dict[str, Any] = shape_table(
            dense, image_e - _background(image_e, hidden, self._settings), before.psf_sigma_px, before.pixel_size_nm
        )
        y_px, x_px = centroids(dense)
        new = self.active[count:]
        rows = number[count:][new] - 1

        def extended(old: np.ndarray, measured: np.ndarray) -> np.ndarray:
            column = np.full(len(new), np.nan)
            column[new] = measured[rows]
            return np.concatenate([np.asarray(old, float), column])

        return replace(
            before,
            labels=self.labels,
            particle_id=self._ids,
            y_px=extended(before.y_px, y_px),
            x_px=extended(before.x_px, x_px),
            table={name: extended(column, fresh[name]) for name, column in before.table.items()},
            version=before.version + 1,
            excluded=self._excluded,
            active=self.active,
            parent_id=self._parents,
        )


def _background(image_e: np.ndarray, hidden: np.ndarray, settings: MaskSettings) -> np.ndarray:
    """(H, W) level under the particles; their median where nothing of the frame is background."""
    try:
        return estimate_background(image_e, hidden, settings.background_px)[0]
    except ValueError:
        return np.full(image_e.shape, np.nanmedian(image_e))
