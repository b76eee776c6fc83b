"""What befalls a microscope: drift, focus, LED, lost frames. Each with its label, each from its own random stream."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hw.twin.electrode import TruthEvent
from hw.twin.sample import stream
from hw.twin.settings import OpticsOptions

DRIFT_TAU_S, FOCUS_TAU_S, LED_TAU_S, WARMUP_S = 30.0, 120.0, 60.0, 600.0
MAX_DRIFT_PX = 14.0  # the scene is drawn this far beyond the frame, less the widest blur
MAX_BLUR_PX = 1.4
RIPPLE_CYCLES_A_FRAME = 0.37
_STAGE, _FOCUS, _LED, _CAMERA = 21, 22, 23, 24  # sub-streams of the seed


@dataclass(frozen=True)
class Disturbance:
    """The microscope's state at one frame."""

    drift_y_px: float
    drift_x_px: float
    """A particle at (y, x) of the sample appears at (y + drift_y_px, x + drift_x_px)."""
    blur_px: float
    """Sigma of the blur that defocus adds to the PSF (in quadrature)."""
    illumination: float
    """Factor on all light."""
    jitter_s: float
    """Error of the frame's time stamp."""
    dropped: bool
    """The camera loses this frame."""


class Disturbances:
    """Advances with the frames; the same options, seed and frame times give the same disturbances."""

    def __init__(self, options: OpticsOptions, seed: int, pixel_size_nm: float) -> None:
        self._options = options
        self._nm = pixel_size_nm
        self._stage, self._focus_rng = stream(seed, _STAGE), stream(seed, _FOCUS)
        self._led_rng, self._camera = stream(seed, _LED), stream(seed, _CAMERA)
        self._t_s = 0.0
        self._frame = 0
        self._wander = np.zeros(2)
        self._place = np.zeros(2)
        self._focus, self._focus_offset = 0.0, 0.0
        self._led, self._led_gain = 0.0, 1.0
        self.events: list[TruthEvent] = []
        """Jumps and steps, as they come; whoever reads them may clear it."""

    def at(self, t_s: float) -> Disturbance:
        """The state at simulated time `t_s`, not before the last one asked for."""
        if self._options.static:
            return Disturbance(0.0, 0.0, 0.0, 1.0, 0.0, False)
        dt_s, self._t_s = max(t_s - self._t_s, 0.0), t_s
        self._frame += 1
        drift = self._drift(dt_s)
        blur_px = self._blur(dt_s)
        light = self._light(dt_s)
        jitter_s = self._options.timestamp_jitter_us * 1e-6 * float(self._camera.standard_normal())
        dropped = bool(self._camera.random() < self._options.dropped_fraction)
        return Disturbance(float(drift[0]), float(drift[1]), blur_px, light, jitter_s, dropped)

    def _drift(self, dt_s: float) -> np.ndarray:
        options, rng = self._options, self._stage
        keep = math.exp(-dt_s / DRIFT_TAU_S)
        rms = options.drift_rms_nm / self._nm
        self._wander = keep * self._wander + rms * math.sqrt(1 - keep * keep) * rng.standard_normal(2)
        self._place = self._place + options.drift_walk_nm_per_h / self._nm * math.sqrt(
            dt_s / 3600
        ) * rng.standard_normal(2)
        if self._happens(rng, options.drift_jumps_per_h, dt_s):
            turn, size = rng.uniform(0, 2 * math.pi), rng.uniform(1.0, 3.0)
            self._place = self._place + size * np.array([math.sin(turn), math.cos(turn)])
            self.events.append(TruthEvent(self._t_s, "drift_jump", -1, size))
        self._place = np.clip(self._place, 1 - MAX_DRIFT_PX, MAX_DRIFT_PX - 1)
        return np.clip(self._place + self._wander, -MAX_DRIFT_PX, MAX_DRIFT_PX)

    def _blur(self, dt_s: float) -> float:
        options, rng = self._options, self._focus_rng
        keep = math.exp(-dt_s / FOCUS_TAU_S)
        self._focus = keep * self._focus + options.focus_rms_px * math.sqrt(1 - keep * keep) * rng.standard_normal()
        if self._happens(rng, options.focus_jumps_per_h, dt_s):
            self._focus_offset = float(rng.uniform(-0.8, 0.8))
            self.events.append(TruthEvent(self._t_s, "focus_jump", -1, abs(self._focus_offset)))
        return min(abs(self._focus + self._focus_offset), MAX_BLUR_PX)

    def _light(self, dt_s: float) -> float:
        options, rng = self._options, self._led_rng
        keep = math.exp(-dt_s / LED_TAU_S)
        self._led = keep * self._led + options.led_rms * math.sqrt(1 - keep * keep) * rng.standard_normal()
        if self._happens(rng, options.led_steps_per_h, dt_s):
            step = float(rng.choice([-1, 1]) * rng.uniform(0.005, 0.02))
            self._led_gain *= 1 + step
            self.events.append(TruthEvent(self._t_s, "illumination_step", -1, step))
        warm = 1.0 - options.led_warmup * math.exp(-self._t_s / WARMUP_S)
        ripple = options.led_ripple * math.sin(2 * math.pi * RIPPLE_CYCLES_A_FRAME * self._frame)
        return float(warm * (1.0 + self._led + ripple) * self._led_gain)

    @staticmethod
    def _happens(rng: np.random.Generator, per_h: float, dt_s: float) -> bool:
        return per_h > 0 and bool(rng.random() < -math.expm1(-per_h * dt_s / 3600.0))
