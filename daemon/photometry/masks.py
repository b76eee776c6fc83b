"""Finding the particles, once, when a run starts: averaged reference frame in, `MaskSet` out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from daemon.engine.measures import MaskSet, NoiseModel
from daemon.errors import RunError, RunReason
from daemon.photometry.background import estimate_background, tile_quantiles
from daemon.photometry.segment import basins, edge_sigma, outline, plateaus, split_touching
from daemon.photometry.shape import centroids, shape_table
from daemon.recipe import MaskSettings

FALLBACK_PSF_SIGMA_PX = 1.5
PSF_RANGE_PX = (0.5, 6.0)  # outside, what was measured is not the optics' blur
SMOOTHING_PX = 1.0  # below the blur of the optics: costs no detail, leaves 28 % of the noise
SMOOTHED_NOISE = 1 / (2 * np.sqrt(np.pi) * SMOOTHING_PX)
WING_SHARE = 0.1  # of a near particle's brightness: below, a pixel is the blurred rim of that one
WING_REACH_PX = 11
RIM_PX = 5  # how far a kept particle's own blurred rim reaches over the threshold
HALO_PX = 6  # around what was found: too bright still to count as background
PASS_MESHES = (1.0, 1.0, 0.5)  # of the mesh asked for: once particles are hidden, a finer one follows the light better
CROWD_QUANTILES = (0.05, 0.15, 0.97)
CROWD_SIGMAS = 10.0  # of the low quantiles' distance, which is 0.6 standard deviations of a bare background
CROWD_SHARE = 0.3  # of the way up to the brightest
SHARP_EDGES = 0.25  # quantile of the edges' widths: particles have soft edges of their own, the optics has none softer


@dataclass
class Scene:
    """A reference frame in electrons, its background taken off."""

    offset_e: np.ndarray
    """(H, W) electrons above the background; NaN where the reference is."""
    smooth_e: np.ndarray
    """The same with less pixel noise, without NaN, and positive where a particle of the wanted polarity is."""
    threshold_e: np.ndarray
    """(H, W) for `smooth_e`."""
    level_e: float
    sigma_e: float
    """Typical standard deviation of `smooth_e` on the background: noise and static grain."""


def find_particles(
    reference_dn: np.ndarray,
    noise: NoiseModel,
    frames_averaged: int,
    settings: MaskSettings,
    pixel_size_nm: float | None,
    *,
    border_px: int = 12,
) -> MaskSet:
    """Outline the particles of `reference_dn`, (H, W) float, the mean of `frames_averaged` frames in DN.

    NaN pixels are unknown. Particles that come within `border_px` of the frame's edge are left out: they would drift
    out of it. Ids count 1..P from top to bottom, then left to right. Raises `RunError` (NO_PARTICLES) with what was
    measured instead.
    """
    if settings.polarity == "auto":
        return _bright_or_dark(reference_dn, noise, frames_averaged, settings, pixel_size_nm, border_px)
    image_e = (np.asarray(reference_dn, float) - noise.dark_dn) * noise.gain_e_per_dn
    if image_e.ndim != 2 or not np.isfinite(image_e).any():
        raise RunError(RunReason.NO_PARTICLES, f"the reference frame {image_e.shape} has no valid pixel")
    variance_e = noise.read_noise_e**2 + noise.gain_e_per_dn**2 / 12
    scene = _background_off(image_e, variance_e, frames_averaged, settings)
    found = _above_threshold(scene)
    psf_sigma_px = settings.psf_sigma_px or measure_psf(scene, found)
    blur_px = float(np.hypot(psf_sigma_px, SMOOTHING_PX))
    labels = outline(scene.smooth_e, found, blur_px)
    if settings.split_touching and labels.any():
        labels = split_touching(scene.smooth_e, labels, found, blur_px, settings.min_area_px)
    outlined = labels
    labels, y_px, x_px = _keep(outlined, settings, border_px)
    if not len(y_px):
        raise RunError(RunReason.NO_PARTICLES, _nothing_found(scene, found, settings, border_px))
    return MaskSet(
        labels=labels,
        particle_id=np.arange(1, len(y_px) + 1, dtype=np.int64),
        y_px=y_px,
        x_px=x_px,
        table=shape_table(labels, scene.offset_e, psf_sigma_px, pixel_size_nm),
        psf_sigma_px=psf_sigma_px,
        pixel_size_nm=pixel_size_nm,
        excluded=_foreign_light(found, outlined, labels),
    )


def _bright_or_dark(
    reference_dn: np.ndarray,
    noise: NoiseModel,
    frames_averaged: int,
    settings: MaskSettings,
    pixel_size_nm: float | None,
    border_px: int,
) -> MaskSet:
    """Bright particles, or dark ones where there is none; the refusal speaks of the bright."""
    refusal: RunError | None = None
    for polarity in ("bright", "dark"):
        wanted = settings.model_copy(update={"polarity": polarity})
        try:
            return find_particles(reference_dn, noise, frames_averaged, wanted, pixel_size_nm, border_px=border_px)
        except RunError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _background_off(image_e: np.ndarray, variance_e: float, frames: int, settings: MaskSettings) -> Scene:
    """Background and particles are found in turns: each hides the other less the better it is known.

    Each pass corrects the level by what is left over, so that a slope under a tile half hidden does not bias it.
    """
    unknown = ~np.isfinite(image_e)
    hidden, level_e = unknown | _plainly_particles(image_e, settings), np.zeros(image_e.shape)
    for share in PASS_MESHES:
        mesh_px = max(int(share * settings.background_px), 1)
        try:
            level_e = level_e + estimate_background(image_e - level_e, hidden, mesh_px)[0]
        except ValueError:
            raise RunError(
                RunReason.NO_PARTICLES, "no part of the reference frame is dark enough for background"
            ) from None
        noise_e = SMOOTHED_NOISE * np.sqrt((np.maximum(level_e, 0) + variance_e) / frames)
        scene = _scene(image_e - level_e, level_e, hidden, noise_e, settings)
        hidden = unknown | ndimage.binary_dilation(scene.smooth_e > scene.threshold_e, iterations=HALO_PX)
    return scene


def _plainly_particles(image_e: np.ndarray, settings: MaskSettings) -> np.ndarray:
    """(H, W) bool: what stands out at first sight, so that a crowd of particles is not taken for background.

    In a window of two meshes a low quantile lies on the background even where particles cover three quarters of it.
    Where `polarity` is both there is no low side, and nothing is hidden.
    """
    turn = {"bright": 1.0, "dark": -1.0, "both": 0.0}[settings.polarity]
    values = turn * image_e
    low, middle, high = tile_quantiles(values, 2 * settings.background_px, CROWD_QUANTILES)
    threshold = middle + np.maximum(CROWD_SIGMAS * (middle - low), CROWD_SHARE * (high - middle))
    with np.errstate(invalid="ignore"):
        return ndimage.binary_dilation((values > threshold) & (turn != 0.0), iterations=HALO_PX // 2)


def _scene(
    offset_e: np.ndarray, level_e: np.ndarray, hidden: np.ndarray, noise_e: np.ndarray, settings: MaskSettings
) -> Scene:
    flat_e = ndimage.gaussian_filter(np.where(np.isfinite(offset_e), offset_e, 0.0), SMOOTHING_PX)
    misfit_e, scatter_e = estimate_background(flat_e, hidden, settings.background_px)
    sigma_e = np.maximum(np.hypot(scatter_e, misfit_e), noise_e)
    turn = {"bright": np.positive, "dark": np.negative, "both": np.abs}[settings.polarity]
    return Scene(
        offset_e=offset_e,
        smooth_e=turn(flat_e),
        threshold_e=settings.threshold_sigma * sigma_e,
        level_e=float(np.median(level_e)),
        sigma_e=float(np.median(sigma_e)),
    )


def _above_threshold(scene: Scene) -> np.ndarray:
    """(H, W) bool: pixels of particles, without the rims that reach over from bright ones."""
    nearby = ndimage.maximum_filter(scene.smooth_e, WING_REACH_PX)
    return (scene.smooth_e > scene.threshold_e) & (scene.smooth_e > WING_SHARE * nearby)


def measure_psf(scene: Scene, found: np.ndarray) -> float:
    """Blur of the optics in pixels from the sharpest edges, `FALLBACK_PSF_SIGMA_PX` where there are none."""
    objects = basins(scene.smooth_e, found, 0.7)
    sigma = edge_sigma(scene.smooth_e, objects)
    clear = np.isfinite(sigma) & (plateaus(scene.smooth_e, objects)[1:] > 20 * scene.sigma_e)
    if not clear.any():
        return FALLBACK_PSF_SIGMA_PX
    squared = float(np.quantile(sigma[clear], SHARP_EDGES)) ** 2 - SMOOTHING_PX**2
    return float(np.clip(np.sqrt(max(squared, 0.0)), *PSF_RANGE_PX))


def _foreign_light(found: np.ndarray, outlined: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels above the threshold beyond the rims of the particles that are kept."""
    beyond_rims = ndimage.distance_transform_edt(kept == 0) > RIM_PX
    return ((outlined > 0) & (kept == 0)) | (found & beyond_rims)


