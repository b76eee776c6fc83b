"""A run's axes as it goes on: baselines, noise, the drift left over, and what ends show when they are alike."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daemon.engine.measures import MaskSet
from daemon.photometry.anchors import LAG_SHARE, Drive, alike, driven, rest_anchor
from daemon.photometry.axial import QUARTERS, SHAPE_PX, Axes, AxialRows, end_weights, left_over, quarters
from daemon.photometry.axial_light import UNSEEN, backgrounds_dipoles
from daemon.photometry.blocks import Block, History, grown
from daemon.photometry.contrast import Contrasts
from daemon.photometry.curves import HalfCurves
from daemon.photometry.derive import SocTable
from daemon.photometry.slices import Sliced
from kernels.photometry import AXIAL_BINS

TOGETHER_S = 1.0
"""Blocks are handed on once they span this long: a power cut costs no more of them than of frames."""
TOGETHER_BLOCKS = 64
LEAST_DIFFERENCES = 16
"""Second differences that tell noise better than the outline does."""
SECOND_DIFFERENCE = 6.0
"""Variance of a second difference over that of white noise."""
BENT = 2.5
"""Second differences of the contrast beyond so many of their standard deviations are not noise alone."""
SHAPE_BLOCKS = 16
"""Of which it is remembered how much centroids move by themselves."""
ROWS_A_SLICE = 64
KEPT_BLOCKS = 32768
"""Of drift left over, until the half they belong to has ended; beyond that every second one is kept."""
USUAL_OFFSET, USUAL_SLOPE = 0.02, 0.1
"""Prior standard deviation of how unlike a rod's even ends look: of the contrast's span, and a unit of contrast."""
KEPT_RESTS, KEPT_PAIRS = 128, 4


@dataclass(frozen=True)
class Alike:
    """(m, P) contrasts of instants at which charge is even along the axis, and what the ends' contrasts differ by."""

    contrast: np.ndarray
    difference: np.ndarray
    sigma: np.ndarray
    """Of the contrast, from noise."""
    other: np.ndarray
    """Standard deviation of the difference beside noise."""

    def grown(self, particles: int) -> Alike:
        """The same with more particles, unknown."""
        return Alike(*(grown(each, particles, np.nan, axis=1) for each in vars(self).values()))


