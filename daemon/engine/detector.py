"""Live detection of abrupt steps: batches of contrasts in, `Detection`s out; memory bounded by the particle count."""

from __future__ import annotations

import numpy as np

from daemon.engine.measures import Detection, ParticleFlag
from kernels.detect import (
    COAST_ABOVE,
    COUNTS,
    FIRST_STEEPNESS,
    HISTORY,
    RISE,
    VALUES,
    detect_frame,
    reset,
    threshold,
)

COMMON_WINDOW_S = 0.1
SKIPPED = int(ParticleFlag.SATURATED | ParticleFlag.EDGE)
INTERVAL_RATE = 0.05  # a camera's interval is steady; a few lost frames do not change it
NEVER = np.iinfo(np.int64).min // 2


class StepDetector:
    """Watches the contrast of `particles` particles, frame after frame.

    `false_alarms_per_day` is what noise alone may raise in the whole instrument at `frame_rate_hz`. The first call
    compiles the kernel when it is not cached yet.
    """

    def __init__(self, particles: int, frame_rate_hz: float, false_alarms_per_day: float) -> None:
        self.particles = particles
        self._thresholds = threshold(false_alarms_per_day, frame_rate_hz, particles)
        self._window_frames = max(COMMON_WINDOW_S * frame_rate_hz, 1.0)
        self._values = np.empty((particles, VALUES))
        self._counts = np.empty((particles, COUNTS), np.int32)
        self._history = np.empty((HISTORY, particles))
        self._common = np.empty(2)
        self._work = np.empty((2, particles))
        self._found = np.empty(particles, np.int64)
        self._alarms = np.empty((particles, 4))
        self._nothing = np.full(particles, np.nan)
        self._frames = np.empty(HISTORY, np.int64)
        self._alarm_frame = np.empty(particles, np.int64)
        self.reset()

    def reset(self) -> None:
        """Forget everything seen so far, as after a new baseline."""
        reset(self._values, self._counts, self._history)
        self._common[:] = 1.0, FIRST_STEEPNESS
        self._frames[:] = NEVER
        self._alarm_frame[:] = NEVER
        self._now = 0
        self._last_t_s = self._interval_s = np.nan

    def go_on_from(self, before: StepDetector, kept: np.ndarray) -> None:
        """Take over what `before` has learnt: column k is its column `kept[k]`, or begins here where that is -1."""
        here = np.flatnonzero(kept >= 0)
        there = kept[here]
        self._values[here], self._counts[here] = before._values[there], before._counts[there]
        self._history[:, here] = before._history[:, there]
        self._alarm_frame[here] = before._alarm_frame[there]
        self._common[:], self._frames[:], self._now = before._common, before._frames, before._now
        self._last_t_s, self._interval_s = before._last_t_s, before._interval_s

    def add(
        self,
        frame: np.ndarray,
        contrast: np.ndarray,
        sigma: np.ndarray,
        flags: np.ndarray,
        t_s: np.ndarray | None = None,
    ) -> list[Detection]:
        """Take n frames in order; returns the steps they settled, oldest first.

        `frame` (n,) int64 run frame indices, rising; missing ones count as frames without values, and so do those that
        the times `t_s` (n,) show to be lost: a trace moves on meanwhile. `contrast`, `sigma` (n, P); `flags` (n, P)
        `ParticleFlag` bits: saturated and off-frame values are left out, and so is NaN.
        """
        contrast = np.ascontiguousarray(contrast, np.float64)
        sigma = np.ascontiguousarray(sigma, np.float64)
        skip = (np.asarray(flags) & SKIPPED) != 0
        detections: list[Detection] = []
        times = [np.nan] * len(contrast) if t_s is None else np.asarray(t_s, float).tolist()
        for row, index in enumerate(np.asarray(frame).tolist()):
            self._bridge_gap(index, self._lost_before(times[row]))
            detections += self._take(index, contrast[row], sigma[row], skip[row])
        return detections

    def _lost_before(self, t_s: float) -> int:
        """Frames lost before the one at `t_s`, by the usual interval between frames."""
        interval_s, self._last_t_s = t_s - self._last_t_s, t_s
        if not interval_s > 0:
            return 0
        if not self._interval_s > 0:
            self._interval_s = interval_s
        lost = int(min(interval_s / self._interval_s - 0.5, HISTORY + 1.0))
        self._interval_s += INTERVAL_RATE * (min(interval_s, 2.0 * self._interval_s) - self._interval_s)
        return lost

    def _bridge_gap(self, frame: int, lost: int) -> None:
        """Frames that never came are frames without values; a gap longer than any memory starts every line anew."""
        if self._now == 0:
            return
        last = int(self._frames[(self._now - 1) % HISTORY])
        missing = max(frame - last - 1, lost)
        if missing > HISTORY:
            self._forget_lines()
            return
        for k in range(missing, 0, -1):
            self._take(max(frame - k, last + 1), self._nothing, self._nothing, np.zeros(self.particles, bool))

    def _forget_lines(self) -> None:
        self._values[:, :3] = 0.0
        self._values[:, RISE:] = 0.0
        self._counts[:] = 0

    def _take(self, frame: int, contrast: np.ndarray, sigma: np.ndarray, skip: np.ndarray) -> list[Detection]:
        self._frames[self._now % HISTORY] = frame
        raised = detect_frame(
            contrast,
            sigma,
            skip,
            self._now,
            self._thresholds,
            self._values,
            self._counts,
            self._history,
            self._common,
            self._work,
            self._found,
            self._alarms,
        )
        self._now += 1
        return self._report(frame, raised) if raised else []

    def _report(self, frame: int, raised: int) -> list[Detection]:
        found = self._found[:raised].tolist()
        self._alarm_frame[found] = frame
        share = self._common_fraction(frame)
        return [
            Detection(
                index=index,
                onset_frame=int(self._frames[(self._now - int(back)) % HISTORY]),
                detected_frame=frame,
                magnitude=float(magnitude),
                magnitude_sigma=float(magnitude_sigma),
                score=float(score),
                common_fraction=share,
            )
            for index, (back, magnitude, magnitude_sigma, score) in zip(found, self._alarms[:raised], strict=True)
        ]

    def _common_fraction(self, frame: int) -> float:
        """Share of particles that alarmed in the last tenth of a second or are about to.

        Waiting for those that are about to would cost every event a tenth of a second.
        """
        alarmed = frame - self._alarm_frame < self._window_frames
        suspected = self._values[:, RISE:].max(axis=1) > COAST_ABOVE
        return float(np.mean(alarmed | suspected))
