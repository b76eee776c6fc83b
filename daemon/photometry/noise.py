"""Gain, read noise and dark level: as given, as the data's own static pixels tell, or as is typical, and how sure.

The photon-transfer line has two coefficients for three values; what the light's changes say of the dark level is the
third. Where that is not enough, the read noise of a typical camera joins in, and is told to be an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from daemon.engine.measures import NoiseModel, Origin
from daemon.engine.transfer import Transfer
from daemon.errors import RecordingError, RecordingReason

if TYPE_CHECKING:
    from daemon.photometry.transfer import Evidence

TYPICAL_READ_NOISE_E = 7.0  # CMOS sensors of this field, 32 ke full well and 73 dB: docs/science.md
READ_NOISE_SPREAD_E = 3.0
TYPICAL_DARK_SHARE = 1 / 64  # of full scale, and as uncertain; joins in where the scene is too even for a line
WEAK = 1e3  # spreads of what is typical: a value that nothing tells is then uncertain, not undefined
DECISIVE = 3.0  # times better than what is typical: then the data are taken alone
CONFLICT = 3.0  # standard deviations: data that contradict what is typical are taken at their word
QUANTISATION_DN2 = 1 / 12
ROUNDS = 50
VALUES = ("gain_e_per_dn", "read_noise_e", "dark_dn")


@dataclass(frozen=True)
class NoiseHints:
    """What camera, recording or settings say; None where they do not."""

    gain_e_per_dn: float | None = None
    read_noise_e: float | None = None
    dark_dn: float | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be found."""
        return None not in (self.gain_e_per_dn, self.read_noise_e, self.dark_dn)

    def with_dark(self, dark_map: np.ndarray | None) -> NoiseHints:
        """The same with the dark level of an (H, W) map in DN, which replaces any other, where there is one."""
        return self if dark_map is None else replace(self, dark_dn=float(np.mean(dark_map)))


def resolve_noise(hints: NoiseHints, transfer: Transfer, bit_depth: int) -> NoiseModel:
    """The noise model from hints, the missing part from the statistics of frames.

    Raises `RecordingError` (MISSING_VALUE) naming the value when it is neither given nor to be had from the data.
    """
    if hints.gain_e_per_dn is not None and hints.read_noise_e is not None and hints.dark_dn is not None:
        return NoiseModel(hints.gain_e_per_dn, hints.read_noise_e, hints.dark_dn)
    from daemon.photometry.transfer import read_off  # scipy's image functions: only who prepares a run pays for them

    evidence = read_off(transfer, bit_depth)
    for name in ("gain_e_per_dn", "dark_dn"):
        if evidence.line is None and getattr(hints, name) is None:
            raise RecordingError(
                RecordingReason.MISSING_VALUE, f"{name} is not given, and too few frames or pixels tell it"
            )
    return _Solver(hints, evidence, (2**bit_depth - 1) * TYPICAL_DARK_SHARE).model()


