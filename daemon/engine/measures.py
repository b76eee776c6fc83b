"""What the engine measures: the data that crosses from pixels to science, live and offline alike.

Arrays are indexed by position in the run's `MaskSet` (0..P-1), never by particle id; ids live in `MaskSet.particle_id`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntFlag
from typing import Any, Literal

import numpy as np

LAYERS = ("surface", "outer", "inner", "core")
"""The four layers of a particle from its edge inwards, each a quarter of its area."""


class FrameFlag(IntFlag):
    """Why a frame's values need care; bits of the `flags` column of `frames`."""

    GAP_BEFORE = 1
    """Frames were lost between the previous one and this one."""
    DRIFT_UNKNOWN = 2
    """Registration failed: the frame does not show the reference's scene. Nothing was measured."""
    DRIFT_JUMP = 4
    """The scene moved by more than a pixel since the previous frame."""
    ILLUMINATION_STEP = 8
    FOCUS_JUMP = 16
    CONSTANT = 32
    """All sampled pixels are equal: a dead or black camera, not a scene. Nothing was measured."""
    REPEATED = 64
    """Bit for bit the previous frame. Nothing was measured."""
    DARK = 128
    """No light falls on the inactive pixels: the lamp or a shutter. Nothing was measured."""


NOTHING_SHOWN = {
    FrameFlag.CONSTANT: "all pixels are equal",
    FrameFlag.REPEATED: "the picture is the one before",
    FrameFlag.DARK: "no light falls on it",
    FrameFlag.DRIFT_UNKNOWN: "it shows another scene",
}
"""Flags of frames in which nothing is measured, with why."""


class ParticleFlag(IntFlag):
    """Why a particle's value needs care; bits of the `flags` column of `traces`."""

    SATURATED = 1
    """At least one pixel of the mask reached 98 % of full scale."""
    EDGE = 2
    """Mask or ring left the frame through drift; the value is NaN."""
    BAD_RING = 4
    """Too few background pixels; neighbours' background was used."""
    BLENDED = 8
    """Over 1 % of the light in the mask is a close neighbour's; what the PSF spreads there was taken off."""


@dataclass
class MaskSet:
    """The particles of a run: found once, then changed only by an operator's edits, each a version of its own.

    `labels` is (H, W) int32: 0 background, i + 1 the particle at index i. A particle keeps its index and its id for the
    whole run; one that was removed has no pixels any more. `table` holds one array of length P for each
    shape column of the `particles` export (`area_px`, `equivalent_diameter_um`, ... NaN where the pixel size is
    unknown). `psf_sigma_px` is the blur the segmentation assumed or measured.
    """

    labels: np.ndarray
    particle_id: np.ndarray
    y_px: np.ndarray
    x_px: np.ndarray
    table: dict[str, np.ndarray]
    psf_sigma_px: float
    pixel_size_nm: float | None
    version: int = 1
    excluded: np.ndarray | None = None
    """(H, W) bool: light of what was found but is no particle of the run (cut by the frame's edge, too small or too
    large); no background is read there. None: nowhere.
    """
    active: np.ndarray | None = None
    """(P,) bool: false for particles that an operator removed. None: all are there."""
    parent_id: np.ndarray | None = None
    """(P,) int64: the particle that each replaced, 0 for none. None: none replaced another."""

    @property
    def count(self) -> int:
        """Number of particles, P, the removed ones included."""
        return len(self.particle_id)

    @property
    def positions(self) -> np.ndarray:
        """(K,) indices of the particles that are there: the columns of what the engine measures."""
        return np.arange(self.count) if self.active is None else np.flatnonzero(self.active)

    def measured(self) -> MaskSet:
        """The same particles without the removed ones, (K,) each: what an operator is compiled from."""
        if self.active is None:
            return self
        keep = self.positions
        number = np.zeros(self.count + 1, np.int32)
        number[keep + 1] = np.arange(1, len(keep) + 1)
        parents = None if self.parent_id is None else self.parent_id[keep]
        return replace(
            self, labels=number[self.labels], particle_id=self.particle_id[keep], y_px=self.y_px[keep],
            x_px=self.x_px[keep], table={name: column[keep] for name, column in self.table.items()}, active=None,
            parent_id=parents,
        )  # fmt: skip


def kept_columns(before: MaskSet, after: MaskSet) -> np.ndarray:
    """(K',) int32: for each particle measured by `after`, its column in what `before` measured; -1 for a new one."""
    column = np.full(max(before.count, after.count), -1, np.int32)
    column[before.positions] = np.arange(len(before.positions))
    return column[after.positions]


Origin = Literal["given", "estimated", "assumed"]
"""Where a value is from: camera, recording or settings; the data; what is typical of such cameras."""


@dataclass(frozen=True)
class NoiseModel:
    """How DN become electrons and how sure they are: v = e + read_noise_e**2 + gain**2/12 per pixel.

    Of each value: its origin, and one standard deviation in its own unit, None where it was given.
    """

    gain_e_per_dn: float
    read_noise_e: float
    dark_dn: float
    estimated: bool = False
    """True when any of them was not given."""
    gain_origin: Origin = "given"
    read_noise_origin: Origin = "given"
    dark_origin: Origin = "given"
    gain_sigma_e_per_dn: float | None = None
    read_noise_sigma_e: float | None = None
    dark_sigma_dn: float | None = None

    def sentences(self) -> list[str]:
        """A line for people on each value, e.g. ``gain 8.03 e/DN (estimated, +-0.5 %)``."""
        return [
            _told("gain", self.gain_e_per_dn, "e/DN", self.gain_origin, self.gain_sigma_e_per_dn),
            _told("read noise", self.read_noise_e, "e", self.read_noise_origin, self.read_noise_sigma_e),
            _told("dark level", self.dark_dn, "DN", self.dark_origin, self.dark_sigma_dn),
        ]


