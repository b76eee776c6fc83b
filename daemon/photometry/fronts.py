"""Phase fronts of a run: each particle's mode, and where its front stood and how fast it went, half by half."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.engine.measures import MaskSet
from daemon.photometry.blocks import History, grown
from daemon.photometry.curves import HalfCurves
from daemon.photometry.fronts_fit import (
    LEAST_POINTS,
    STEP_SIGMAS,
    TOGETHER,
    Fit,
    Series,
    fit,
    noise,
    transformation,
)
from daemon.photometry.fronts_geometry import AXIAL, CORE, Geometry
from daemon.photometry.slices import Sliced
from daemon.tables import FRONT_MODES

NONE = FRONT_MODES.index("none")
RECENTRE_PX = 0.6
"""As in registration: masks follow drift by whole pixels once it leaves this far."""
TOGETHER_PARTICLES = 32
"""Fitted at a time: bounds memory."""
MOST_POINTS = 256
"""Kept of a front's way: it is smooth."""
NOISY_SHARE = 0.25
"""A front that is no surer than this share of its way is not told."""
OUTLINE_SIGMA_PX = {True: (0.03, 0.05), False: (0.15, 0.25)}
"""How sure a depth, and a distance from an end, are for the outline's sake: one from the reference, and a mask's."""
ENDS = {(CORE, False): "edge", (CORE, True): "core", (AXIAL, False): "first", (AXIAL, True): "last"}


class RestDrift:
    """What is left of the drift after the masks followed it by whole pixels, as registration does."""

    def __init__(self) -> None:
        self._base = [0.0, 0.0]

    def __call__(self, y_px: np.ndarray, x_px: np.ndarray) -> list[tuple[float, float]]:
        """Of the next frames, from their drifts (N,)."""
        return [self._next(y, x) for y, x in zip(np.asarray(y_px).tolist(), np.asarray(x_px).tolist(), strict=True)]

    def _next(self, y_px: float, x_px: float) -> tuple[float, float]:
        """0 while the drift is unknown."""
        if not (np.isfinite(y_px) and np.isfinite(x_px)):
            return 0.0, 0.0
        rest = y_px - self._base[0], x_px - self._base[1]
        if max(abs(rest[0]), abs(rest[1])) > RECENTRE_PX:
            self._base = [self._base[0] + round(rest[0]), self._base[1] + round(rest[1])]
            rest = y_px - self._base[0], x_px - self._base[1]
        return rest


@dataclass
class _Chosen:
    """The better of both ways' fits for Q particles."""

    mode: np.ndarray
    fits: tuple[Fit, Fit]
    reason: list[str]


def medians(values: np.ndarray, where_known: np.ndarray) -> np.ndarray:
    """(Q,) medians over the first axis where `where_known` is finite; infinite where it never is."""
    known = np.isfinite(where_known)
    ordered = np.sort(np.where(known, values, np.inf), axis=0)
    count = known.sum(axis=0)
    middle = np.take_along_axis(
        ordered, np.stack([np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(values) - 1)]), axis=0
    )
    return np.where(count > 0, middle.mean(axis=0), np.inf)