class AxialBook:
    """Takes a run's contrasts frame by frame and its blocks; single thread. Order matters, batches do not."""

    def __init__(self, masks: MaskSet) -> None:
        count = masks.count
        self._ids = np.asarray(masks.particle_id)
        self._area = np.bincount(masks.labels.reshape(-1), minlength=count + 1)[1 : count + 1].astype(float)
        self._axes = Axes.of(masks)
        self._weights = end_weights(self._axes.share)
        self._level_dn: np.ndarray | None = None
        self._masks, self._dipole = masks, np.tile(UNSEEN, (count, 1))
        self._seen, self._bins, self._place = np.zeros(count), np.zeros((count, AXIAL_BINS)), np.zeros((count, 2))
        self._baseline = 0
        self._whole = np.zeros(count, bool)
        self._last: list[tuple[np.ndarray, ...]] = []
        self._noise = np.zeros((count, QUARTERS * QUARTERS + 1))
        self._place_noise = np.zeros((count, 5))
        self._waiting: list[dict[str, Any]] = []
        self._t_s: list[float] = []
        self._drifts: list[np.ndarray] = []
        self._rests: deque[Alike] = deque(maxlen=KEPT_RESTS)
        self._pairs: deque[Alike] = deque(maxlen=KEPT_PAIRS)
        self._drive: Drive | None = None
        self._span = np.full(count, np.nan)
        self.changed = False
        """Whether `rows` tell more than when they were last asked for."""
        self._rows: AxialRows | None = None
        self._latest: tuple[np.ndarray, ...] | None = None
        self._shape, self._shape_blocks = np.zeros(2), np.zeros(2, int)
        self._clear()

    @property
    def count(self) -> int:
        """P."""
        return len(self._seen)

    def _clear(self) -> None:
        self._block_place, self._block_count = np.zeros((self.count, 2)), np.zeros(self.count)

    def see(self, level_dn: np.ndarray) -> None:
        """The (H, W) reference above its dark level, the flat field divided out."""
        self._level_dn = level_dn
        self._dipole = backgrounds_dipoles(self._masks, level_dn)

    def change_masks(self, masks: MaskSet) -> list[dict[str, Any]]:
        """Go on with more particles, of which nothing is known yet; blocks of the ones before are given back."""
        before, count = self._take(), masks.count
        area = np.bincount(masks.labels.reshape(-1), minlength=count + 1)[1 : count + 1].astype(float)
        self._area = np.concatenate([self._area, area[self.count :]])
        self._ids = np.asarray(masks.particle_id)
        self._axes = Axes.of(masks, self._axes)
        self._weights = end_weights(self._axes.share)
        fresh = np.tile(UNSEEN, (count - self.count, 1))
        if self._level_dn is not None:
            fresh = backgrounds_dipoles(masks, self._level_dn, self.count)
        self._masks, self._dipole = masks, np.concatenate([self._dipole, fresh])
        for name in ("_seen", "_bins", "_place", "_noise", "_place_noise", "_block_place", "_block_count"):
            setattr(self, name, grown(getattr(self, name), count, 0.0))
        self._span, self._whole = grown(self._span, count, np.nan), grown(self._whole, count, False)
        self._last = [tuple(grown(each, count, np.nan) for each in frame) for frame in self._last]
        for kept in (self._rests, self._pairs):
            for place, each in enumerate(kept):
                kept[place] = each.grown(count)
        self._drive = self._drive.grown(count) if self._drive is not None else None
        self.changed, self._rows, self._latest = True, None, None
        return before

    def begin(self, part: Contrasts, baseline_frames: int) -> None:
        """Take the next frames, of which `frame` then goes through each; F0 is a mean over `baseline_frames`."""
        batch, shape = part.batch, part.sigma.shape
        self._baseline = max(baseline_frames, 1)
        self._now_bins = np.full((*shape, AXIAL_BINS), np.nan) if part.axial is None else np.asarray(part.axial, float)
        place = np.stack([batch.centroid_y_px, batch.centroid_x_px], axis=2)
        self._now_place = np.where(np.isfinite(part.sigma)[:, :, None], np.asarray(place, float), np.nan)
        self._bent_parts, self._bent_place = self._second_differences(part)

    def _second_differences(self, part: Contrasts) -> tuple[np.ndarray, np.ndarray]:
        """(m, rods, 17) and (m, P, 5), of the last m frames begun with: what each adds to `_noise`, `_place_noise`.

        They are blind to whatever changes evenly. Where the contrast bends, real changes do too: those are left out.
        """
        series = (quarters(self._now_bins), self._now_place, part.values[:, :, 0])
        parts, place, contrast = (
            np.concatenate([*(each[j][None] for each in self._last), own]) for j, own in enumerate(series)
        )
        self._last = [(parts[k], place[k], contrast[k]) for k in range(max(len(parts) - 2, 0), len(parts))]
        rods = np.flatnonzero(self._axes.rods)
        sigma2 = np.asarray(part.sigma, float)[-max(len(parts) - 2, 0) :] ** 2 if len(parts) > 2 else np.empty((0, 1))
        if not len(sigma2):
            return np.empty((0, len(rods), QUARTERS * QUARTERS + 1)), np.empty((0, self.count, 5))
        even = (contrast[2:] - 2.0 * contrast[1:-1] + contrast[:-2]) ** 2 < BENT**2 * SECOND_DIFFERENCE * sigma2
        bent = (parts[2:] - 2.0 * parts[1:-1] + parts[:-2])[:, rods]
        known = np.isfinite(bent).all(axis=2) & even[:, rods]
        square = (bent[..., None] * bent[..., None, :]).reshape(*bent.shape[:2], QUARTERS * QUARTERS)
        of_parts = np.where(known[..., None], np.concatenate([square, sigma2[:, rods, None]], axis=2), 0.0)
        bent = place[2:] - 2.0 * place[1:-1] + place[:-2]
        own = sigma2 / (1.0 + contrast[2:]) ** 2
        known = np.isfinite(bent).all(axis=2) & even
        y, x = bent[..., 0], bent[..., 1]
        added = np.stack([y * y, y * x, x * x, own, np.ones(own.shape)], axis=2)
        return of_parts, np.where(known[..., None], added, 0.0)

    def frame(self, k: int) -> None:
        """Frame `k` of those begun with."""
        bent = k - (len(self._now_place) - len(self._bent_place))
        if bent >= 0:
            self._noise[self._axes.rods] += self._bent_parts[bent]
            self._place_noise += self._bent_place[bent]
        place = self._now_place[k]
        known = np.isfinite(place).all(axis=1)
        place = np.where(known[:, None], place, 0.0)
        self._block_place += place
        self._block_count += known
        fresh = ~self._whole & known
        if fresh.any():
            self._seen += fresh
            self._bins += np.where(fresh[:, None], self._now_bins[k], 0.0)
            self._place += np.where(fresh[:, None], place, 0.0)
            whole = self._seen >= self._baseline
            if (whole & ~self._whole).any():
                self.changed, self._rows = True, None
            self._whole = whole

    def close(self, block: Block) -> None:
        """The frames since the last call are those of `block`."""
        with np.errstate(all="ignore"):
            drift = self._left_over(block)
        bins = np.full((self.count, AXIAL_BINS), np.nan) if not len(block.axial) else block.axial
        sigma = np.sqrt(block.variance)
        rods = self._axes.rods
        wide = np.where(rods[:, None], bins, np.nan).astype(np.float32)
        row = {"t_s": block.t_s, "drift": drift, "bins": wide, "sigma": np.where(rods, sigma, np.nan)}
        self._waiting.append(row)
        moved = self._block_place / np.where(self._block_count > 0, self._block_count, np.nan)[:, None]
        self._latest = (wide[None].astype(float), sigma[None], drift[None], moved[None], block.values[None, :, 0])
        self._t_s.append(block.t_s)
        self._drifts.append(drift[:2])
        if len(self._t_s) > KEPT_BLOCKS:
            self._t_s, self._drifts = self._t_s[::2], self._drifts[::2]
        self._clear()

    def _left_over(self, block: Block) -> np.ndarray:
        """(5,) of `left_over`: rods tell across their axes, others in both directions."""
        base = self._place / np.where(self._seen > 0, self._seen, np.nan)[:, None]
        moved = self._block_place / np.where(self._block_count > 0, self._block_count, np.nan)[:, None] - base
        contrast = block.values[:, :1]
        moved = moved + self._dipole[:, :2] * contrast / (1.0 + contrast)
        ways, group = self._axes.ways
        variance = block.variance / (1.0 + block.values[:, 0]) ** 2
        yy, yx, xx = self._place_covariance().T
        of_way = ways[:, :, 0] ** 2 * yy + 2 * ways[:, :, 0] * ways[:, :, 1] * yx + ways[:, :, 1] ** 2 * xx
        sigma = np.sqrt(of_way * variance)
        along = (moved * ways).sum(axis=2)
        shape = np.where(self._shape_blocks > 0, self._shape, SHAPE_PX**2)
        drift, more = left_over(along.ravel(), ways.reshape(-1, 2), sigma.ravel(), group.ravel(), shape)
        self._shape_blocks += np.isfinite(more)
        self._shape += np.where(np.isfinite(more), more - self._shape, 0.0) / np.clip(
            self._shape_blocks, 1, SHAPE_BLOCKS
        )
        return drift

    def _place_covariance(self) -> np.ndarray:
        """(P, 3) covariance yy, yx, xx of a centroid for a relative flux noise of 1, px2."""
        seen = self._place_noise[:, :3] / SECOND_DIFFERENCE / self._place_noise[:, 3:4]
        round_ = self._area / (4.0 * np.pi)
        usual = np.stack([round_, np.zeros(self.count), round_], axis=1)
        return np.where(self._place_noise[:, 4:5] >= LEAST_DIFFERENCES, seen, usual)

    def ready(self) -> list[dict[str, Any]]:
        """Blocks to be stored now: `t_s` (n,), `drift` (n, 5), `bins` (n, P, 8), `sigma` (n, P), NaN but for rods."""
        waiting = self._waiting
        if not waiting or (waiting[-1]["t_s"] - waiting[0]["t_s"] < TOGETHER_S and len(waiting) < TOGETHER_BLOCKS):
            return []
        return self._take()

    def finish(self) -> list[dict[str, Any]]:
        """What is left of them."""
        return self._take()

    def _take(self) -> list[dict[str, Any]]:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        return [{name: np.array([row[name] for row in waiting]) for name in waiting[0]}]

    def end_half(self, curves: HalfCurves, history: History) -> Sliced[None]:
        """Learn what even ends look like, from the history that `curves` were made of: relaxed rests, and means of a
        charge and a discharge.
        """
        base = self._bins / np.where(self._seen > 0, self._seen, np.nan)[:, None]
        t_s, drifts = np.array(self._t_s), np.array(self._drifts)
        if not len(t_s):
            return
        drift = np.stack([np.interp(curves.t_s, t_s, drifts[:, j]) for j in range(2)], axis=1)
        later = t_s > curves.t_s[-1]
        self._t_s, self._drifts = t_s[later].tolist(), list(drifts[later])
        moved = drift @ self._axes.direction.T
        parts = quarters(np.asarray(history.axial, float)) / quarters(base) - 1.0
        yield
        parts -= self._axes.slip * (moved * (1.0 + curves.contrast))[:, :, None]
        parts[:, ~self._axes.rods] = np.nan
        own = replace(curves, layers=parts)
        self._span = np.fmax(self._span, np.where(curves.known, np.abs(curves.contrast).max(axis=0), np.nan))
        for rest in curves.half.rests:
            yield
            anchor = rest_anchor(own, rest)
            if anchor is not None:
                difference = self._difference(anchor.layers[None])
                none = np.zeros(difference.shape)
                self._rests.append(Alike(anchor.contrast[None], difference, anchor.sigma[None], none))
        yield
        drive = driven(own) if curves.half.sign else None
        yield
        before, self._drive = self._drive, drive if drive is not None else self._drive
        if drive is not None and before is not None and alike(before, drive) and drive.source == before.source + 1:
            self._pairs.append(self._pair(drive, before))
        self.changed, self._rows = True, None

    def _difference(self, parts: np.ndarray) -> np.ndarray:
        """(n, P) last end's contrast minus the first one's, from (n, P, 4)."""
        ends = np.einsum("pek,npk->npe", self._weights, parts)
        return np.asarray(ends[:, :, 1] - ends[:, :, 0])

    def _pair(self, one: Drive, other: Drive) -> Alike:
        """What is ahead in one direction is behind in the other; how little alike it is, is one error of all points."""
        values, others = one.values, other.at(one.charge_mah)
        differences = [self._difference(each[:, :, 1:]) for each in (values, others)]
        lag = LAG_SHARE * np.abs(differences[0] - differences[1]) / 2.0
        contrast, difference = (values[:, :, 0] + others[:, :, 0]) / 2.0, (differences[0] + differences[1]) / 2.0
        return Alike(contrast, difference, one.sigma / np.sqrt(2.0), lag * np.sqrt(len(lag)))

    def _ratio(self) -> np.ndarray:
        """(P,) noise of the ends' difference over that of the contrast."""
        with np.errstate(all="ignore"):
            base = quarters(self._bins / np.where(self._seen > 0, self._seen, np.nan)[:, None])
            weight = (self._weights[:, 1] - self._weights[:, 0]) / base
            square = self._noise[:, :-1].reshape(-1, QUARTERS, QUARTERS) / SECOND_DIFFERENCE
            seen = np.sqrt(np.einsum("pi,pij,pj->p", weight, square, weight) / self._noise[:, -1])
            usual = np.sqrt(QUARTERS * ((self._weights[:, 1] - self._weights[:, 0]) ** 2).sum(axis=1))
        return np.where((self._place_noise[:, 4] >= LEAST_DIFFERENCES) & (seen > 0), seen, usual)

    def _even(self) -> tuple[np.ndarray, np.ndarray]:
        """(P, 2) offset and slope of what even ends differ by over the contrast, and (P, 3) their covariance."""
        points = [*self._rests, *self._pairs]
        none = np.zeros((0, self.count))
        names = ("contrast", "difference", "sigma", "other")
        x, y, sigma, other = (np.concatenate([none, *(getattr(each, name) for each in points)]) for name in names)
        variance = sigma**2 * self._ratio() ** 2 + other**2
        known = np.isfinite(x) & np.isfinite(y) & (variance > 0)
        with np.errstate(all="ignore"):
            weight = np.where(known, 1.0 / variance, 0.0)
        x, y = np.where(known, x, 0.0), np.where(known, y, 0.0)
        span = np.where(self._span > 0, self._span, 1.0)
        a = weight.sum(axis=0) + 1.0 / (USUAL_OFFSET * span) ** 2
        b, c = (weight * x).sum(axis=0), (weight * x * x).sum(axis=0) + 1.0 / USUAL_SLOPE**2
        p, q, whole = (weight * y).sum(axis=0), (weight * x * y).sum(axis=0), a * c - b * b
        even = np.stack([(c * p - b * q) / whole, (a * q - b * p) / whole], axis=1)
        count = known.sum(axis=0)
        misfit = (weight * (y - even[:, 0] - even[:, 1] * x) ** 2).sum(axis=0)
        scale = np.where(count > 4, np.maximum(misfit / np.maximum(count - 2, 1), 1.0), 1.0)
        return even, np.stack([c / whole, -b / whole, a / whole], axis=1) * scale[:, None]

    def rows(self, usable: np.ndarray) -> Sliced[list[dict[str, Any]]]:
        """One row a particle: `axis_deg` (from the image's x axis, downwards), `length_px`, why there is no gradient or
        shift, and what they are made of; `usable` (P,) particles have a curve.
        """
        self.changed = False
        axes, measured = self._axes, self._whole & np.isfinite(self._place).all(axis=1)
        has = np.hypot(*axes.direction.T) > 0
        angle = np.degrees(np.arctan2(axes.direction[:, 0], axes.direction[:, 1]))
        further = self._further()
        rows = []
        for i in range(self.count):
            if i % ROWS_A_SLICE == 0:
                yield
            lit = measured[i] and bool(np.isfinite(self._bins[i]).all())
            why = str(axes.why[i]) or ("" if lit else "not_measured")
            rows.append({
                "particle_id": int(self._ids[i]),
                "axis_deg": round(float(angle[i]), 3) if has[i] else None,
                "length_px": round(float(axes.length_px[i]), 3) if has[i] else None,
                "axial_unknown_why": why or ("" if usable[i] else "no_calibration"),
                "shift_unknown_why": (why if not has[i] else "" if measured[i] else "not_measured"),
                "further": {name: _rounded(values[i]) for name, values in further.items()} if has[i] else None,
            })  # fmt: skip
        return rows

    def _further(self) -> dict[str, np.ndarray]:
        with np.errstate(all="ignore"):
            seen = np.where(self._whole, self._seen, np.nan)
            covariance = self._place_covariance()
            y, x = self._axes.direction.T
            ratio = np.sqrt(y**2 * covariance[:, 0] + 2 * y * x * covariance[:, 1] + x**2 * covariance[:, 2])
            typical = np.sqrt(self._place_noise[:, 3] / self._place_noise[:, 4])
            even, even_covariance = self._even()
            tilt = np.stack([(self._dipole[:, :2] * self._axes.direction).sum(axis=1), self._dipole[:, 2]], axis=1)
            direction = np.where(np.hypot(y, x)[:, None] > 0, self._axes.direction, np.nan)
            slip = np.einsum("pek,pk->pe", self._weights, self._axes.slip)
            return {
                "direction": direction, "base_px": self._place / seen[:, None],
                "base_sigma_px": np.nan_to_num(ratio * typical) / np.sqrt(seen), "shift_ratio_px": ratio,
                "base": np.where(self._axes.rods[:, None], self._bins / seen[:, None], np.nan),
                "weights": self._weights, "slip": slip, "tilt_px": tilt, "ratio": self._ratio(), "even": even,
                "even_covariance": even_covariance,
            }  # fmt: skip

    def summary(self, table: SocTable) -> dict[str, Any]:
        """For the status: particles with an axis, and root mean squares over the latest block; NaN while unknown."""
        told: dict[str, Any] = {"particles_with_axis": int(self._axes.rods.sum())}
        gradient = shift = np.full(1, np.nan)
        if self._latest is not None and self._whole.any() and len(table.usable) == self.count:
            if self._rows is None:
                further = self._further()
                self._rows = AxialRows([
                    {"further": {name: values[i] for name, values in further.items()}} for i in range(self.count)
                ])  # fmt: skip
            bins, sigma, drift, moved, contrast = self._latest
            gradient = self._rows.gradient(table, bins, sigma, drift)[0]
            shift = self._rows.shift(moved, contrast, sigma, drift)[0]
        return told | {"axial_gradient_rms": _rms(gradient), "centroid_shift_rms_px": _rms(shift)}


def _rms(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else float("nan")


def _rounded(values: np.ndarray) -> Any:
    """Eight digits, for JSON; what is not known is None there."""
    return np.array([float(f"{v:.8g}") for v in np.ravel(values).tolist()]).reshape(np.shape(values)).tolist()