def _keep(labels: np.ndarray, settings: MaskSettings, border_px: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels within bounds, renumbered from top to bottom, and their centres (y, x)."""
    area = np.bincount(labels.ravel())
    good = (area >= settings.min_area_px) & (area <= settings.max_area_px)
    good[np.unique(_rim(labels, border_px))] = False
    good[0] = False
    y_px, x_px = centroids(labels) if labels.any() else (np.empty(0), np.empty(0))
    order = np.lexsort((x_px, y_px))
    order = order[good[1:][order]]
    number = np.zeros(len(area), np.int32)
    number[order + 1] = np.arange(1, len(order) + 1)
    return number[labels], y_px[order], x_px[order]


def _rim(labels: np.ndarray, border_px: int) -> np.ndarray:
    inside = np.zeros(labels.shape, bool)
    inside[border_px : labels.shape[0] - border_px, border_px : labels.shape[1] - border_px] = True
    return labels[~inside]


def _nothing_found(scene: Scene, found: np.ndarray, settings: MaskSettings, border_px: int) -> str:
    sigma_e = max(scene.sigma_e, np.finfo(float).tiny)
    away_e = np.where(np.isfinite(scene.offset_e), scene.offset_e, 0.0)
    highest, lowest = (extreme(ndimage.gaussian_filter(away_e, SMOOTHING_PX)) / sigma_e for extreme in (np.max, np.min))
    return (
        f"no {settings.polarity} particle of {settings.min_area_px} to {settings.max_area_px} px farther than "
        f"{border_px} px from the frame's edge: background {scene.level_e:.0f} e, its scatter {scene.sigma_e:.3g} e, "
        f"brightest feature {highest:+.1f} sigma, darkest {lowest:+.1f} (threshold {settings.threshold_sigma:g}), "
        f"{int(found.sum())} px passed"
    )