class FrontFinder:
    """Evaluates halves as they end. `masks` may change between halves."""

    def __init__(self, masks: MaskSet) -> None:
        self._masks = masks
        self._reference: np.ndarray | None = None
        self._geometry = Geometry(masks, None)
        self.rest_px = RestDrift()
        self.modes = np.full(masks.count, NONE, np.int8)
        """(P,) index into `FRONT_MODES` of each particle's latest front."""

    def see(self, reference: np.ndarray) -> None:
        """The (H, W) frame the masks were found in: outlines are read off it, finer than to a pixel."""
        self._reference = reference
        self._geometry = Geometry(self._masks, reference)

    def change_masks(self, masks: MaskSet) -> None:
        """Go on with another version of the masks."""
        self._masks = masks
        self._geometry = Geometry(masks, self._reference)
        self.modes = grown(self.modes, masks.count, NONE)

    def work(self) -> None:
        """Prepare a particle more, so that not all wait for the end of the first half."""
        self._geometry.work(1)

    def end_half(self, curves: HalfCurves, history: History) -> Sliced[list[dict[str, Any]]]:
        """Rows of `fronts`, one a particle, from the history that `curves` were made of."""
        reasons = np.full(self._masks.count, "", object)
        step = curves.farthest - curves.start
        # of a difference of two, the farther the largest of many
        reasons[~(np.abs(step) > 2.0 * STEP_SIGMAS * curves.sigma)] = "no_step"
        reasons[~curves.known | np.isnan(history.axial).all(axis=(0, 2))] = "not_measured"
        yield from self._geometry.need(reasons == "")
        unknown = np.isnan(self._geometry.ways[CORE].length_px)
        reasons[(reasons == "") & unknown] = "no_outline"
        with np.errstate(all="ignore"):
            course = (curves.smooth - curves.start) / np.where(step != 0, step, np.inf)
        span = transformation(course)
        reasons[(reasons == "") & (span[:, 1] - span[:, 0] < LEAST_POINTS + 2)] = "too_fast"
        wanted = np.flatnonzero(reasons == "")
        rows = [self._row(curves, i, str(reason)) for i, reason in enumerate(reasons) if reason]
        for start in range(0, len(wanted), TOGETHER_PARTICLES):
            which = wanted[start : start + TOGETHER_PARTICLES]
            rows += self._fit(curves, history, which, span[which], course[:, which])
            yield
        return rows

    def _fit(
        self, curves: HalfCurves, history: History, which: np.ndarray, span: np.ndarray, course: np.ndarray
    ) -> list[dict[str, Any]]:
        axial = np.ascontiguousarray(history.axial[:, which])
        layers = np.ascontiguousarray(history.layers[:, which])
        shares = np.nanmean(axial, axis=0)
        bases = np.ones((len(which), layers.shape[2])), shares / shares.sum(axis=1, keepdims=True)
        fits = []
        for way, values, base in zip(self._geometry.ways, (layers, axial), bases, strict=True):
            series = Series(curves.t_s, history.rest_px.copy(), values, noise(values), base, span, course)
            with np.errstate(all="ignore"):
                fits.append(fit(series, way, which))
        chosen = self._choose((fits[0], fits[1]), which)
        return [self._told(curves, chosen, q, int(i)) for q, i in enumerate(which)]

    def _choose(self, fits: tuple[Fit, Fit], which: np.ndarray) -> _Chosen:
        length = [self._geometry.ways[way].length_px[which] for way in (CORE, AXIAL)]
        seen = [np.isfinite(one.place_px).sum(axis=0) >= LEAST_POINTS for one in fits]
        sure = [medians(one.sigma_px, one.place_px) < NOISY_SHARE * way for one, way in zip(fits, length, strict=True)]
        merit = np.stack(
            [np.where(one.good & s & n, one.explained, -1.0) for one, s, n in zip(fits, sure, seen, strict=True)]
        )
        mode = np.where(merit.max(axis=0) < 0, NONE, merit.argmax(axis=0)).astype(np.int8)
        reason = []
        for q in range(len(which)):
            best = max((0, 1), key=lambda way: np.nan_to_num(fits[way].explained[q], nan=-1.0))
            if mode[q] != NONE:
                reason.append("")
            elif not fits[best].good[q]:
                reason.append("all_at_once" if fits[best].together[q] >= TOGETHER else "not_one_crossing")
            else:
                reason.append("too_fast" if not seen[best][q] else "too_noisy")
        return _Chosen(mode, fits, reason)

    def _told(self, curves: HalfCurves, chosen: _Chosen, q: int, i: int) -> dict[str, Any]:
        mode = int(chosen.mode[q])
        if mode == NONE:
            return self._row(curves, i, chosen.reason[q])
        self.modes[i] = mode
        found = chosen.fits[mode]
        known = np.isfinite(found.place_px[:, q])
        back = bool(found.back[q])
        place, passed, t_s = found.place_px[known, q], found.passed[known, q], curves.t_s[known]
        outward = mode == CORE and back
        if outward:
            place = self._geometry.ways[CORE].length_px[i] - place
        sigma = np.hypot(found.sigma_px[known, q], OUTLINE_SIGMA_PX[bool(self._geometry.sharp[i])][mode])
        keep = np.unique(np.linspace(0, len(t_s) - 1, min(len(t_s), MOST_POINTS)).round().astype(int))
        speed, speed_sigma = float(found.speed_px_per_s[q]), float(found.speed_sigma_px_per_s[q])
        speed = -speed if outward else speed
        nm = self._masks.pixel_size_nm or np.nan
        return self._row(curves, i, "") | {
            "mode": FRONT_MODES[mode],
            "begin": ENDS[mode, back],
            "explained": float(found.explained[q]),
            "speed_px_per_s": speed,
            "speed_sigma_px_per_s": speed_sigma,
            "speed_nm_per_s": speed * nm,
            "speed_sigma_nm_per_s": speed_sigma * nm,
            "onset_t_s": float(found.onset_t_s[q]),
            "end_t_s": float(found.end_t_s[q]),
            "t_s": t_s[keep],
            "front_px": place[keep].astype(np.float32),
            "front_sigma_px": sigma[keep].astype(np.float32),
            "fraction": passed[keep].astype(np.float32),
        }

    def _row(self, curves: HalfCurves, i: int, reason: str) -> dict[str, Any]:
        half = curves.half
        return {
            "particle_id": int(self._masks.particle_id[i]),
            "cycle": max(half.cycle, 0),
            "half": half.name or "none",
            "mode": "none",
            "reason": reason,
        }
