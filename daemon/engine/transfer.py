"""Photon-transfer statistics of frames: each pixel's mean, its temporal variance, its answer to the common light."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from kernels.calibrate import accumulate
from kernels.transfer import respond


@dataclass
class Transfer:
    """(H, W) float32 images and scalars over `frames` frames in stretches of consecutive ones.

    Half the mean squared difference of successive frames is the variance, blind to slow drift. The common light M is a
    frame's mean, or that of chosen pixels. A response is the slope of a pixel on M, dimensionless: by successive
    differences (`step_response`) and by levels (`level_response`); both are None where nobody summed them up.
    """

    mean_dn: np.ndarray
    variance_dn2: np.ndarray
    """Changes of the common light included; NaN without two successive frames."""
    frames: int
    pairs: int
    """Successive differences, J."""
    stretches: int = 1
    common_dn: float = 0.0
    """Mean of M."""
    common_pixels: int = 1
    """How many pixels M is the mean of."""
    duration_s: float = 0.0
    """From the first to the last frame, 0 where not known."""
    step_response: np.ndarray | None = None
    level_response: np.ndarray | None = None
    step_power_dn2: float = 0.0
    """Sum of squared differences of M."""
    step_overlap_dn2: float = 0.0
    """Sum of products of successive differences of M: they share a frame and its noise."""
    level_power_dn2: float = 0.0
    """Sum of squared deviations of M from its mean."""

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the variance: successive differences overlap, which costs a third of them."""
        return 2 * self.pairs**2 / max(3 * self.pairs - self.stretches, 1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as arrays by name, scalars without axes: what the link carries."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: np.asarray(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Transfer:
        """Inverse of `arrays`."""
        values: dict[str, Any] = {name: array if array.ndim else array.item() for name, array in arrays.items()}
        return cls(**values)


class TransferSums:
    """Adds up frames of `shape` (H, W), one by one, in stretches.

    `common` (H, W) bool are the pixels that show the common light; all when absent or when none is True.
    """

    def __init__(self, shape: tuple[int, int], common: np.ndarray | None = None) -> None:
        size = shape[0] * shape[1]
        self._shape = shape
        self._index = np.flatnonzero(common) if common is not None and common.any() else None
        self._total, self._square = np.zeros(size, np.float32), np.zeros(size, np.float32)
        self._by_step, self._by_level = np.zeros(size, np.float32), np.zeros(size, np.float32)
        self._previous: np.ndarray | None = None
        self._common: list[list[float]] = []
        """M of every frame, stretch by stretch."""

    def begin_stretch(self) -> None:
        """The next frame does not follow the one before."""
        self._previous = None

    def add(self, dn: np.ndarray) -> None:
        """Add an (H, W) frame of any number type."""
        frame = dn.reshape(-1).astype(np.float32)
        common = float((frame if self._index is None else frame[self._index]).mean(dtype=np.float64))
        if self._previous is None:
            self._common.append([])
        step = common - self._common[-1][-1] if self._common[-1] else 0.0
        self._common[-1].append(common)
        offset = self._common[0][0]
        previous = frame if self._previous is None else self._previous
        respond(frame, previous, step, common - offset, offset, self._by_step, self._by_level)
        if self._previous is None:
            self._total += frame
            self._previous = frame
        else:
            accumulate(frame, self._total, self._square, self._previous)

    def result(self) -> Transfer:
        """The statistics so far; at least one frame was added."""
        common = np.concatenate(self._common) - self._common[0][0]
        frames, pairs = len(common), len(common) - len(self._common)
        steps = [np.diff(stretch) for stretch in self._common]
        mean = self._total / frames
        step_power = float(sum(np.sum(step**2) for step in steps))
        level_power = float(np.sum((common - common.mean()) ** 2))
        by_level = self._by_level - np.float32(common.sum()) * (mean - np.float32(self._common[0][0]))
        variance = self._square / (2 * pairs) if pairs else np.full_like(self._square, np.nan)
        return Transfer(
            mean.reshape(self._shape),
            variance.reshape(self._shape),
            frames,
            pairs,
            len(self._common),
            float(common.mean()) + self._common[0][0],
            len(self._total) if self._index is None else len(self._index),
            0.0,
            (self._by_step / np.float32(step_power)).reshape(self._shape) if step_power else None,
            (by_level / np.float32(level_power)).reshape(self._shape) if level_power else None,
            step_power,
            float(sum(np.sum(step[1:] * step[:-1]) for step in steps)),
            level_power,
        )
