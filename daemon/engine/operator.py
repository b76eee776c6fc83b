"""The compiled photometry of a run: index lists and weights, made once, applied to every frame.

`daemon.photometry.compile` builds it; `daemon.engine.pipeline` applies it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

MARGIN_PX = 12  # how far the scene may drift before index sets would leave the frame


@dataclass
class Operator:
    """Everything the engine needs to measure a frame; plain arrays only, so that it travels as one message.

    Indices are linear into the flat reference frame; a drift adds an offset. Segments are (particle, layer) in the
    order of `LAYERS`.
    """

    shape: np.ndarray
    """(2,) int64: height and width."""
    noise: np.ndarray
    """(3,) float64: gain_e_per_dn, read_noise_e, dark_dn."""
    defects: np.ndarray
    """(D,) int32: hot and dead pixels of the camera, replaced by their neighbours before anything is summed."""
    index: np.ndarray
    """(M,) int32: pixels on the soft rim of masks."""
    weights: np.ndarray
    """(5, M) float32: soft mask, its y and x gradient, y and x relative to the particle's centre."""
    pointer: np.ndarray
    """(P * 4 + 1,) int32."""
    inner_index: np.ndarray
    """(N,) int32: pixels well inside, which count fully wherever a sub-pixel shift moves the mask."""
    inner_place: np.ndarray
    """(2, N) float32: y and x relative to the particle's centre."""
    inner_pointer: np.ndarray
    """(P * 4 + 1,) int32."""
    weight_sums: np.ndarray
    """(P * 4, 7) float64: sums of w, dw/dy, dw/dx, w**2, y w, x w, and pixels of w > 1/2."""
    ring_index: np.ndarray
    ring_pointer: np.ndarray
    ring_poor: np.ndarray
    """(P,) bool: rings with too few pixels of their own that borrow their neighbours' background."""
    box: np.ndarray
    """(P, 4) int32: first and last row, first and last column that mask and ring touch."""
    plane_index: np.ndarray
    plane_u: np.ndarray
    plane_v: np.ndarray
    plane_covariance: np.ndarray
    """(3, 3) float64: inverse normal matrix of the illumination plane a + b u + c v."""
    centre_uv: np.ndarray
    """(P, 2) float64: u and v at each particle."""
    shift_index: np.ndarray
    shift_weights: np.ndarray
    """(4, M) float32: y shift, x shift, blur and template functionals."""
    shift_bias: np.ndarray
    """(4,) float64: the functionals' values on the reference."""
    shift_series: np.ndarray
    """(4, 9) float64: Taylor coefficients of the functionals in the shift: y, x, yy, yx, xx, yyy, yyx, yxx,
    xxx."""
    shift_covariance: np.ndarray
    """(2, 2) float64, px**2 per frame, from photon and read noise (reference taken as noiseless)."""
    blur_gain: float
    """d(sigma**2) in px**2 per unit of the blur functional."""
    psf_sigma_px: float

    @property
    def particles(self) -> int:
        """Number of particles, P."""
        return len(self.ring_pointer) - 1

    def arrays(self) -> dict[str, np.ndarray]:
        """The operator as named arrays, for the link and for tests."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Operator:
        """Inverse of `arrays`."""
        # writable copies: a read-only array is another type to the compiler, and would compile every kernel again
        values = {f.name: np.array(arrays[f.name]) for f in fields(cls)}
        for scalar in ("blur_gain", "psf_sigma_px"):
            values[scalar] = float(values[scalar])  # type: ignore[assignment]
        return cls(**values)  # type: ignore[arg-type]