def _told(name: str, value: float, unit: str, origin: Origin, sigma: float | None) -> str:
    within = ""
    if sigma is not None:
        within = f", +-{100 * sigma / value:.2g} %" if value > sigma else f", +-{sigma:.2g} {unit}"
    return f"{name} {value:.3g} {unit} ({origin}{within})"


@dataclass(frozen=True)
class Detection:
    """An abrupt change of one particle's relative brightness, as the sequential detector saw it."""

    index: int
    """The particle's index in the mask set."""
    onset_frame: int
    """Run frame index of the estimated first frame of the change."""
    detected_frame: int
    magnitude: float
    """Change of contrast C = F/F0 - 1."""
    magnitude_sigma: float
    score: float
    """CUSUM statistic at the alarm, in units of the log-likelihood ratio."""
    common_fraction: float
    """Share of all particles that alarmed within the same tenth of a second: near 1 it is the instrument, not the
    particle.
    """


@dataclass(frozen=True)
class Clip:
    """Raw pixels of a particle's patch before and after a step: `pixels` (L, h, w) uint16 DN at `t_s` (L,), run time.

    Each look is taken where the scene stood then; (`y0_px`, `x0_px`) is the patch's corner in the reference frame.
    """

    index: int
    onset_frame: int
    """Of the step that asked for it."""
    y0_px: int
    x0_px: int
    t_s: np.ndarray
    pixels: np.ndarray


@dataclass
class MeasureBatch:
    """N consecutive frames of a run: (N,) arrays a frame, (N, P) arrays a frame and particle.

    `flux_e` is background-subtracted, illumination-normalised electrons; `layer_flux_e` is (N, P, 4) in the order of
    `LAYERS`; `centroid_*_px` is the flux-weighted centroid relative to the mask's own centre, drift removed.
    Unmeasured values are NaN. `t_s` counts from the run's first frame on the camera's clock.
    """

    frame: np.ndarray
    block_id: np.ndarray
    t_s: np.ndarray
    host_t_s: np.ndarray
    drift_y_px: np.ndarray
    drift_x_px: np.ndarray
    drift_sigma_px: np.ndarray
    illumination: np.ndarray
    focus: np.ndarray
    flags: np.ndarray
    flux_e: np.ndarray
    flux_sigma_e: np.ndarray
    layer_flux_e: np.ndarray
    layer_sigma_e: np.ndarray
    centroid_y_px: np.ndarray
    centroid_x_px: np.ndarray
    particle_flags: np.ndarray
    detections: list[Detection] = field(default_factory=list)
    baseline_flux_e: np.ndarray | None = None
    """F0 of each particle, (P,), once the baseline is complete; None before."""
    baseline_layer_flux_e: np.ndarray | None = None
    """(P, 4), with `baseline_flux_e`."""
    axial_flux_e: np.ndarray | None = None
    """(N, P, 8) like `layer_flux_e`, by eighths of the area along the major axis; None from an older source."""
    camera_t0_s: float = float("nan")
    """The run's first frame on the camera's own clock: `t_s` counts from it."""
    mask_version: int = 1
    """Version of the masks that all of these frames were measured by."""
    baseline_end_frame: int = 0
    """Number of the first frame behind the baseline that F0 was last measured in."""
    clips: list[Clip] = field(default_factory=list)
    """Complete since the last batch; their steps may be of an earlier one."""

    def __len__(self) -> int:
        return len(self.frame)

    def spread(self, masks: MaskSet) -> MeasureBatch:
        """The batch with a column for each particle of `masks`, P in all; nothing is known of the removed ones."""
        if masks.active is None:
            return self
        place = masks.positions
        wide: dict[str, Any] = {name: _spread(getattr(self, name), place, masks.count) for name in WIDE}
        for name in ("baseline_flux_e", "baseline_layer_flux_e"):
            known = getattr(self, name)
            wide[name] = None if known is None else _spread(known[None], place, masks.count)[0]
        if self.axial_flux_e is not None:
            wide["axial_flux_e"] = _spread(self.axial_flux_e, place, masks.count)
        moved = [replace(found, index=int(place[found.index])) for found in self.detections]
        clips = [replace(clip, index=int(place[clip.index])) for clip in self.clips]
        return replace(self, detections=moved, clips=clips, **wide)


WIDE = (
    "flux_e", "flux_sigma_e", "layer_flux_e", "layer_sigma_e", "centroid_y_px", "centroid_x_px", "particle_flags",
)  # fmt: skip
"""Fields of a batch with a column for each particle."""


def _spread(values: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    """(N, K, ...) to (N, P, ...): NaN, or 0 in integers, in the columns not in `place`."""
    values = np.asarray(values)
    wide = np.full((len(values), count, *values.shape[2:]), np.nan if values.dtype.kind == "f" else 0, values.dtype)
    wide[:, place] = values
    return wide
