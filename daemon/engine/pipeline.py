"""Frames in, measures out: the one pipeline behind the live engine and the analysis of recordings."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np

from daemon.engine.clips import ClipKeeper
from daemon.engine.collector import Collector
from daemon.engine.detector import StepDetector
from daemon.engine.measures import LAYERS, FrameFlag, MeasureBatch
from daemon.engine.operator import Operator
from daemon.engine.photometer import Photometer
from daemon.engine.registration import Registration
from daemon.engine.shift import Shift
from daemon.errors import MaskError, MaskReason
from hw.camera.contract import FrameStamp, PixelFormat
from kernels.photometry import AXIAL_BINS, FLUX, LAYER, part

# whole numbers: an enumeration's own arithmetic costs a frame ten microseconds
CONSTANT, REPEATED, GAP_BEFORE = int(FrameFlag.CONSTANT), int(FrameFlag.REPEATED), int(FrameFlag.GAP_BEFORE)
DRIFT_UNKNOWN, DRIFT_JUMP = int(FrameFlag.DRIFT_UNKNOWN), int(FrameFlag.DRIFT_JUMP)
ILLUMINATION_STEP, FOCUS_JUMP = int(FrameFlag.ILLUMINATION_STEP), int(FrameFlag.FOCUS_JUMP)
DARK = int(FrameFlag.DARK)
CLOCK_TOLERANCE_S = 5.0  # a host that is held up stamps frames late; an engine that late is ended as silent
SAMPLE_PIXELS = 401  # looked at to recognise constant and repeated frames: noise never repeats so many


@dataclass(frozen=True)
class PipelineSettings:
    """What a run fixes for its pipeline."""

    bit_depth: int
    frame_rate_hz: float
    baseline_s: float
    baseline_min_frames: int = 5
    false_alarms_per_day: float = 1.0
    dark_map: np.ndarray | None = None
    """(H, W) float32 DN; replaces the scalar dark level."""
    flat_map: np.ndarray | None = None
    """(H, W) float32 relative gain."""
    pixel_format: str = "Mono16"
    """Of packed payloads; arrays of pixels tell by their dtype."""
    clock_rate: float | None = None
    """Seconds of the camera's clock in one of the host's; None: it cannot be told."""


class JumpWatch:
    """Tells a sudden change of a scalar between two frames from its noise and its walk."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._last = np.nan
        self._variance = least**2

    def restart(self) -> None:
        """The next value is measured another way: it may differ."""
        self._last = np.nan

    def __call__(self, value: float, *, after_gap: bool) -> bool:
        """True when `value` left the one before by 8 running sigmas of such differences, and at least the smallest
        worth naming. Over a gap in the frames a walk looks like a jump, so nothing is said.
        """
        if not isfinite(value):
            return False
        step, self._last = value - self._last, value
        if not isfinite(step) or after_gap:
            return False
        if abs(step) > max(self._least, 8.0 * sqrt(self._variance)):
            return True
        self._variance += 0.02 * (step * step - self._variance)
        return False


