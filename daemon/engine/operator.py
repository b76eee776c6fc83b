"""The compiled photometry of a run: pixels to look at and weights, made once, applied to every frame.

`daemon.photometry.compile` builds it; `daemon.engine.pipeline` applies it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from kernels.photometry import SHIFT_Y, SUMS, TERMS

RING_DONORS = 5
BLEND_TOLD = 0.01
LEAST_PLANE_SPANS = 13  # 100 pixels; fewer say nothing of the illumination
BLUR_ANCHOR = 0.5  # of the PSF's variance: the additional blur for which the series of `taylor` are exact
MARGIN_PX = 12  # how far the scene may drift before index sets would leave the frame


@dataclass
class Operator:
    """Everything the engine needs to measure a frame; plain arrays only, so that it travels as one message.

    Indices are linear into the flat reference frame; a drift adds an offset. A span is 8 pixels from its start on;
    pointers count pixels, 8 a span. Columns of sums are those of `kernels.photometry`.
    """

    shape: np.ndarray
    """(2,) int64: height and width."""
    noise: np.ndarray
    """(3,) float64: gain_e_per_dn, read_noise_e, dark_dn."""
    defects: np.ndarray
    """(D,) int32: hot and dead pixels of the camera, replaced by their neighbours before anything is summed."""
    mask_span: np.ndarray
    """(S,) int32: spans over the particles' soft masks, particle by particle."""
    mask_pointer: np.ndarray
    """(P + 1,) int32."""
    weights: np.ndarray
    """(N,) int8: a row of weights for each sum, particle by particle, without the zeros at either end."""
    weight_first: np.ndarray
    """(P SUMS,) int32: the pixel at which each row begins."""
    weight_pointer: np.ndarray
    """(P SUMS + 1,) int32: where each row begins in `weights`."""
    weight_scale: np.ndarray
    """(P, SUMS) float64: what makes the real weights of those integers."""
    weight_sums: np.ndarray
    """(P, SUMS) float64: sums of the real weights."""
    taylor: np.ndarray
    """(P, TERMS, SHIFT_Y) float32: the weights of the sums before SHIFT_Y, summed over the reference's derivatives; see
    `kernels.photometry`.
    """
    shift_taylor: np.ndarray
    """(P, TERMS, 4) float32: the same for those of drift, blur and likeness."""
    reference_flux: np.ndarray
    """(P,) float64 electrons: the flux of the reference."""
    reference_bend: np.ndarray
    """(P, 2) float64: the reference's sums with the mask's gradient, without its background."""
    layer_noise: np.ndarray
    """(P, 4, 2) float64: of the reference, sum(m**2 e) / sum(m e), and sum(m**2)."""
    ring_span: np.ndarray
    ring_pointer: np.ndarray
    """(P + 1,) int32."""
    ring_weights: np.ndarray
    """(8 R,) int8: 1 for pixels of the ring, 0 for what a span covers beside."""
    ring_count: np.ndarray
    """(P,) int64: pixels of the ring."""
    ring_taylor: np.ndarray
    """(P, TERMS) float32: mean derivatives of the reference over the ring."""
    ring_level: np.ndarray
    """(P,) float64 electrons: mean of the reference over the ring."""
    ring_poor: np.ndarray
    """(P,) bool: rings with too few pixels of their own that borrow their neighbours' background."""
    reference_frames: int
    """Frames that the reference is the mean of."""
    blend_pointer: np.ndarray
    """(P + 1,) int32: where each particle's close neighbours begin in the next two."""
    blend_index: np.ndarray
    """(B,) int32: the neighbours, as positions 0..P-1."""
    blend_share: np.ndarray
    """(B,) float32: how much of the neighbour's flux falls into the particle's mask."""
    box: np.ndarray
    """(P, 4) int32: first and last row, first and last column that mask and ring touch."""
    plane_span: np.ndarray
    """(L,) int32: spans of inactive pixels."""
    plane_u: np.ndarray
    plane_v: np.ndarray
    """(L,) float32: coordinates of their centres, -1 to 1 across the frame."""
    plane_basis: np.ndarray
    """(3,) float64: sums of 1, u and v over the spans."""
    plane_taylor: np.ndarray
    """(3, TERMS) float64: the same sums over the derivatives of the reference."""
    plane_covariance: np.ndarray
    """(3, 3) float64: inverse normal matrix of the illumination plane a + b u + c v."""
    centre_uv: np.ndarray
    """(P, 2) float64: u and v at each particle."""
    reference_shift: np.ndarray
    """(P, 4) float64: the reference's sums for drift, blur and likeness, without its background."""
    shift_noise: np.ndarray
    """(P, 2, 2) float64: covariance of the sums for drift, from photon and read noise."""
    search_index: np.ndarray
    search_template: np.ndarray
    """(M,) int32 and float32: pixels, and the reference there, for finding a scene that jumped."""
    psf_sigma_px: float

    @property
    def particles(self) -> int:
        """Number of particles, P."""
        return len(self.ring_pointer) - 1

    @property
    def blended(self) -> np.ndarray:
        """(P,) bool: particles that receive more than `BLEND_TOLD` of their own flux from neighbours."""
        foreign = np.zeros(self.particles)
        receiver = np.repeat(np.arange(self.particles), np.diff(self.blend_pointer))
        np.add.at(foreign, receiver, self.blend_share * np.abs(self.reference_flux[self.blend_index]))
        return foreign > BLEND_TOLD * np.abs(self.reference_flux)

    def arrays(self) -> dict[str, np.ndarray]:
        """The operator as named arrays, for the link and for tests."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Operator:
        """Inverse of `arrays`."""
        # writable copies: a read-only array is another type to the compiler, and would compile every kernel again
        values = {f.name: np.array(arrays[f.name]) for f in fields(cls)}
        values["psf_sigma_px"] = float(values["psf_sigma_px"])  # type: ignore[assignment]
        values["reference_frames"] = int(values["reference_frames"])  # type: ignore[assignment]
        return cls(**values)  # type: ignore[arg-type]


def empty_operator(shape: tuple[int, int]) -> Operator:
    """An operator without particles that looks at one span and knows one defect: what warming needs."""
    none, few = np.empty(0, np.int32), np.array([33], np.int32)
    return Operator(
        shape=np.array(shape, np.int64), noise=np.array([1.0, 1.0, 0.0]), defects=few,
        mask_span=none, mask_pointer=np.zeros(1, np.int32),
        weights=np.empty(0, np.int8), weight_first=none, weight_pointer=np.zeros(1, np.int32),
        weight_scale=np.empty((0, SUMS)), weight_sums=np.empty((0, SUMS)),
        taylor=np.empty((0, TERMS, SHIFT_Y), np.float32),
        shift_taylor=np.empty((0, TERMS, SUMS - SHIFT_Y), np.float32),
        reference_flux=np.empty(0), reference_bend=np.empty((0, 2)),
        layer_noise=np.empty((0, 4, 2)), ring_span=none, ring_pointer=np.zeros(1, np.int32),
        ring_weights=np.empty(0, np.int8), ring_count=np.empty(0, np.int64),
        ring_taylor=np.empty((0, TERMS), np.float32), ring_level=np.empty(0), ring_poor=np.empty(0, bool),
        reference_frames=1, blend_pointer=np.zeros(1, np.int32), blend_index=none,
        blend_share=np.empty(0, np.float32), box=np.empty((0, 4), np.int32),
        plane_span=np.repeat(few - 1, LEAST_PLANE_SPANS), plane_u=np.zeros(LEAST_PLANE_SPANS, np.float32),
        plane_v=np.zeros(LEAST_PLANE_SPANS, np.float32), plane_basis=np.zeros(3),
        plane_taylor=np.zeros((3, TERMS)), plane_covariance=np.eye(3), centre_uv=np.empty((0, 2)),
        reference_shift=np.empty((0, 4)), shift_noise=np.empty((0, 2, 2)), search_index=none,
        search_template=np.empty(0, np.float32), psf_sigma_px=1.5,
    )  # fmt: skip


def ring_donors(poor: np.ndarray, centre_uv: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """For each particle with a poor ring, (P,) bool, the nearest particles with a good one."""
    good = np.flatnonzero(~poor)
    donors = []
    for particle in np.flatnonzero(poor):
        distance = ((centre_uv[good] - centre_uv[particle]) ** 2).sum(axis=1)
        donors.append((int(particle), good[np.argsort(distance)[:RING_DONORS]]))
    return donors
