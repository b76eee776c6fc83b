"""Bounded memory of a run: means over blocks of run time, and a history of them that halves its resolution when full.

Sums run frame by frame in order, so results do not depend on how frames were batched.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np

from daemon.engine.measures import LAYERS
from kernels.photometry import AXIAL_BINS

VALUES = 1 + len(LAYERS)
"""Values kept a particle: its contrast, then those of its layers."""

T = TypeVar("T")


def grown(values: np.ndarray, particles: int, fill: float, axis: int = 0) -> np.ndarray:
    """`values` with room for `particles` along `axis`, `fill` for those that came later."""
    missing = [(0, 0)] * values.ndim
    missing[axis] = (0, particles - values.shape[axis])
    return np.pad(values, missing, constant_values=fill)


def all_grown(record: T, particles: int) -> T:
    """A dataclass with every (P, ...) array grown: NaN, or false, for particles that came later."""
    each: Any = record
    arrays = {f.name: getattr(each, f.name) for f in fields(each) if isinstance(getattr(each, f.name), np.ndarray)}
    wide = {name: grown(a, particles, False if a.dtype == bool else np.nan) for name, a in arrays.items()}
    return replace(each, **wide)


@dataclass(frozen=True)
class Block:
    """Mean of the measured frames of one block; NaN for particles without any."""

    t_s: float
    """Mean time of its frames."""
    values: np.ndarray
    """(P, 5) float64: contrast, then the four layers' contrasts."""
    variance: np.ndarray
    """(P,) variance of the mean contrast from the frames' own sigma."""
    axial: np.ndarray = field(default_factory=lambda: np.empty((0, AXIAL_BINS)))
    """(P, 8) axial bins as shares of the particle's F0; empty from a source without them."""
    rest_px: tuple[float, float] = (0.0, 0.0)
    """Mean drift y, x that the masks did not follow."""


class BlockMeans:
    """Averages frames that fall into the same `block_s` of run time."""

    def __init__(self, particles: int, block_s: float) -> None:
        self._block_s = block_s
        self._shape = (particles, VALUES)
        self._index: float | None = None
        self.out_of_order = 0
        """Frames left out because their time was missing or ran backwards."""
        self._clear()

    def _clear(self) -> None:
        self._t_sum, self._frames = 0.0, 0
        self._sums = np.zeros(self._shape)
        self._counts = np.zeros(self._shape)
        self._variance = np.zeros(self._shape[0])
        self._axial = np.zeros((self._shape[0], AXIAL_BINS))
        self._axial_counts = np.zeros(self._axial.shape)
        self._rest = np.zeros(2)

    def grow(self, particles: int) -> None:
        """Go on with more particles, unmeasured until now."""
        self._shape = (particles, VALUES)
        self._sums, self._counts, self._variance = (
            grown(sums, particles, 0.0) for sums in (self._sums, self._counts, self._variance)
        )
        self._axial, self._axial_counts = (grown(sums, particles, 0.0) for sums in (self._axial, self._axial_counts))

    def add(
        self,
        t_s: float,
        values: np.ndarray,
        measured: np.ndarray,
        variance: np.ndarray,
        axial: np.ndarray | None = None,
        rest_px: tuple[float, float] = (0.0, 0.0),
    ) -> Block | None:
        """Take one frame: (P, 5) values with 0 where `measured` is false, (P,) variance likewise, and what else a
        `Block` has; NaN in `axial` (P, 8) where unmeasured.

        Returns the block that this frame completed, if any.
        """
        if not np.isfinite(t_s):
            self.out_of_order += 1
            return None
        index = float(np.floor(t_s / self._block_s))
        if self._index is not None and index < self._index:
            self.out_of_order += 1
            return None
        done = self.flush() if self._index is not None and index > self._index else None
        self._index = index
        self._t_sum += t_s
        self._frames += 1
        self._sums += values
        self._counts += measured
        self._variance += variance
        self._rest += rest_px
        if axial is not None:
            known = np.isfinite(axial)
            self._axial += np.where(known, axial, 0.0)
            self._axial_counts += known
        return done

    def flush(self) -> Block | None:
        """The block under way, even if incomplete; None when it is empty."""
        if not self._frames:
            return None
        counts = np.where(self._counts > 0, self._counts, np.nan)
        rest_y, rest_x = (self._rest / self._frames).tolist()
        axial = self._axial / np.where(self._axial_counts > 0, self._axial_counts, np.nan)
        variance = self._variance / counts[:, 0] ** 2
        block = Block(self._t_sum / self._frames, self._sums / counts, variance, axial, (rest_y, rest_x))
        self._clear()
        return block