class Pipeline:
    """Measures frames of one run. Not thread-safe; holds one batch at a time.

    These continue an interrupted run: `baseline`, (P,) and (P, 4) F0 of fluxes and layers, NaN for particles whose
    baseline begins now; `first_t_s`, camera time of its first frame; `last_stamp`, run time and host time of its last
    one.
    """

    def __init__(
        self,
        operator: Operator,
        settings: PipelineSettings,
        baseline: tuple[np.ndarray, np.ndarray] | None = None,
        first_frame: int = 0,
        first_t_s: float | None = None,
        last_stamp: tuple[float, float] | None = None,
        mask_version: int = 1,
    ) -> None:
        self.operator = operator
        self._mask_version = mask_version
        self._settings = settings
        pixel_format = PixelFormat(settings.pixel_format)
        self._collector = Collector(operator, pixel_format, settings.bit_depth, settings.dark_map, settings.flat_map)
        self._photometer = Photometer(operator, self._collector)
        self._registration = Registration(operator, self._collector, self._photometer)
        self._illumination_watch = JumpWatch(0.003)
        self._focus_watch = JumpWatch(0.03)
        self._dark = False
        self._detector = StepDetector(operator.particles, settings.frame_rate_hz, settings.false_alarms_per_day)
        self._clips = ClipKeeper(operator, self._collector, settings.frame_rate_hz)
        self._baseline = Baseline(settings.baseline_s, settings.baseline_min_frames, baseline)
        self._sample = np.linspace(0, int(np.prod(operator.shape)) - 1, SAMPLE_PIXELS).astype(np.uint32)
        self._last_sample = b""
        self._last_block: int | None = None
        self._last_stamp = last_stamp
        self._interrupted = last_stamp is not None
        self._t0_s = first_t_s
        self.next_frame = first_frame
        self._rows: list[tuple] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def t0_s(self) -> float | None:
        """Camera time of the run's first frame; None before it."""
        return self._t0_s

    @property
    def drift_px(self) -> tuple[float, float]:
        """Latest drift (y, x) relative to the reference."""
        return self._registration.drift_px

    def with_masks(self, operator: Operator, kept: np.ndarray, mask_version: int) -> Pipeline:
        """A pipeline that goes on with the next frame by other masks of the same reference; `take` the batch before.

        `kept` (P',) int: the column that each new one was so far, or -1 for a particle whose baseline begins now.
        Raises `MaskError` (BASELINE) while F0 is still being measured.
        """
        known = self._baseline.of(kept)
        after = Pipeline(
            operator, self._settings, known, self.next_frame, self._t0_s, self._last_stamp, mask_version
        )  # fmt: skip
        after._registration.go_on_from(self._registration)
        after._photometer.go_on_from(self._photometer, kept)
        after._detector.go_on_from(self._detector, kept)
        after._illumination_watch, after._focus_watch = self._illumination_watch, self._focus_watch
        for watch in (after._illumination_watch, after._focus_watch):
            watch.restart()
        after._dark = self._dark
        after._last_sample, after._last_block = self._last_sample, self._last_block
        after._interrupted = self._interrupted
        return after

    def close_baseline(self) -> None:
        """Settle for the frames there are, of the baseline and of clips: the run ends."""
        self._baseline.settle(force=True)
        self._clips.close()

    def add(self, frame: np.ndarray, stamp: FrameStamp) -> None:
        """Measure one frame into the batch: (H, W) uint8 or uint16 pixels, or the flat payload of a packed format."""
        frame = self._collector.open(frame)
        t_s = self._run_time(stamp)
        flags = self._look(frame)
        if self._interrupted or (self._last_block is not None and stamp.block_id != self._last_block + 1):
            flags |= GAP_BEFORE
        self._last_block, self._interrupted = stamp.block_id, False
        if flags & (CONSTANT | REPEATED):
            measured = self._photometer.blank()
            drift, illumination, focus = (np.nan, np.nan), np.nan, np.nan
        else:
            measured, shift, illumination, focus = self._measure(frame)
            flags |= self._judge(shift, illumination, focus, after_gap=bool(flags & GAP_BEFORE))
            drift = (shift.y_px, shift.x_px)
            if flags & (DARK | DRIFT_UNKNOWN):
                drift = (np.nan, np.nan)
            else:
                self._baseline.add(self.next_frame, t_s, measured[0])
                self._clips.add(frame, self.next_frame, t_s, drift)
        frame_row = (
            self.next_frame, stamp.block_id, t_s, stamp.host_t_s, *drift, self._registration.sigma_px, illumination,
            focus, flags,
        )  # fmt: skip
        self._rows.append((frame_row, measured))
        self.next_frame += 1

    def take(self) -> MeasureBatch | None:
        """The frames measured since the last call with the steps detected in them; None when there are none."""
        if not self._rows:
            return None
        columns = [np.array(column) for column in zip(*(row[0] for row in self._rows), strict=True)]
        measures = np.stack([measured for _, (measured, _) in self._rows])
        particle_flags = np.stack([flags for _, (_, flags) in self._rows])
        self._rows = []
        shape = measures.shape[:2]
        flux, sigma, y, x = np.empty((4, *shape), np.float32)
        layer, layer_sigma = np.empty((2, *shape, len(LAYERS)), np.float32)
        axial = np.empty((*shape, AXIAL_BINS), np.float32)
        part(measures, flux, sigma, layer, layer_sigma, axial, y, x)
        batch = MeasureBatch(*columns, flux, sigma, layer, layer_sigma, y, x, particle_flags)  # type: ignore[call-arg, arg-type]
        batch.axial_flux_e = axial
        batch.flags = batch.flags.astype(np.uint32)
        batch.camera_t0_s = self._t0_s if self._t0_s is not None else float("nan")
        batch.mask_version = self._mask_version
        self._baseline.settle()
        if self._baseline.flux_e is not None:
            batch.baseline_flux_e = self._baseline.flux_e
            batch.baseline_layer_flux_e = self._baseline.layer_flux_e
            batch.baseline_end_frame = self._baseline.end_frame
            batch.detections = self._detect(batch, self._baseline.flux_e)
            self._clips.want(batch.detections)
            batch.clips = self._clips.take()
        return batch

    def _run_time(self, stamp: FrameStamp) -> float:
        """Seconds since the run's first frame; a camera whose clock began anew is spliced on by the host's clock."""
        if self._t0_s is None:
            self._t0_s = stamp.device_t_s
        t_s = stamp.device_t_s - self._t0_s
        if self._last_stamp is not None:
            last_t_s, last_host_t_s = self._last_stamp
            step_s, host_step_s = t_s - last_t_s, stamp.host_t_s - last_host_t_s
            if step_s <= 0.0 or self._leaps(step_s, host_step_s):
                t_s = last_t_s + max(host_step_s * (self._settings.clock_rate or 1.0), 1e-6)
                self._t0_s = stamp.device_t_s - t_s
        self._last_stamp = (t_s, stamp.host_t_s)
        return t_s

    def _leaps(self, step_s: float, host_step_s: float) -> bool:
        """Whether the camera's clock is not the one of the frame before: it began anew, or is another camera's."""
        rate = self._settings.clock_rate
        return rate is not None and abs(step_s / rate - host_step_s) > CLOCK_TOLERANCE_S

    def _look(self, frame: np.ndarray) -> int:
        """Recognise data that only looks like data."""
        pixels = self._collector.pixels(frame, self._sample)
        sample, flags = pixels.tobytes(), 0
        if sample == sample[: pixels.itemsize] * pixels.size:
            flags = CONSTANT
        elif sample == self._last_sample:
            flags = REPEATED
        self._last_sample = sample
        return flags

    def _measure(self, frame: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], Shift, float, float]:
        if not self._registration.usable:
            self._photometer.look(frame, 0, 0)
        shift = self._registration.locate(frame)
        measures, flags, illumination = self._photometer.measure(frame, shift)
        psf = self.operator.psf_sigma_px
        sharp = self._registration.usable and shift.known
        focus = psf / sqrt(max(psf**2 + shift.blur_px2, 0.1)) if sharp else np.nan
        return (measures, flags), shift, illumination, float(focus)

    def _judge(self, shift: Shift, illumination: float, focus: float, *, after_gap: bool) -> int:
        flags = 0
        if not shift.known:
            flags |= DRIFT_UNKNOWN
        if shift.jumped:
            flags |= DRIFT_JUMP
        dark = self._photometer.dark
        if dark:
            flags |= DARK
        if self._illumination_watch(illumination, after_gap=after_gap) or dark != self._dark:
            flags |= ILLUMINATION_STEP
        self._dark = dark
        if self._focus_watch(focus, after_gap=after_gap):
            flags |= FOCUS_JUMP
        return flags

    def _detect(self, batch: MeasureBatch, baseline_flux_e: np.ndarray) -> list:
        # the frames behind each particle's baseline, however they are batched
        late, begun = self._baseline.late, int(np.searchsorted(batch.frame, self._baseline.end_frame))
        rows = slice(begun if late is None else 0, None)
        with np.errstate(divide="ignore", invalid="ignore"):
            contrast = batch.flux_e[rows] / baseline_flux_e - 1.0
            sigma = batch.flux_sigma_e[rows] / np.abs(baseline_flux_e)
        if late is not None:
            contrast[:begun, late] = np.nan
        return self._detector.add(batch.frame[rows], contrast, sigma, batch.particle_flags[rows], batch.t_s[rows])


