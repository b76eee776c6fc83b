"""A second look at the last seconds of every trace, for steps too weak for the detector's haste.

The detector must decide within frames, by what it had learnt before: a step as small as a frame's noise, in a trace
that bends or has just stepped, escapes it. Two seconds on, both sides of an instant are known, and means over seconds
show such a step at many sigma. Twice a second each particle's last fifteen seconds, in means over a tenth of a second,
are fitted with a parabola and its known steps, and it is asked whether one more stands out (weighted least squares).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from daemon.engine.measures import Detection
from daemon.photometry.blocks import grown

BLOCK_S = 0.1
BLOCKS = 150
LEAST_FRAMES = 4
"""In a block: at slower rates frames are too few for this, and the detector sees steps of their size as well."""
LOOK_BLOCKS = 5
AFTER_BLOCKS = 20
"""Behind the places that are looked at: a step must have lasted."""
LEAST_BEFORE = 25
MOST_KNOWN = 4
"""Known steps fitted beside; before the oldest of more, the trace is left out."""
STEP_SIGMAS = 6.0
"""Two in 1e9 by chance: at two looks a second of 1000 particles, one in a week."""
MARGIN = 8.0
"""Twice the log-likelihood ratio by which a step must beat a bend at the same place."""
RAMP_S = 1.5
"""A change that took this long must not explain it better."""
APART_BLOCKS = 3
"""As near to a known step it is that one."""
MOST_CONTRAST = 0.01
"""What is larger the detector has judged; it is a step that something else explained."""
COMMON_SIGMAS, COMMON_SHARE = 3.0, 0.25
GAPS = 1.5
"""Blocks that take more of the time than this: frames were lost for long."""
RIDGE = 1e-9
LEAST_NORM = 1e-4
ALIKE_BY_CHANCE = 0.15


class SecondLook:
    """Means of the last fifteen seconds and the looks at them; memory bounded by the particle count."""

    def __init__(self, particles: int) -> None:
        self._sums = np.zeros((BLOCKS, particles), np.float32)
        self._counts = np.zeros((BLOCKS, particles), np.float32)
        self._begin_t_s = np.full(BLOCKS, np.nan)
        self._first_frame = np.zeros(BLOCKS, np.int64)
        self._done = 0
        self._frames = 0
        self._since_look = 0

    def grow(self, particles: int) -> None:
        """Go on with more particles."""
        self._sums = grown(self._sums, particles, 0.0, axis=1)
        self._counts = grown(self._counts, particles, 0.0, axis=1)

    def add(self, frame: int, t_s: float, relative: np.ndarray) -> bool:
        """Take one frame's (P,) brightness without what all share, NaN where unknown; whether it is time to look."""
        row = self._done % BLOCKS
        due = False
        if self._frames and not t_s - self._begin_t_s[row] < BLOCK_S - 1e-9:
            self._done += 1
            self._since_look += self._frames >= LEAST_FRAMES
            due, self._frames = self._since_look >= LOOK_BLOCKS, 0
            row = self._done % BLOCKS
        if not self._frames:
            self._sums[row], self._counts[row] = 0.0, 0.0
            self._begin_t_s[row], self._first_frame[row] = t_s, frame
        known = np.isfinite(relative)
        self._sums[row] += np.where(known, relative - 1.0, 0.0)
        self._counts[row] += known
        self._frames += 1
        return due

    def look(self, frame: int, scene: float, onsets: Mapping[int, Iterable[float]]) -> list[tuple[Detection, float]]:
        """Steps that were not known and when they began; `onsets` (by index) are those that are, `frame` the last one,
        `scene` the brightness that all share.
        """
        self._since_look = 0
        rows = np.arange(max(self._done - BLOCKS + 1, 0), self._done) % BLOCKS
        places = len(rows) - AFTER_BLOCKS - np.arange(LOOK_BLOCKS)[::-1]
        begin_t_s = self._begin_t_s[rows]
        if places[0] < LEAST_BEFORE or begin_t_s[-1] - begin_t_s[0] > GAPS * BLOCK_S * len(rows):
            return []
        weight = self._counts[rows].T.astype(float)
        value = np.where(weight > 0, self._sums[rows].T / np.maximum(weight, 1.0), 0.0)
        z, size, common = self._judged(begin_t_s, value, weight, onsets, places)
        found = []
        for index in np.flatnonzero(np.abs(z).max(axis=1, initial=0.0) >= STEP_SIGMAS).tolist():
            k = int(np.abs(z[index]).argmax())
            t_s, step = float(begin_t_s[places[k]]), scene * float(size[index, k])
            beside = any(abs(t_s - other) < APART_BLOCKS * BLOCK_S for other in onsets.get(index, ()))
            if beside or common[k] >= COMMON_SHARE or abs(step) >= MOST_CONTRAST:
                continue
            onset, sigmas = int(self._first_frame[rows[places[k]]]), abs(float(z[index, k]))
            found.append(
                (Detection(index, onset, frame, step, abs(step) / sigmas, sigmas**2 / 2, float(common[k])), t_s)
            )
        return found

    @staticmethod
    def _judged(
        t_s: np.ndarray,
        value: np.ndarray,
        weight: np.ndarray,
        onsets: Mapping[int, Iterable[float]],
        places: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(P, K) clear steps at the `places` (K,) in their sigmas, else 0; (P, K) sizes; (K,) share that moved then."""
        known, stepped = _known(t_s, onsets, weight)
        whole = weight.max(axis=0, initial=0.0)
        alike = (weight == whole).all(axis=1) & ~stepped
        z, size = np.zeros((2, len(value), len(places)))
        clear = np.zeros(z.shape, bool)
        for group, weights, columns in (
            (alike, whole[None], known[:1, :, :0]),  # all by one fit
            (~alike, weight[~alike], known[~alike]),
        ):
            if group.any():
                z[group], size[group], clear[group] = judged(t_s, value[group], weights, columns, places)
        moved = (np.abs(z) >= COMMON_SIGMAS).sum(axis=0) / max(len(z), 1)
        return np.where(clear, z, 0.0), size, moved


def _known(
    begin_t_s: np.ndarray, onsets: Mapping[int, Iterable[float]], weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(P, N, MOST_KNOWN) shares of each block behind each known step, and (P,) whether there is any; blanks `weight`
    before what is not fitted.
    """
    columns, stepped = np.zeros((*weight.shape, MOST_KNOWN)), np.zeros(len(weight), bool)
    for index, known_t_s in onsets.items():
        inside = sorted(t for t in known_t_s if begin_t_s[0] < t < begin_t_s[-1] + BLOCK_S)
        stepped[index] = bool(inside)
        for k, t in enumerate(inside[-MOST_KNOWN:]):
            columns[index, :, k] = np.clip((begin_t_s + BLOCK_S - t) / BLOCK_S, 0.0, 1.0)
        if len(inside) > MOST_KNOWN:
            weight[index, begin_t_s < inside[-MOST_KNOWN - 1] + BLOCK_S] = 0.0
    return columns, stepped


def judged(
    t_s: np.ndarray, value: np.ndarray, weight: np.ndarray, known: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(P, K) steps at the `places` (K,) in their sigmas; (P, K) sizes; (P, K) whether no bend or ramp explains as much.

    `value` (P, N): means at `t_s`; `weight` (P or 1, N): what they count for; `known` (P or 1, N, M): columns fitted
    beside a parabola.
    """
    time = 2.0 * (t_s - t_s[0]) / (t_s[-1] - t_s[0]) - 1.0
    smooth = np.stack([time**k for k in range(3)], axis=1)
    base = np.concatenate([np.broadcast_to(smooth, (*known.shape[:2], 3)), known], axis=2)
    since = t_s[:, None] - t_s[places]
    asked = np.concatenate(
        [since >= 0, np.maximum(since + BLOCK_S, 0.0), np.clip(since / RAMP_S + 0.5, 0.0, 1.0)], axis=1
    )
    weighted = np.swapaxes(base * weight[:, :, None], 1, 2)
    normal = weighted @ base
    normal += RIDGE * (1.0 + np.trace(normal, axis1=1, axis2=2))[:, None, None] * np.eye(base.shape[2])
    fit = np.linalg.solve(normal, weighted)
    left = value - (base @ (fit @ value[:, :, None]))[:, :, 0]
    shapes = asked - base @ (fit @ asked)
    norm = (weight[:, :, None] * shapes**2).sum(axis=1)
    told = norm > LEAST_NORM * weight.sum(axis=1, keepdims=True)
    norm = np.where(told, norm, 1.0)
    amount = np.where(told, ((weight * left)[:, None, :] @ shapes)[:, 0] / norm, 0.0)
    gain = amount**2 * norm
    steps, bends, ramps = np.split(gain, 3, axis=1)
    row, best = np.arange(len(value)), steps.argmax(axis=1)
    most = np.broadcast_to(shapes, (len(value), *shapes.shape[1:]))[row, :, best]
    variance = _variance(left - amount[row, best][:, None] * most, np.broadcast_to(weight, value.shape))[:, None]
    size = amount[:, : len(places)]
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.sign(size) * np.sqrt(steps / variance)
        clear = steps >= np.maximum(bends + MARGIN * variance, ramps).max(axis=1, keepdims=True)
    return np.where(np.isfinite(z), z, 0.0), size, clear


def _variance(left: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(P,) variance of a frame by what a fit leaves, larger where neighbouring means agree; NaN of too few."""
    square = (weight * left**2).sum(axis=1)
    used = (weight > 0).sum(axis=1)
    beside = np.sqrt(weight[:, 1:] * weight[:, :-1]) * left[:, 1:] * left[:, :-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        variance, alike = square / (used - 8.0), beside.sum(axis=1) / square
    enough = (used >= LEAST_BEFORE + AFTER_BLOCKS) & (square > 0)
    return np.where(enough, variance * (1.0 + 2.0 * np.clip(alike - ALIKE_BY_CHANCE, 0.0, 1.0)), np.nan)