class History:
    """At most `capacity` points; when full, neighbours are averaged and later blocks come in coarser groups."""

    def __init__(self, particles: int, capacity: int) -> None:
        self._capacity = max(4, capacity - capacity % 2)
        self._t = np.empty(self._capacity)
        self._values = np.empty((self._capacity, particles, VALUES), np.float32)
        self._variance = np.empty((self._capacity, particles), np.float32)
        self._axial = np.empty((self._capacity, particles, AXIAL_BINS), np.float32)
        self._rest = np.empty((self._capacity, 2))
        self._size = 0
        self._stride = 1
        self._group: list[Block] = []
        self.whole = np.ones(particles, bool)
        """(P,) false for particles that came after its first point: what they did is only a part."""

    def __len__(self) -> int:
        return self._size

    def grow(self, particles: int) -> None:
        """Go on with more particles, unmeasured until now."""
        begun = bool(self._size or self._group)
        self.whole = grown(self.whole, particles, not begun)
        self._values = grown(self._values, particles, np.nan, axis=1)
        self._variance = grown(self._variance, particles, np.nan, axis=1)
        self._axial = grown(self._axial, particles, np.nan, axis=1)
        self._group = [all_grown(block, particles) for block in self._group]

    @property
    def t_s(self) -> np.ndarray:
        """(n,) times."""
        return self._t[: self._size]

    @property
    def contrast(self) -> np.ndarray:
        """(n, P) float32."""
        return self._values[: self._size, :, 0]

    @property
    def layers(self) -> np.ndarray:
        """(n, P, 4) float32."""
        return self._values[: self._size, :, 1:]

    @property
    def variance(self) -> np.ndarray:
        """(n, P) float32, variance of `contrast`."""
        return self._variance[: self._size]

    @property
    def axial(self) -> np.ndarray:
        """(n, P, 8) float32, shares of F0."""
        return self._axial[: self._size]

    @property
    def rest_px(self) -> np.ndarray:
        """(n, 2) drift y, x that the masks did not follow."""
        return self._rest[: self._size]

    def append(self, block: Block) -> None:
        """Add a block, later than all before."""
        self._group.append(block)
        if len(self._group) < self._stride:
            return
        self._store(_merge(self._group))
        self._group.clear()
        if self._size == self._capacity:
            self._coarsen()

    def clear(self) -> None:
        """Begin anew in the same memory, with the particles there are now."""
        self._size, self._stride = 0, 1
        self.whole = np.ones(len(self.whole), bool)
        self._group.clear()

    def close(self) -> None:
        """Add what is left of an incomplete group; call once, before reading for good."""
        if self._group:
            self._store(_merge(self._group))
            self._group.clear()

    def _store(self, block: Block) -> None:
        self._t[self._size] = block.t_s
        self._values[self._size] = block.values
        self._variance[self._size] = block.variance
        self._axial[self._size] = block.axial if len(block.axial) else np.nan
        self._rest[self._size] = block.rest_px
        self._size += 1

    def _coarsen(self) -> None:
        half = self._capacity // 2
        self._t[:half] = self._t.reshape(half, 2).mean(axis=1)
        self._values[:half] = _pair_mean(self._values)
        self._axial[:half] = _pair_mean(self._axial)
        self._rest[:half] = self._rest.reshape(half, 2, 2).mean(axis=1)
        first, second = self._variance[0::2], self._variance[1::2]
        both = np.isfinite(first) & np.isfinite(second)
        self._variance[:half] = np.where(both, (first + second) / 4, np.fmin(first, second))
        self._size = half
        self._stride *= 2


def _merge(group: list[Block]) -> Block:
    """Mean of some blocks, leaving out unmeasured values."""
    if len(group) == 1:
        return group[0]
    values, variance, axial = (
        np.stack([getattr(block, name) for block in group]) for name in ("values", "variance", "axial")
    )
    t_s = sum(block.t_s for block in group) / len(group)
    rest_y, rest_x = np.mean([block.rest_px for block in group], axis=0).tolist()
    count = np.isfinite(variance).sum(axis=0)
    squares = np.where(count > 0, count, np.nan) ** 2
    mean_variance = np.where(np.isfinite(variance), variance, 0.0).sum(axis=0) / squares
    return Block(t_s, finite_mean(values), mean_variance, finite_mean(axial), (rest_y, rest_x))


def _pair_mean(values: np.ndarray) -> np.ndarray:
    first, second = values[0::2], values[1::2]
    both = np.isfinite(first) & np.isfinite(second)
    return np.where(both, (first + second) / 2, np.fmin(first, second))


def finite_mean(values: np.ndarray) -> np.ndarray:
    """Mean along the first axis over finite entries; NaN where there are none, without warnings."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    return np.where(finite, values, 0.0).sum(axis=0, dtype=float) / np.where(count > 0, count, np.nan)
