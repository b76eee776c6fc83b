"""The shape table: what the `particles` export says of each particle's outline, place and brightness."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from skimage.measure import regionprops_table
from skimage.segmentation import expand_labels

NEIGHBOURHOOD_UM = 10.0
WING_SIGMA = 2.5  # a Gaussian edge has 0.6 % of its step left beyond this many sigma


def centroids(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(y, x) of each label's centre of area, pixels, in label order; labels must be 1..P."""
    table = regionprops_table(labels, properties=("centroid",))
    return np.asarray(table["centroid-0"], float), np.asarray(table["centroid-1"], float)


def shape_table(
    labels: np.ndarray, signal_e: np.ndarray, psf_sigma_px: float, pixel_size_nm: float | None
) -> dict[str, np.ndarray]:
    """The shape columns of `particles`, each (P,) float64; lengths in um are NaN when `pixel_size_nm` is None.

    `labels` (H, W) int32 with 1..P all present; `signal_e` (H, W) electrons above the background. `brightness_e` sums
    the signal over the particle and its blurred rim (where no neighbour is nearer); negative for a dark particle.
    """
    properties = ("area", "axis_major_length", "axis_minor_length", "solidity", "centroid")
    measured = {name: np.asarray(v, float) for name, v in regionprops_table(labels, properties=properties).items()}
    um = np.nan if pixel_size_nm is None else pixel_size_nm / 1000
    major, minor = measured["axis_major_length"], measured["axis_minor_length"]
    nearest, neighbours = _neighbours(measured["centroid-0"], measured["centroid-1"], um)
    return {
        "area_px": measured["area"],
        "equivalent_diameter_um": np.sqrt(4 * measured["area"] / np.pi) * um,
        "major_um": major * um,
        "minor_um": minor * um,
        "aspect_ratio": major / np.where(minor > 0, minor, np.nan),
        "solidity": measured["solidity"],
        "nearest_neighbour_um": nearest,
        "neighbours_within_10um": neighbours,
        "brightness_e": _brightness(labels, signal_e, psf_sigma_px),
    }


def _neighbours(y_px: np.ndarray, x_px: np.ndarray, um: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest other centre in um, and how many others lie within `NEIGHBOURHOOD_UM`."""
    unknown = np.full(len(y_px), np.nan)
    if np.isnan(um) or len(y_px) == 0:
        return unknown, unknown.copy()
    centres = np.column_stack([y_px, x_px]) * um
    tree = cKDTree(centres)
    nearest = tree.query(centres, k=[2])[0][:, 0]
    counts = tree.query_ball_point(centres, NEIGHBOURHOOD_UM, return_length=True) - 1
    return np.where(np.isfinite(nearest), nearest, np.nan), counts.astype(float)


def _brightness(labels: np.ndarray, signal_e: np.ndarray, psf_sigma_px: float) -> np.ndarray:
    grown = expand_labels(labels, WING_SIGMA * psf_sigma_px)
    finite = np.where(np.isfinite(signal_e), signal_e, 0.0)
    return np.bincount(grown.ravel(), finite.ravel(), labels.max() + 1)[1:]