class _Solver:
    """Weighted least squares for (gain, squared read noise, dark level), Gauss-Newton; what is given stays."""

    def __init__(self, hints: NoiseHints, evidence: Evidence, dark_spread_dn: float) -> None:
        self._evidence = evidence
        read_noise_e = TYPICAL_READ_NOISE_E if hints.read_noise_e is None else hints.read_noise_e
        self._typical = np.array([np.nan, TYPICAL_READ_NOISE_E**2, dark_spread_dn])
        self._spread = np.array([np.inf, 2 * TYPICAL_READ_NOISE_E * READ_NOISE_SPREAD_E, dark_spread_dn])
        self._free = np.array([getattr(hints, name) is None for name in VALUES])
        dark_dn = dark_spread_dn if hints.dark_dn is None else hints.dark_dn
        gain = self._rough_gain(dark_dn) if hints.gain_e_per_dn is None else hints.gain_e_per_dn
        self._start = np.array([gain, read_noise_e**2, dark_dn])

    def _rough_gain(self, dark_dn: float) -> float:
        line = self._evidence.line
        if line is None:
            return 1.0
        if np.isfinite(line.slope_dn):
            return 1.0 / line.slope_dn
        return max(line.mean_dn - dark_dn, 0.1 * line.mean_dn) / line.variance_dn2

    def model(self) -> NoiseModel:
        """What is typical joins in by its weight, the read noise first, where the data alone are not decisive."""
        joined, assumed = np.zeros(3, bool), np.zeros(3, bool)
        values, sigma = self._solve(joined)
        for which in (1, 2):
            spread = self._spread[which]
            contradicts = abs(values[which] - self._typical[which]) > CONFLICT * np.hypot(sigma[which], spread)
            if self._free[which] and DECISIVE * sigma[which] > spread and not contradicts:
                joined[which] = True
                assumed[which] = sigma[which] > spread
                values, sigma = self._solve(joined)
        if assumed[1]:  # it shared in the others' values; of itself the data have next to nothing to say
            values[1], sigma[1] = self._typical[1], self._spread[1]
        return self._told(values, sigma, assumed)

    def _solve(self, joined: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values and standard deviations. No read noise and no dark level is below zero."""
        values, sigma, free = self._start.copy(), np.zeros(3), self._free
        if not free.any():
            return values, sigma
        values, sigma = self._descend(values, free, joined)
        for which in (1, 2):
            if free[which] and values[which] < 0:
                free = free.copy()
                free[which] = False
                values[which] = 0.0
                if free.any():
                    values, remaining = self._descend(values, free, joined)
                    sigma = np.where(free, remaining, sigma)
        return values, sigma

    def _descend(self, start: np.ndarray, free: np.ndarray, joined: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, scale = start.copy(), np.array([start[0], self._spread[1], self._spread[2]])
        for _ in range(ROUNDS):
            residual, jacobian = self._residual(values, free, joined)
            jacobian = (jacobian * scale)[:, free]
            step = np.linalg.lstsq(jacobian, -residual, rcond=None)[0]
            # the gain, a scale, at most halves or doubles in a step
            step = step * min(1.0, 0.5 * values[0] / max(abs(step[0]) * scale[0], 1e-300)) if free[0] else step
            values[free] += step * scale[free]
            if np.max(np.abs(step)) < 1e-9:
                break
        covariance = np.linalg.pinv(jacobian.T @ jacobian)
        sigma = np.zeros(3)
        sigma[free] = np.sqrt(np.maximum(np.diag(covariance), 0.0)) * scale[free]
        return values, sigma

    def _residual(self, values: np.ndarray, free: np.ndarray, joined: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals (n,) in standard deviations, and their derivatives (n, 3)."""
        rows = [*self._of_line(*values), *self._of_dark(values[2])]
        for which in (1, 2):
            spread = self._spread[which] * (1.0 if joined[which] else WEAK)
            derivative = np.zeros(3)
            derivative[which] = 1 / spread
            rows.append(((values[which] - self._typical[which]) / spread, derivative))
        return np.array([residual for residual, _ in rows]), np.array([derivative for _, derivative in rows])

    def _of_line(self, gain: float, squared: float, dark_dn: float) -> list[tuple[float, np.ndarray]]:
        line = self._evidence.line
        if line is None:
            return []
        above = line.mean_dn - dark_dn
        height = above / gain + squared / gain**2 + QUANTISATION_DN2 - line.variance_dn2
        of_height = np.array([-above / gain**2 - 2 * squared / gain**3, 1 / gain**2, -1 / gain])
        if not np.isfinite(line.slope_dn):
            sigma = np.sqrt(line.covariance[1, 1])
            return [(height / sigma, of_height / sigma)]
        whitening = np.linalg.inv(np.linalg.cholesky(line.covariance))
        residual = whitening @ np.array([1 / gain - line.slope_dn, height])
        jacobian = whitening @ np.array([[-1 / gain**2, 0.0, 0.0], of_height])
        return list(zip(residual.tolist(), jacobian, strict=True))

    def _of_dark(self, dark_dn: float) -> list[tuple[float, np.ndarray]]:
        if self._evidence.dark_dn is None:
            return []
        level, sigma = self._evidence.dark_dn
        return [((dark_dn - level) / sigma, np.array([0.0, 0.0, 1 / sigma]))]

    def _told(self, values: np.ndarray, sigma: np.ndarray, assumed: np.ndarray) -> NoiseModel:
        read_noise_e = float(np.sqrt(values[1]))
        sigmas = [sigma[0], sigma[1] / max(2 * read_noise_e, np.sqrt(sigma[1]), 1e-12), sigma[2]]
        origins: list[Origin] = [
            "given" if not free else "assumed" if typical else "estimated"
            for free, typical in zip(self._free, assumed, strict=True)
        ]
        known = [None if origin == "given" else float(s) for origin, s in zip(origins, sigmas, strict=True)]
        of_gain, of_read_noise, of_dark = origins
        return NoiseModel(
            gain_e_per_dn=float(values[0]),
            read_noise_e=read_noise_e,
            dark_dn=float(values[2]),
            estimated=bool(self._free.any()),
            gain_origin=of_gain,
            read_noise_origin=of_read_noise,
            dark_origin=of_dark,
            gain_sigma_e_per_dn=known[0],
            read_noise_sigma_e=known[1],
            dark_sigma_dn=known[2],
        )