class Baseline:
    """F0: the mean of each particle's flux over the first `seconds`, and at least `min_frames` measured frames.

    Of a `known` F0 (fluxes (P,) and layers (P, 4)) only what is NaN is measured, from the next frame on.
    """

    def __init__(self, seconds: float, min_frames: int, known: tuple[np.ndarray, np.ndarray] | None) -> None:
        self._seconds = seconds
        self._min_frames = min_frames
        self.flux_e: np.ndarray | None = known[0] if known is not None else None
        self.layer_flux_e: np.ndarray | None = known[1] if known is not None else None
        self.late: np.ndarray | None = np.isnan(known[0]) if known is not None else None
        """(P,) bool: the particles that this baseline is of, in a run that has its F0; None: all."""
        self._begin_t_s = 0.0 if known is None else np.nan
        self._frames = 0
        self._sums: np.ndarray | None = None
        self._complete = self.late is not None and not self.late.any()
        self.end_frame = 0
        """Number of the first frame that does not belong to the baseline."""

    def of(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """F0 in other columns: column k is column `kept[k]` here, NaN where that is -1. Raises `MaskError`."""
        if self.flux_e is None or self.layer_flux_e is None:
            raise MaskError(MaskReason.BASELINE, "the run's baseline is still being measured")
        flux_e, layer_flux_e = self.flux_e[kept], self.layer_flux_e[kept]
        flux_e[kept < 0], layer_flux_e[kept < 0] = np.nan, np.nan
        return flux_e, layer_flux_e

    def add(self, frame: int, t_s: float, measures: np.ndarray) -> None:
        """Collect a measured frame while the baseline lasts."""
        if self._complete:
            return
        if np.isnan(self._begin_t_s):
            self._begin_t_s = t_s
        self.end_frame = frame
        if t_s - self._begin_t_s > self._seconds and self._frames >= self._min_frames:
            self._complete = True
            return
        self.end_frame += 1
        values = np.column_stack([measures[:, FLUX], measures[:, LAYER : LAYER + len(LAYERS)]])
        good = np.isfinite(values)
        if self._sums is None:
            self._sums = np.zeros((2, *values.shape))
        self._sums[0] += np.where(good, values, 0.0)
        self._sums[1] += good
        self._frames += 1

    def settle(self, force: bool = False) -> None:
        """Compute F0 once the baseline is complete, or now when forced (a run shorter than its baseline)."""
        if self._sums is None or not (self._complete or force):
            return
        self._complete = True
        total, count = self._sums
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        self._sums, flux_e, layer_flux_e = None, mean[:, 0].copy(), mean[:, 1:].copy()
        if self.late is not None and self.flux_e is not None and self.layer_flux_e is not None:
            flux_e = np.where(self.late, flux_e, self.flux_e)
            layer_flux_e = np.where(self.late[:, None], layer_flux_e, self.layer_flux_e)
        self.flux_e, self.layer_flux_e = flux_e, layer_flux_e
