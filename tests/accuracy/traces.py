"""Science without pixels: contrasts with the noise of the real bound, through the detector and a run's science.

The formulas share no code with the simulated instrument. What a particle does to all of its pixels is all that is
simulated here; pixels are in `tests.accuracy.fractures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from daemon.engine.detector import StepDetector
from daemon.engine.measures import MaskSet, MeasureBatch
from daemon.events import Event
from daemon.photometry.science import Science, ScienceSettings

RATE_HZ = 100.0
BATCH = 50
SIGMA = (3e-4, 1.1e-3)
"""Of one exposure, by the mask-and-ring bound: 16 px and 7 px of radius at the photons of a full well."""
SWING = (0.05, 0.25)
RIPPLE = 5e-4
F0_E = 1e6


@dataclass(frozen=True)
class Jump:
    """A particle's own abrupt change: what must be told."""

    index: int
    t_s: float
    size: float


def drifting_ensemble(rng: np.random.Generator, particles: int, seconds: float) -> Iterator[np.ndarray]:
    """(BATCH, P) contrasts of particles that all transform, each at its own pace and time, under a rippling lamp.

    At 5C: a transformation lasts minutes, and the ensemble moves all the time.
    """
    swing = rng.uniform(*SWING, particles) * rng.choice([-1.0, 1.0])
    middle_s, width_s = rng.uniform(0, seconds, particles), rng.lognormal(np.log(60.0), 0.4, particles)
    wander = 0.0
    for first in range(0, round(seconds * RATE_HZ), BATCH):
        t_s = (first + np.arange(BATCH))[:, None] / RATE_HZ
        progress = 1.0 / (1.0 + np.exp(-(t_s - middle_s) / width_s))
        steps = rng.normal(0, 1e-3 * np.sqrt(2 / (60.0 * RATE_HZ)), BATCH)
        lamp = wander + np.cumsum(steps) + RIPPLE * np.sin(2 * np.pi * 0.37 * (first + np.arange(BATCH)))
        wander += steps.sum()
        yield (1.0 + swing * progress) * (1.0 + lamp[:, None]) - 1.0


def batches(
    rng: np.random.Generator, contrast: Iterator[np.ndarray], sigma: np.ndarray, baseline_frames: int = 100
) -> Iterator[MeasureBatch]:
    """What an engine would measure of these contrasts, Gaussian noise of `sigma` (P,) added, and detect in it."""
    count = len(sigma)
    detector = StepDetector(count, RATE_HZ, 1.0)
    for k, part in enumerate(contrast):
        frame = k * BATCH + np.arange(len(part))
        noisy = part + sigma * rng.standard_normal(part.shape)
        batch = _measured(frame, F0_E * (1.0 + noisy), np.broadcast_to(sigma * F0_E, part.shape))
        if frame[0] >= baseline_frames:
            batch.baseline_flux_e = np.full(count, F0_E)
            batch.baseline_layer_flux_e = np.full((count, 4), F0_E / 4)
            batch.detections = detector.add(frame, noisy, np.broadcast_to(sigma, part.shape), batch.particle_flags)
        yield batch


def _measured(frame: np.ndarray, flux_e: np.ndarray, sigma_e: np.ndarray) -> MeasureBatch:
    count, t_s = len(frame), frame / RATE_HZ
    none = np.zeros(count)
    return MeasureBatch(
        frame=frame, block_id=frame, t_s=t_s, host_t_s=t_s, drift_y_px=none, drift_x_px=none,
        drift_sigma_px=none + 1e-3, illumination=none + 1.0, focus=none + 1.0, flags=np.zeros(count, np.uint32),
        flux_e=flux_e, flux_sigma_e=sigma_e, layer_flux_e=np.repeat(flux_e[:, :, None] / 4, 4, axis=2),
        layer_sigma_e=np.repeat(sigma_e[:, :, None] / 2, 4, axis=2), centroid_y_px=np.zeros(flux_e.shape),
        centroid_x_px=np.zeros(flux_e.shape), particle_flags=np.zeros(flux_e.shape, np.uint16),
    )  # fmt: skip


def events_of(measured: Iterator[MeasureBatch], particles: int) -> list[Event]:
    """All events of a run whose particles have the ids 1, 2, ..., a grid of them 40 px apart."""
    side = int(np.ceil(np.sqrt(max(particles, 1))))
    place = np.arange(particles)
    labels = np.zeros((4, max(particles, 1)), np.int32)
    masks = MaskSet(
        labels, place + 1, 40.0 * (place // side), 40.0 * (place % side), {"area_px": np.full(particles, 300.0)}, 1.5,
        None,
    )  # fmt: skip
    science, events = Science(masks, ScienceSettings()), []
    for batch in measured:
        events += science.add(batch).events
    return events + science.finish().events
